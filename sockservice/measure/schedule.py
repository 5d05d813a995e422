"""The schedule of a load, and the state that its connections share.

Times are nanoseconds of any monotonic clock.
"""

from collections.abc import Callable

from sockservice.measure.tally import Tally
from sockservice.wire.framing import Framing

SECOND = 1_000_000_000


class Schedule:
    """The state that all connections of a load share.

    `now` returns nanoseconds. `rate` is in lines a second, for all connections; without
    one each of them has `pipeline` lines of `size` bytes in flight all the time.
    `timeout`, in seconds, is that of datagrams. `count` is how many lines there are in all, or
    None. `payload` is the line, in place of one of `size` bytes, and a reply that begins with one
    of `refusals` is a refusal. `framing` is that of streams, where that is not lines.
    """

    def __init__(
        self,
        now: Callable[[], int],
        size: int,
        pipeline: int,
        rate: float | None,
        timeout: float,
        *,
        count: int | None = None,
        payload: bytes | None = None,
        refusals: tuple[bytes, ...] = (b"error ",),
        framing: Callable[[int], Framing] | None = None,
    ) -> None:
        self.now = now
        self.size = size
        self.pipeline = pipeline
        self.rate = rate
        self.timeout = timeout
        self.count = count
        #: Lines that are still to be sent, if they are counted.
        self.left = count
        self.payload = b"x" * size if payload is None else payload
        self.refusals = refusals
        self.framing = framing
        self.tally = Tally()
        #: Number of connections among which the lines are divided.
        self.connections = 0
        #: Time at which the first line was due.
        self.begun = 0
        #: Start and end of what is counted.
        self.since = 0
        self.until: int | None = None
        #: Whether the system has reported that nobody listens for the datagrams.
        self.unheard = False

    def granted(self, most: int) -> int:
        """Return how many lines may be sent, at most `most`; they count as sent."""
        if self.left is not None:
            most = max(0, min(most, self.left))
            self.left -= most
        return most

    def giveBack(self, count: int) -> None:
        """Take back lines that were granted and could not be sent."""
        if self.left is not None:
            self.left += count

    def due(self, place: int, now: int) -> int:
        """Return how many lines of the connection at `place` are due, since the start."""
        assert self.rate is not None
        if self.until is not None and now > self.until:
            now = self.until
        count = self.connections
        return max(0, (self.dueOfAll(now) - place + count - 1) // count)

    def moment(self, place: int, number: int) -> int:
        """Return the time at which line `number`, from 0, of the connection at `place` is due."""
        assert self.rate is not None
        overall = number * self.connections + place
        return self.begun + int(overall * SECOND / self.rate)

    def dueOfAll(self, now: int) -> int:
        """Return how many lines of all connections are due."""
        assert self.rate is not None
        due = int((now - self.begun) * self.rate / SECOND) + 1
        return due if self.count is None else min(due, self.count)

    def spent(self, now: int) -> bool:
        """Return whether lines are counted, and no more of them will be sent or be due."""
        return self.left == 0 if self.rate is None else self.dueOfAll(now) == self.count

    def settle(self) -> None:
        """Note that replies have come, or will not; called by the connections."""
