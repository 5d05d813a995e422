"""Load for a server: lines and datagrams as fast as it answers, or at a constant rate.

A :class:`Load` has connections, each with so many lines in flight. Without a rate,
each reply is followed by the next line. With one, each line has a time at which it is
due, whatever the server does, and its latency counts from that time: a server that
stalls is charged for all that would have been sent meanwhile.

Times are nanoseconds of any clock that never goes back.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import DatagramProtocol, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.attaching import attach
from sockservice.client import REPLY_LIMIT, DatagramClient, LineClient, lost
from sockservice.descriptors import Descriptors
from sockservice.histogram import Histogram
from sockservice.packets import PacketServer
from sockservice.pinging import Fate, Probes
from sockservice.ports import DatagramPort
from sockservice.transports import plainSocket, tune

SECOND = 1_000_000_000
#: Seconds between looks for datagrams that are lost, or had no room.
SWEEP = 0.02
#: Timers are late by up to so many seconds; what is due sooner is waited for awake.
COARSE = 0.0015


@dataclass
class Tally:
    """What was counted."""

    #: Replies, refusals and wrong ones included.
    answered: int = 0
    #: Of those, the ones that came before the end.
    inTime: int = 0
    refused: int = 0
    #: Replies of an echo that are no echo.
    wrong: int = 0
    #: Replies to nothing: more than were asked for, or to a datagram twice.
    unasked: int = 0
    #: Lines without a reply at the end.
    unanswered: int = 0
    #: Datagrams without a reply in time.
    lost: int = 0
    #: Connections that ended before the end.
    ended: int = 0
    #: In words, the first refusal or end of a connection.
    reason: str = ""
    latencies: Histogram = field(default_factory=Histogram)

    def add(self, other: "Tally") -> None:
        """Count what `other` has counted, too."""
        for name in (*FAULTS, "answered", "inTime"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reason = self.reason or other.reason
        self.latencies.add(other.latencies)

    def fault(self, name: str, reason: str) -> None:
        """Count a refusal or an end of a connection."""
        setattr(self, name, getattr(self, name) + 1)
        self.reason = self.reason or reason

    @property
    def whole(self) -> bool:
        """Whether there were replies and nothing went wrong."""
        return bool(self.answered) and not any(getattr(self, name) for name in FAULTS)


FAULTS = ("refused", "wrong", "unasked", "unanswered", "lost", "ended")


class Load:
    """All connections of one process.

    `now` gives nanoseconds. `rate` is in lines a second, for all connections; without
    one each of them has `pipeline` lines of `size` bytes in flight all the time.
    `timeout`, in seconds, is that of datagrams.
    """

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], int],
        size: int,
        pipeline: int,
        rate: float | None = None,
        timeout: float = 1.0,
    ) -> None:
        self.now = now
        self.size = size
        self.pipeline = pipeline
        self.rate = rate
        self.timeout = timeout
        self.tally = Tally()
        #: When what is counted began, and when it ended.
        self.since = 0
        self.until: int | None = None
        self._reactor = reactor
        self._descriptors = Descriptors(reactor)
        self._connections: list[LineLoad | DatagramLoad] = []
        self._begun = 0
        self._ticking: Any = None
        self._sweeping: Any = None
        self._ticked = 0  # lines that were due at the last tick
        self._settled: Deferred[None] | None = None
        self._closed = False
        #: Whether the system said that nobody takes the datagrams.
        self.unheard = False

    def add(self, client: LineClient | DatagramClient) -> None:
        """Take over the connection of a client that has asked nothing yet."""
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

    def start(self) -> None:
        """Begin to send, and to count."""
        self._begun = self.since = self.now()
        if self.rate is None:
            for connection in self._connections:
                connection.fill(self._begun)
        else:
            self._tick()
        if any(isinstance(each, DatagramLoad) for each in self._connections):
            self._sweep()

    def forget(self) -> None:
        """Measure anew from now on: what went before was to warm up; its faults stay."""
        tally = self.tally
        tally.answered = tally.inTime = 0
        tally.latencies = Histogram()
        self.since = self.now()

    def finish(self) -> Deferred[None]:
        """Send nothing more that is not due yet; fires when all replies have come."""
        self.until = self.now()
        if self._ticking is not None and self._ticking.active():
            self._ticking.cancel()
        settled = self._settled = Deferred()
        if self.rate is not None:
            # What has become due since the last tick.
            for connection in self._connections:
                connection.fill(self.until)
        self.settle()
        return settled

    def close(self) -> None:
        """End it all; what has not been answered never will be."""
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

    # What follows is called by the connections.

    def due(self, place: int, now: int) -> int:
        """Say how many lines of the connection at `place` are due, from the beginning on."""
        assert self.rate is not None
        if self.until is not None and now > self.until:
            now = self.until
        count = len(self._connections)
        return max(0, (self._due(now) - place + count - 1) // count)

    def moment(self, place: int, number: int) -> int:
        """Say when line `number`, from 0, of the connection at `place` is due."""
        assert self.rate is not None
        overall = number * len(self._connections) + place
        return self._begun + int(overall * SECOND / self.rate)

    def settle(self) -> None:
        """See whether all is answered."""
        settled = self._settled
        if settled is None or settled.called or self.until is None:
            return
        until = self.until
        if not any(each.outstanding(until) for each in self._connections if not each.ended):
            settled.callback(None)

    @property
    def alive(self) -> int:
        """Connections that have not ended."""
        return sum(not each.ended for each in self._connections)

    def _due(self, now: int) -> int:
        """Say how many lines of all connections are due."""
        assert self.rate is not None
        return int((now - self._begun) * self.rate / SECOND) + 1

    def _tick(self) -> None:
        """Send what is due, and come back when something is."""
        now = self.now()
        due = self._due(now)
        count = len(self._connections)
        for place in range(self._ticked, min(due, self._ticked + count)):
            self._connections[place % count].fill(now)
        self._ticked = due
        next = self._begun + due * SECOND / self.rate  # type: ignore[operator]
        self._ticking = self._reactor.callLater(
            max(0.0, (next - now) / SECOND - COARSE), self._tick
        )

    def _sweep(self) -> None:
        now = self.now()
        for connection in self._connections:
            if isinstance(connection, DatagramLoad):
                connection.sweep(now)
        self._sweeping = self._reactor.callLater(SWEEP, self._sweep)


@implementer(IPullProducer)
class LineLoad(Protocol):
    """One connection: lines alike, so that the replies of most servers are, too.

    Those are compared as they come, many at once; only others are taken apart.
    """

    transport: Any

    def __init__(self, load: Load, place: int) -> None:
        self._load = load
        self._place = place
        self._line = b"x" * load.size + b"\n"
        self._lines = self._line * load.pipeline
        self._sent = 0
        self._answered = 0
        # Without a rate: when lines were sent, and how many at that time.
        self._batches: deque[list[int]] = deque()
        # The reply that is expected, with its ending; as often as a read may hold it.
        self._reply = b""
        self._replies = b""
        # Of the reply that is coming: how much is as expected; or, if it isn't, all of it.
        self._offset = 0
        self._odd = b""
        self._plain: Any = None
        self._queued = False
        self.ended = False

    def connectionMade(self) -> None:
        tune(self.transport)
        self._plain = plainSocket(self.transport)
        self._packets = isinstance(self.transport, PacketServer)

    def fill(self, now: int) -> None:
        """Send what may be sent."""
        load = self._load
        if self.ended:
            return
        room = load.pipeline - self._sent + self._answered
        if load.rate is not None:
            count = min(room, load.due(self._place, now) - self._sent)
            if count <= 0:
                return
        elif load.until is None and room:
            count = room
            self._batches.append([now, count])
        else:
            return
        self._sent += count
        if self._packets:
            for _ in range(count):
                self.transport.write(self._line)
        else:
            self._write(
                self._lines if count == load.pipeline else self._lines[: count * len(self._line)]
            )

    def outstanding(self, until: int) -> int:
        """Say how many lines have no reply, those that were due and not sent included."""
        load = self._load
        sent = self._sent if load.rate is None else load.due(self._place, until)
        return max(sent, self._sent) - self._answered

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            self.transport.abortConnection()

    # What follows is called by the transport.

    def dataReceived(self, data: bytes) -> None:
        now = self._load.now()
        end = self._offset + len(data)
        if self._reply and not self._odd and data == self._replies[self._offset : end]:
            count, self._offset = divmod(end, len(self._reply))
        else:
            count = self._sort(data)
        if count:
            self._take(count, now)
            self.fill(now)
            self._load.settle()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ended:
            self.ended = True
            self._load.tally.fault("ended", lost(reason))
            self._load.settle()

    def resumeProducing(self) -> None:
        # Called as soon as it is registered, and then when all that was queued is sent.
        if self._queued:
            self._queued = False
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        """The connection ends."""

    def _write(self, data: bytes) -> None:
        """Send at once what the system takes, without the reactor's detour."""
        if self._plain is not None and not self._queued:
            try:
                data = data[self._plain.send(data) :]
            except BlockingIOError:
                pass
            except OSError:
                # Reading will tell.
                return
            if not data:
                return
            self.transport.write(data)
            self.transport.registerProducer(self, False)
            self._queued = True
        else:
            self.transport.write(data)

    def _take(self, count: int, now: int) -> None:
        """Count replies, and how long each took."""
        load, tally = self._load, self._load.tally
        asked = self._sent - self._answered
        if count > asked:
            tally.unasked += count - asked
            count = asked
        first = self._answered
        self._answered += count
        record = tally.latencies.record
        if load.rate is not None:
            moments = [load.moment(self._place, first + each) for each in range(count)]
            latencies = [now - moment for moment in moments if moment >= load.since]
            count = len(latencies)
            for latency in latencies:
                record(latency)
        else:
            left = count
            while left:
                batch = self._batches[0]
                some = min(left, batch[1])
                record(now - batch[0], some)
                left -= some
                batch[1] -= some
                if not batch[1]:
                    self._batches.popleft()
        tally.answered += count
        if load.until is None:
            tally.inTime += count

    def _sort(self, data: bytes) -> int:
        """Look at each reply; give how many there are, without refusals of the connection."""
        tally = self._load.tally
        asked = self._sent - self._answered
        lines = ((self._odd or self._reply[: self._offset]) + data).split(b"\n")
        rest = lines.pop()
        count = len(lines)
        for place, line in enumerate(lines):
            if line + b"\n" == self._reply:
                continue
            if line.startswith(b"error "):
                tally.fault("refused", line.decode("utf-8", "backslashreplace"))
                count -= place >= asked
            elif not self._reply:
                self._reply = line + b"\n"
                self._replies = self._reply * (65536 // len(self._reply) + 2)
            elif self._reply == self._line:
                tally.wrong += 1
        if self._reply.startswith(rest):
            self._offset, self._odd = len(rest), b""
        else:
            self._offset, self._odd = 0, rest
        if len(rest) > REPLY_LIMIT:
            tally.fault("wrong", f"a reply is longer than {REPLY_LIMIT} bytes")
            self.transport.abortConnection()
        return count


class DatagramLoad(DatagramProtocol):
    """One socket, numbered datagrams, each expected to come back as it is."""

    noisy = False
    transport: Any

    def __init__(self, load: Load, place: int, peer: tuple[Any, ...]) -> None:
        self._load = load
        self._place = place
        self._peer = peer
        self._probes = Probes(load.size, load.timeout * SECOND, stream=False)
        self.ended = False

    def startProtocol(self) -> None:
        self._socket = self.transport.socket

    def fill(self, now: int) -> None:
        """Send what may be sent."""
        load, probes = self._load, self._probes
        if self.ended:
            return
        count = load.pipeline - probes.awaited
        if load.rate is not None:
            count = min(count, load.due(self._place, now) - probes.count)
        elif load.until is not None:
            return
        for _ in range(count):
            try:
                self.transport.write(probes.following, self._peer)
            except BlockingIOError:
                # The next sweep tries again.
                return
            except ConnectionRefusedError:
                self.connectionRefused()
                return
            except OSError:
                # Sent, as far as that goes: it will be lost.
                pass
            probes.sent(now)

    def sweep(self, now: int) -> None:
        """Give up what is lost, and send in its place."""
        del self._probes.roundTrips[:]
        lost = self._probes.expire(now)
        self._load.tally.lost += len(lost)
        self.fill(now)
        if lost:
            self._load.settle()

    def outstanding(self, until: int) -> int:
        """Say how many datagrams have no reply, those that were due and not sent included."""
        load, probes = self._load, self._probes
        due = probes.count if load.rate is None else load.due(self._place, until)
        return probes.awaited + max(0, due - probes.count)

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            self.transport.stopListening()
            self._socket.close()

    # What follows is called by the transport.

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        load, tally = self._load, self._load.tally
        now = load.now()
        event = self._probes.receive(datagram, now)
        if event.fate is Fate.DUPLICATE:
            tally.unasked += 1
        elif event.fate is Fate.CORRUPT:
            tally.wrong += 1
        elif event.fate is Fate.REPLY and event.number is not None:
            latency = event.roundTrip or 0
            begun = now - latency
            if load.rate is not None:
                begun = load.moment(self._place, event.number - 1)
                latency = now - begun
            if load.rate is None or begun >= load.since:
                tally.latencies.record(int(latency))
                tally.answered += 1
                tally.inTime += load.until is None
        self.fill(now)
        load.settle()

    def connectionRefused(self) -> None:
        if not self.ended:
            self._load.unheard = True
            self._load.tally.fault("ended", "nobody listens there")
            self._load.tally.lost += self._probes.awaited
            self.close()
            self._load.settle()
