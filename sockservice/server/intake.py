"""What a connection has received and not answered yet, and whether more of it is read."""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from sockservice.limits.tokenbucket import Pace
from sockservice.net.seqpacket import LONGEST
from sockservice.net.transports import plainSocket, wire
from sockservice.wire.framing import Framing

#: Reads of 64 KiB by which a connection is emptied when the service stops: what the
#: system's buffers hold at most by default (net.ipv4.tcp_rmem, 6 MiB).
DRAIN_READS = 96

#: The same in packets: a short one takes up 768 bytes of its sender's buffer, which holds
#: 8 MiB at most by default (twice net.core.wmem_max).
DRAIN_PACKETS = 11_000


class Intake:
    """The receiving side of a connection on `transport`, whose bytes `framing` cuts into lines."""

    __slots__ = ("_pace", "_reads", "_slowed", "_transport", "ended", "framing", "full", "paused")

    def __init__(self, transport: Any, framing: Framing) -> None:
        self._transport = transport
        self.framing = framing
        #: Whether nothing is read: earlier lines wait.
        self.paused = False
        #: Whether the peer has half-closed.
        self.ended = False
        #: Whether the store has too much to do.
        self.full = False
        self._pace: Pace | None = None
        self._slowed: IDelayedCall | None = None
        self._reads = 0  # since the service stops, of what the system had received

    @property
    def begun(self) -> bool:
        """Whether a line is known to be begun: of what isn't read nobody can say."""
        return not (self.paused or self.framing.startsLine)

    def moved(self, transport: Any) -> None:
        """Go on receiving from another transport, which is around or in the one before."""
        self._transport = transport
        self.paused = False

    def pause(self) -> None:
        """Read nothing more."""
        if not (self.paused or self.ended):
            self.paused = True
            self._transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        if self.paused:
            self.paused = False
            self._transport.resumeProducing()

    def allowed(
        self,
        rate: int,
        lines: int,
        clock: Any,
        again: Callable[[], None],
        slowed: Callable[[], None],
    ) -> int:
        """Return how many lines may be taken now, of `rate` a second, behind `lines` so far.

        If it is none, `again` is called when one may be; `slowed` is told of each such wait.
        """
        now = clock.seconds()
        if self._pace is None:
            self._pace = Pace(rate, now, lines)
        allowed = self._pace.allowed(rate, now, lines)
        if allowed <= 0:
            if not self.framing.held:
                # Nobody waits; more may be read, and the end be seen.
                return 1
            if self._slowed is None:
                slowed()
                self._slowed = clock.callLater(self._pace.wait, self._again, again)
        return allowed

    def _again(self, again: Callable[[], None]) -> None:
        self._slowed = None
        again()

    def hasten(self) -> None:
        """Hold nothing back any more for its rate."""
        slowed, self._slowed = self._slowed, None
        if slowed is not None:
            slowed.cancel()

    def readRest(self, packets: bool) -> bool:
        """Read once more of what has arrived already; return whether there was anything."""
        below = wire(self._transport)
        plain = below.getHandle() if packets else plainSocket(below)
        if plain is None or self._reads == (DRAIN_PACKETS if packets else DRAIN_READS):
            return False
        self._reads += 1
        try:
            data = plain.recv(LONGEST if packets else 65536)
        except OSError:
            return False
        if data:
            below.protocol.dataReceived(data)
        else:
            self.ended = True
        return True
