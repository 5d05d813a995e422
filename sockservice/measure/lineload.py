"""Load over one stream connection."""

from collections import deque
from typing import Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from sockservice.client.explain import lost
from sockservice.client.farewell import rejected
from sockservice.client.framed import Framed
from sockservice.client.line import REPLY_LIMIT
from sockservice.client.requests import Discarded
from sockservice.measure.schedule import Schedule
from sockservice.net.outbox import Outbox
from sockservice.net.seqpacket import PacketServer
from sockservice.net.tls.client import refusal
from sockservice.net.transports import tune
from sockservice.wire.framing import LF, Control, Lines


class LineLoad(Protocol):
    """One connection, all of whose lines are equal, and so are most servers' replies to them.

    Equal replies are compared many at once; only others are split into lines.
    """

    transport: Any

    def __init__(self, load: Schedule, place: int) -> None:
        self._load = load
        self._place = place
        self._line = load.payload + b"\n"
        self._lines = self._line * load.pipeline
        self._sent = 0
        self._answered = 0
        self._refused = 0
        # Without a rate: when lines were sent, and how many at that time.
        self._batches: deque[list[int]] = deque()
        # The expected reply, with its ending; and repeated, as often as a read may hold it.
        self._reply = b""
        self._replies = b""
        # Of an incomplete reply: how many bytes are as expected; or, if not, the bytes.
        self._offset = 0
        self._odd = b""
        self.ended = False

    def connectionMade(self) -> None:
        tune(self.transport)
        self._outbox = Outbox(self.transport)
        self._packets = isinstance(self.transport, PacketServer)
        framing = self._load.framing
        # Packets are written one by one, and are lines all the same.
        self._framed = None
        if framing is not None and not self._packets:
            self._framed = Framed(framing, REPLY_LIMIT, LF)

    def fill(self, now: int) -> None:
        """Send the lines that may be sent now."""
        load = self._load
        if self.ended:
            return
        room = load.pipeline - self._sent + self._answered
        if load.rate is not None:
            count = load.granted(min(room, load.due(self._place, now) - self._sent))
            if count <= 0:
                return
        elif load.until is None and room and (count := load.granted(room)):
            self._batches.append([now, count])
        else:
            return
        self._sent += count
        if self._framed is not None:
            encoded = self._framed.encoded
            self._outbox.write(b"".join([encoded(load.payload) for _ in range(count)]))
        elif self._packets:
            for _ in range(count):
                self._outbox.write(self._line)
        else:
            self._outbox.write(
                self._lines if count == load.pipeline else self._lines[: count * len(self._line)]
            )

    def outstanding(self, until: int) -> int:
        """Return how many lines have no reply, including those due but not sent."""
        load = self._load
        due = 0 if load.rate is None else load.due(self._place, until)
        return max(due, self._sent) - self._answered

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            self.transport.abortConnection()

    # What follows is called by the transport.

    def dataReceived(self, data: bytes) -> None:
        now = self._load.now()
        end = self._offset + len(data)
        if self._framed is not None:
            count = self._examined(self._unframed(self._framed, data))
        elif self._reply and not self._odd and data == self._replies[self._offset : end]:
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
            tally = self._load.tally
            broken = "" if self._framed is None else self._framed.broken
            tally.fault("ended", broken or lost(reason))
            assert reason.value is not None
            if not self._answered or self._refused == self._answered:
                tally.turnedAway += bool(refusal(reason.value)) or rejected(tally.reason)
            self._load.settle()

    def _take(self, count: int, now: int) -> None:
        """Count replies, and record their latencies."""
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

    def _unframed(self, framed: Framed, data: bytes) -> list[bytes]:
        """Return the replies that a framing finds, and send what it answers by itself."""
        replies: list[bytes] = []
        for item in framed.items(data):
            if isinstance(item, Lines):
                replies += item.lines
            elif isinstance(item, Control):
                self.transport.write(item.data)
            else:
                replies.append(Discarded(b"reply " + item.reason))
        if framed.broken:
            self.transport.abortConnection()
        return replies

    def _sort(self, data: bytes) -> int:
        """Split into lines and examine each; return what `_examined` does."""
        lines = ((self._odd or self._reply[: self._offset]) + data).split(b"\n")
        rest = lines.pop()
        count = self._examined(lines)
        if self._reply.startswith(rest):
            self._offset, self._odd = len(rest), b""
        else:
            self._offset, self._odd = 0, rest
        if len(rest) > REPLY_LIMIT:
            self._load.tally.fault("wrong", f"a reply is longer than {REPLY_LIMIT} bytes")
            self.transport.abortConnection()
        return count

    def _examined(self, lines: list[bytes]) -> int:
        """Examine each reply; return how many there are, refusals of the connection excluded."""
        load, tally = self._load, self._load.tally
        asked = self._sent - self._answered
        count = len(lines)
        for place, line in enumerate(lines):
            if line + b"\n" == self._reply:
                continue
            if type(line) is Discarded:
                tally.fault("wrong", line.decode())
            elif line.startswith(load.refusals):
                tally.fault("refused", line.decode("utf-8", "backslashreplace"))
                self._refused += 1
                count -= place >= asked
                tally.farewells += place >= asked
            elif not self._reply:
                self._reply = line + b"\n"
                self._replies = self._reply * (65536 // len(self._reply) + 2)
            elif self._reply == self._line:
                tally.wrong += 1
        return count
