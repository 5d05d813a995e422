"""Reject connections: say why, and close so that the reason arrives."""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.limits.lograte import Journal
from sockservice.net.linger import Linger
from sockservice.net.transports import halfCloses

#: Seconds that a rejected peer has to close, or to finish its handshake.
PATIENCE = 5.0
#: Rejected connections waited for at once; beyond, a reset may destroy the reason.
WAITED_FOR = 1000

log = Logger()


class Rejector:
    """Rejects connections, for all listeners of the process."""

    def __init__(self, reactor: Any, journal: Journal) -> None:
        self.reactor = reactor
        self.waiting = 0
        self._journal = journal

    def reject(self, peer: str, refusal: str, said: bytes = b"") -> "Rejected":
        """Return the protocol that tells `peer` its refusal, in the bytes `said` if given."""
        if self._journal.admits(f"turned away: {refusal}", 1):
            log.info("{peer} turned away: {refusal}", peer=peer, refusal=refusal)
        return Rejected(self, said or f"error {refusal}\n".encode())


@implementer(IHalfCloseableProtocol)
class Rejected(Protocol):
    """Sends one line and closes; drops what arrives meanwhile. `gone` is called when it is lost."""

    transport: Any

    def __init__(
        self, rejector: Rejector, said: bytes, gone: Callable[[], object] = lambda: None
    ) -> None:
        self._rejector = rejector
        self._gone = gone
        self._said = said
        self._waiting: Any = None

    def connectionMade(self) -> None:
        rejector = self._rejector
        rejector.waiting += 1
        transport = self.transport
        transport.write(self._said)
        expired = transport.abortConnection
        if rejector.waiting > WAITED_FOR or not halfCloses(transport):
            transport.loseConnection()
            self._waiting = rejector.reactor.callLater(PATIENCE, expired)
        else:
            self._waiting = Linger(transport, rejector.reactor, PATIENCE, expired)

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Do nothing: the reason has been sent."""

    def starved(self) -> None:
        """There is no memory to read what is dropped anyway."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._rejector.waiting -= 1
        if self._waiting.active():
            self._waiting.cancel()
        self._gone()
