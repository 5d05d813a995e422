"""Send at most so many lines a second: when the next may be sent, and how many at once."""

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

#: Seconds of the rate that may be sent at once, after a pause or at the start.
BURST = 0.1


class Pacing:
    """A token bucket that holds the lines of BURST seconds, or one; a rate of None is no limit.

    In any stretch of time no more lines are taken than `rate`, in lines a second, allows, and
    one bucketful: what could have been sent during a pause is not caught up on. Times are
    seconds of a monotonic clock.
    """

    def __init__(self, rate: float | None, now: float) -> None:
        self._rate = rate
        self._most = self._left = max(1.0, (rate or 0.0) * BURST)
        self._at = now

    def wait(self, now: float) -> float:
        """Return the seconds until a line may be sent."""
        if self._rate is None:
            return 0.0
        self._fill(self._rate, now)
        return max(0.0, (1.0 - self._left) / self._rate)

    def allowed(self, most: int, now: float) -> int:
        """Return how many lines may be sent at once, 0 to `most`."""
        if self._rate is None:
            return most
        self._fill(self._rate, now)
        # The sum of many small parts may be a little less than a whole.
        return min(most, int(self._left + 1e-6))

    def take(self, count: int) -> None:
        """Count so many lines as sent."""
        if self._rate is not None:
            self._left -= count

    def turn(self, clock: IReactorTime) -> Deferred[None]:
        """Return a Deferred that fires when a line may be sent; it may be cancelled."""
        pause = self.wait(clock.seconds())
        return deferLater(clock, pause) if pause else succeed(None)

    def _fill(self, rate: float, now: float) -> None:
        self._left = min(self._most, self._left + max(0.0, now - self._at) * rate)
        self._at = now
