"""Load over one stream connection."""

from collections import deque
from typing import Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from sockservice.client.explain import lost
from sockservice.client.line import REPLY_LIMIT
from sockservice.measure.schedule import Schedule
from sockservice.net.outbox import Outbox
from sockservice.net.seqpacket import PacketServer
from sockservice.net.transports import tune


class LineLoad(Protocol):
    """One connection, all of whose lines are equal, and so are most servers' replies to them.

    Equal replies are compared many at once; only others are split into lines.
    """

    transport: Any

    def __init__(self, load: Schedule, place: int) -> None:
        self._load = load
        self._place = place
        self._line = b"x" * load.size + b"\n"
        self._lines = self._line * load.pipeline
        self._sent = 0
        self._answered = 0
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

    def fill(self, now: int) -> None:
        """Send the lines that may be sent now."""
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
                self._outbox.write(self._line)
        else:
            self._outbox.write(
                self._lines if count == load.pipeline else self._lines[: count * len(self._line)]
            )

    def outstanding(self, until: int) -> int:
        """Return how many lines have no reply, including those due but not sent."""
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

    def _sort(self, data: bytes) -> int:
        """Examine each reply; return how many there are, refusals of the connection excluded."""
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
