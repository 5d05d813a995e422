"""Expect a PROXY header on each connection, and serve the peer that it names."""

from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.limits.memory import NO_MEMORY
from sockservice.limits.rejection import Rejected
from sockservice.net.addresses import named
from sockservice.net.transports import plainSocket
from sockservice.wire.plurals import inSeconds
from sockservice.wire.proxyheader import parsed

log = Logger()


class ProxyFactory(Factory):
    """Expect a PROXY header on each connection, then serve it as `factory` would.

    `factory` sees the peer that the header names. It is for listeners that only
    a proxy can reach: whoever connects can name any peer. Until the header is there a
    connection counts as one, and it has as long for it as for a line.
    """

    noisy = False

    def __init__(self, factory: Any) -> None:
        self.factory = factory
        #: The LineFactory, which TLS may be wrapped around.
        self.lines = getattr(factory, "wrappedFactory", factory)

    def doStart(self) -> None:
        self.factory.doStart()

    def doStop(self) -> None:
        self.factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return the protocol that waits for the header, or one that rejects the connection."""
        return self.lines.turned(None, named(addr)) or ProxyHeader(self, addr)


@implementer(IHalfCloseableProtocol)
class ProxyHeader(Protocol):
    """The first bytes of a connection, until its PROXY header is whole."""

    transport: Any

    def __init__(self, factory: ProxyFactory, proxy: IAddress | None) -> None:
        self._factory = factory
        self._proxy = proxy
        self._lines = factory.lines
        self._data = b""
        self._since = self._lines.reactor.seconds()
        self._waits = True

    def connectionMade(self) -> None:
        self._lines.expected(self)

    def inspect(self, now: float, idle: int, unfinished: int) -> None:
        """Refuse to wait any longer; called as a LineServer's."""
        if self._waits and unfinished and now - self._since >= unfinished:
            self._refuse(f"no PROXY header for {inSeconds(unfinished)}")

    def finish(self) -> None:
        """Take what the system has received, a header and lines; without a header, close.

        Whoever has begun one is told that it has not ended.
        """
        if not self._waits:
            return
        plain = plainSocket(self.transport)
        if plain is not None:
            with suppress(OSError):
                self.dataReceived(plain.recv(65536))
        if self._waits:
            self._unfinished()

    def readConnectionLost(self) -> None:
        """Tell the peer that more of it was expected, unless it has only looked at the port."""
        self._unfinished()
        # Nothing more is waited for.
        if self.transport.protocol is not self:
            self.transport.protocol.readConnectionLost()

    def _unfinished(self) -> None:
        if self._data:
            self._refuse("unfinished PROXY header")
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Never called: our direction ends with the connection."""

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        try:
            header = parsed(self._data)
        except ValueError as problem:
            self._refuse(str(problem))
            return
        if header is None:
            return
        # It counts no more, or there might be no place for what it is from now on.
        self._lines.admission.left(None)
        peer = self._proxy
        if header.peer is not None:
            kind = IPv6Address if ":" in header.peer[0] else IPv4Address
            peer = kind("TCP", *header.peer)
        try:
            served = self._factory.factory.buildProtocol(peer)
            if served is None:
                self.transport.loseConnection()
            else:
                self._hand(served)
                if len(self._data) > header.length:
                    served.dataReceived(self._data[header.length :])
        finally:
            # Or a drain would wait for a connection that has failed.
            self._end()

    def _hand(self, protocol: Any) -> None:
        """Make the connection `protocol`'s own, with nothing in between."""
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)

    def _refuse(self, reason: str) -> None:
        self._lines.admission.left(None)
        self._lines.counters.turnedAway += 1
        self._lines.counters.reason("turnedAway", "proxy-header")
        if self._lines.journal.admits("PROXY headers refused"):
            log.info(
                "{peer} refused: {reason}", peer=named(self.transport.getPeer()), reason=reason
            )
        # Like any rejected peer: so that the reason arrives, and nothing is waited for long.
        # A service that stops waits for that, too.
        self._waits = False
        gone = partial(self._lines.unexpected, self)
        self._hand(Rejected(self._lines.rejector, f"error {reason}\n".encode(), gone))

    def unmade(self) -> None:
        """The connection could not be made; called by the port."""
        self._waits = False
        self._lines.admission.left(None)

    def starved(self) -> None:
        """There is no memory for what arrives; called as a LineServer's."""
        self._lines.counters.starved += 1
        self._data = b""
        if self._waits:
            self._refuse(NO_MEMORY)
        else:
            self.transport.abortConnection()

    def _end(self) -> None:
        """Wait for the header no more."""
        self._waits = False
        self._lines.unexpected(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._waits:
            return
        self._lines.admission.left(None)
        self._end()
        if self._data and self._lines.journal.admits("closed in a PROXY header"):
            peer = named(self.transport.getPeer())
            log.info("{peer} closed in the middle of its PROXY header", peer=peer)
