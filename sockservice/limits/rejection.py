"""Reject connections: say why, and close so that the reason arrives."""

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.limits.lograte import Journal
from sockservice.net.transports import halfCloses

#: Seconds that a rejected peer has to close, or to finish its handshake.
PATIENCE = 5.0
#: Rejected connections waited for at once; beyond, a reset may destroy the reason.
WAITED_FOR = 1000

log = Logger()


class Turning:
    """Rejects connections, for all listeners of the process."""

    def __init__(self, reactor: Any, journal: Journal) -> None:
        self.reactor = reactor
        self.waiting = 0
        self._journal = journal

    def away(self, peer: str, refusal: str) -> "TurnedAway":
        """Return the protocol that tells `peer` why it is rejected."""
        if self._journal.admits(f"turned away: {refusal}", 1):
            log.info("{peer} turned away: {refusal}", peer=peer, refusal=refusal)
        return TurnedAway(self, refusal)


@implementer(IHalfCloseableProtocol)
class TurnedAway(Protocol):
    """Sends one line and closes; drops what arrives meanwhile."""

    transport: Any

    def __init__(self, turning: Turning, refusal: str) -> None:
        self._turning = turning
        self._said = f"error {refusal}\n".encode()
        self._waiting: Any = None

    def connectionMade(self) -> None:
        turning = self._turning
        turning.waiting += 1
        transport = self.transport
        transport.write(self._said)
        if turning.waiting > WAITED_FOR or not halfCloses(transport):
            transport.loseConnection()
        else:
            transport.loseWriteConnection()
        self._waiting = turning.reactor.callLater(PATIENCE, transport.abortConnection)

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Do nothing: the reason has been sent."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._turning.waiting -= 1
        if self._waiting.active():
            self._waiting.cancel()
