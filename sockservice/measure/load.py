"""Generate load for a server: as fast as it answers, or at a constant rate.

A :class:`Load` has connections, each with so many lines in flight. Without a rate,
each reply is followed by the next line. With one, each line is due at a fixed time,
whatever the server does, and its latency counts from that time: a server that stalls
is charged for all lines that would have been sent meanwhile.

Times are nanoseconds of any monotonic clock.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred

from sockservice.client.datagram import DatagramClient
from sockservice.client.line import LineClient
from sockservice.client.takeover import attach
from sockservice.measure.datagramload import DatagramLoad
from sockservice.measure.histogram import Histogram
from sockservice.measure.lineload import LineLoad
from sockservice.measure.schedule import SECOND, Schedule
from sockservice.net.epoll import Descriptors
from sockservice.net.udp.port import DatagramPort

#: Seconds between checks for datagrams that are lost, or had no room.
SWEEP = 0.02
#: Timers are late by up to this many seconds; shorter waits are busy.
COARSE = 0.0015


class Load(Schedule):
    """All connections of one process.

    The arguments behind `reactor` are those of a :class:`~sockservice.measure.schedule.Schedule`.
    """

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], int],
        size: int,
        pipeline: int,
        rate: float | None = None,
        timeout: float = 1.0,
        **given: Any,
    ) -> None:
        super().__init__(now, size, pipeline, rate, timeout, **given)
        self._reactor = reactor
        self._descriptors = Descriptors(reactor)
        self._connections: list[LineLoad | DatagramLoad] = []
        self._ticking: Any = None
        self._sweeping: Any = None
        self._ticked = 0  # lines that were due at the last tick
        self._settled: Deferred[None] | None = None
        #: Fires when all lines of a load that counts them have been answered, or never will be.
        self.exhausted: Deferred[None] = Deferred()
        self._closed = False

    def add(self, client: LineClient | DatagramClient) -> None:
        """Take over the connection of a client that has not been used yet."""
        place = len(self._connections)
        connection: LineLoad | DatagramLoad
        if isinstance(client, DatagramClient):
            connection = DatagramLoad(self, place, client.peer)
        else:
            connection = LineLoad(self, place)
        attach(client, connection)
        transport = client.transport
        if isinstance(transport, FileDescriptor | DatagramPort):
            transport.reactor.removeReader(transport)
            transport.reactor = self._descriptors
            transport.reactor.addReader(transport)
        self._connections.append(connection)
        self.connections += 1

    def start(self) -> None:
        """Start to send, and to count."""
        self.begun = self.since = self.now()
        if self.rate is None:
            for connection in self._connections:
                connection.fill(self.begun)
        else:
            self._tick()
        if any(isinstance(each, DatagramLoad) for each in self._connections):
            self._sweep()
        self.settle()

    def forget(self) -> None:
        """Start measuring again: what went before was the warm-up; its faults stay."""
        tally = self.tally
        tally.answered = tally.inTime = 0
        tally.latencies = Histogram()
        self.since = self.now()

    def finish(self) -> Deferred[None]:
        """Send nothing more than is due by now; fires when all replies have come."""
        self.until = self.now()
        if self._ticking is not None and self._ticking.active():
            self._ticking.cancel()
        settled = self._settled = Deferred()
        if self.rate is not None:
            # Lines that have become due since the last tick.
            for connection in self._connections:
                connection.fill(self.until)
        self.settle()
        return settled

    def close(self) -> None:
        """Close all connections; lines without a reply count as unanswered."""
        for call in (self._ticking, self._sweeping):
            if call is not None and call.active():
                call.cancel()
        if self._closed:
            return
        self._closed = True
        until = self.until = self.now() if self.until is None else self.until
        for connection in self._connections:
            self.tally.unanswered += connection.outstanding(until)
            connection.close()

    def settle(self) -> None:
        """Check whether all is answered."""
        settled = self._settled
        if self.count is not None and not self.exhausted.called:
            now = self.now()
            if self.spent(now) and not self._awaits(now):
                self.exhausted.callback(None)
        if settled is None or settled.called or self.until is None:
            return
        if not self._awaits(self.until):
            settled.callback(None)

    def _awaits(self, until: int) -> bool:
        """Return whether a line that is due until then has no reply, and may have one still."""
        return any(each.outstanding(until) for each in self._connections if not each.ended)

    @property
    def alive(self) -> int:
        """Connections that have not ended."""
        return sum(not each.ended for each in self._connections)

    def _tick(self) -> None:
        """Send the lines that are due, and set the timer for the next."""
        now = self.now()
        due = self.dueOfAll(now)
        count = len(self._connections)
        for place in range(self._ticked, min(due, self._ticked + count)):
            self._connections[place % count].fill(now)
        self._ticked = due
        if due == self.count:
            self.settle()
            return
        next = self.begun + due * SECOND / self.rate  # type: ignore[operator]
        self._ticking = self._reactor.callLater(
            max(0.0, (next - now) / SECOND - COARSE), self._tick
        )

    def _sweep(self) -> None:
        now = self.now()
        for connection in self._connections:
            if isinstance(connection, DatagramLoad):
                connection.sweep(now)
        self._sweeping = self._reactor.callLater(SWEEP, self._sweep)
