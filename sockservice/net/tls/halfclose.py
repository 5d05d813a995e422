"""TLS with half-close: each direction ends on its own, as in TCP.

Twisted answers the peer's close_notify at once with its own and closes, which was the rule
up to TLS 1.2 and loses every reply still awaited. TLS 1.3 lets our direction go on
(RFC 8446, 6.1), and so does OpenSSL in TLS 1.2, at both ends.
"""

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.wire.opening import isText


class Connection(SSL.Connection):
    """OpenSSL's connection; a close_notify in the handshake is treated as an end of file."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except SSL.ZeroReturnError:
            # Twisted fails on an error without text.
            raise SSL.SysCallError(-1, "Unexpected EOF") from None


class HalfCloseableConnection(Connection):
    """OpenSSL's connection, which records the peer's close_notify instead of reporting it."""

    #: Whether the peer has sent its close_notify, and so nothing more will come.
    ended = False

    def recv(self, *given: Any) -> bytes:
        try:
            return super().recv(*given)
        except SSL.ZeroReturnError:
            self.ended = True
            # As if there were nothing to read at the moment.
            raise SSL.WantReadError from None

    @property
    def sent(self) -> bool:
        """Whether our close_notify has been sent."""
        return bool(self.get_shutdown() & SSL.SENT_SHUTDOWN)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(TLSMemoryBIOProtocol):
    """Twisted's TLS, which tells its protocol when the peer's direction has ended.

    The protocol is an IHalfCloseableProtocol. A TCP half-close ends the peer's direction as
    a close_notify does: what came before it was complete and authentic.
    """

    transport: Any
    wrappedProtocol: Any

    _ended = False
    _truncated = False
    _begun = False  # something has come
    _refused = False  # it was no TLS

    def loseWriteConnection(self) -> None:
        """Send our close_notify after all that was written; go on reading."""
        super().loseConnection()

    def loseConnection(self) -> None:
        """Send our close_notify after all that was written, then close without the peer's."""
        if not self.connected:
            return
        # A LineServer stays registered as a producer, for which Twisted would wait.
        self.unregisterProducer()
        super().loseConnection()
        if self.getHandle().sent:
            self.transport.loseConnection()

    def resumeProducing(self) -> None:
        """Read again, unless the peer's direction has ended."""
        if not self._ended:
            self.transport.resumeProducing()

    # What follows is called by the transport.

    def dataReceived(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            refuse = getattr(self.wrappedProtocol, "notTLS", None)
            if refuse is not None and isText(data):
                self._ended = self._refused = True
                refuse()
        # Anything after a close_notify is to be ignored; OpenSSL would keep it.
        if not self._ended:
            super().dataReceived(data)
            if self.getHandle().ended:
                self._end()

    def readConnectionLost(self) -> None:
        """TCP has ended in the peer's direction."""
        if self._refused:
            self.transport.loseConnection()
        elif not self._ended:
            self._truncated = not self.getHandle().sent
            self._end()

    def writeConnectionLost(self) -> None:
        """Never called: our direction of TCP ends with the connection."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # The reason passed on is that of TCP, not the complaint of TLS about it.
        self.getHandle().set_shutdown(SSL.RECEIVED_SHUTDOWN)
        super().connectionLost(Failure(CONNECTION_LOST) if self._truncated else reason)

    def _end(self) -> None:
        self._ended = True
        self.transport.pauseProducing()
        if self._handshakeDone:
            self.wrappedProtocol.readConnectionLost()
        else:
            self.transport.loseConnection()


class HalfCloseableFactory(TLSMemoryBIOFactory):
    """Wraps a factory's protocols in TLS, without delaying replies to join them."""

    protocol = HalfCloseable
