"""When to try again, and when to give up: a delay that grows, within bounds."""

from collections.abc import Callable
from random import uniform

from twisted.application.internet import backoffPolicy
from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds before a bound below which no further attempt is worth making.
LAST = 0.1

_growing = backoffPolicy(initialDelay=0.1, maxDelay=40.0, factor=2.0, jitter=lambda: 0.0)


def backoff(attempts: int) -> float:
    """Return the seconds to wait after so many attempts: random, longer each time, at most 60."""
    return _growing(attempts - 1) * uniform(0.5, 1.5)


class Attempts:
    """Counts the attempts in a row that came to nothing.

    `backoff` returns the seconds to wait after so many rounds; a round is an attempt at each
    target, one right after the other. At most `times` rounds follow the first, in `seconds`
    seconds from its failure; None is no bound. `over` is called when these seconds are over.
    """

    def __init__(
        self,
        clock: IReactorTime,
        backoff: Callable[[int], float],
        times: int | None,
        seconds: float | None,
        over: Callable[[], object],
    ) -> None:
        self._clock = clock
        self._backoff = backoff
        self._times = times
        self._seconds = seconds
        self._over = over
        self._count = 0
        self._end: IDelayedCall | None = None

    def succeeded(self) -> None:
        """Note that an attempt came to something, or that there will be no other."""
        self._count = 0
        end, self._end = self._end, None
        if end is not None and end.active():
            end.cancel()

    def failed(self, targets: int) -> float | None:
        """Note a failure; return the seconds until the next attempt, None to give up.

        There are so many `targets` to be tried in turn.
        """
        self._count += 1
        if self._seconds is not None and self._end is None:
            self._end = self._clock.callLater(self._seconds, self._over)
        rounds, within = divmod(self._count, targets)
        if self._times is not None and rounds > self._times:
            return None
        delay = 0.0 if within else self._backoff(rounds)
        if self._end is None:
            return delay
        left = self._end.getTime() - self._clock.seconds()
        # The last attempts are made before the time is over, not just when it is.
        return left / 2 if LAST < left <= delay else delay
