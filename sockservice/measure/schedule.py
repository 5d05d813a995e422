"""The schedule of a load, and the state that its connections share.

Times are nanoseconds of any monotonic clock.
"""

from collections.abc import Callable

from sockservice.measure.tally import Tally

SECOND = 1_000_000_000


class Schedule:
    """The state that all connections of a load share.

    `now` returns nanoseconds. `rate` is in lines a second, for all connections; without
    one each of them has `pipeline` lines of `size` bytes in flight all the time.
    `timeout`, in seconds, is that of datagrams.
    """

    def __init__(
        self,
        now: Callable[[], int],
        size: int,
        pipeline: int,
        rate: float | None,
        timeout: float,
    ) -> None:
        self.now = now
        self.size = size
        self.pipeline = pipeline
        self.rate = rate
        self.timeout = timeout
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
        return int((now - self.begun) * self.rate / SECOND) + 1

    def settle(self) -> None:
        """Note that replies have come, or will not; called by the connections."""
