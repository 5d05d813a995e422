"""When lines are due, and what their connections share while they are sent.

Times are nanoseconds of any clock that never goes back.
"""

from collections.abc import Callable

from sockservice.measure.tally import Tally

SECOND = 1_000_000_000


class Schedule:
    """What all connections of a load have in common.

    `now` gives nanoseconds. `rate` is in lines a second, for all connections; without
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
        #: Connections among which lines are divided.
        self.connections = 0
        #: When the first line was due.
        self.begun = 0
        #: When what is counted began, and when it ended.
        self.since = 0
        self.until: int | None = None
        #: Whether the system said that nobody takes the datagrams.
        self.unheard = False

    def due(self, place: int, now: int) -> int:
        """Say how many lines of the connection at `place` are due, from the beginning on."""
        assert self.rate is not None
        if self.until is not None and now > self.until:
            now = self.until
        count = self.connections
        return max(0, (self.dueOfAll(now) - place + count - 1) // count)

    def moment(self, place: int, number: int) -> int:
        """Say when line `number`, from 0, of the connection at `place` is due."""
        assert self.rate is not None
        overall = number * self.connections + place
        return self.begun + int(overall * SECOND / self.rate)

    def dueOfAll(self, now: int) -> int:
        """Say how many lines of all connections are due."""
        assert self.rate is not None
        return int((now - self.begun) * self.rate / SECOND) + 1

    def settle(self) -> None:
        """Called by a connection when replies have come or none will."""
