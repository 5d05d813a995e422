"""The time by which lines grow old: no leap of the clock ages them at once."""

import time
from collections.abc import Callable

from twisted.logger import Logger

from sockservice.wire.plurals import inSeconds

#: Times as fast as real time passes, the time catches up with a clock that has leapt ahead.
CATCHING_UP = 2.0
#: Seconds by which a clock may be set without being said to have leapt.
LEAP = 60.0

log = Logger()


def elapsed() -> float:
    """Return seconds that pass whatever the clock is set to, those of a suspended machine too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Plausible:
    """Follows `clock`, seconds since 1970, but goes at most twice as fast as time itself.

    `begin` says when the store was last known to be written to. From then on the time is that
    of the clock if it was ahead by less than a minute; if not, it begins there. When the clock
    is set back the time follows at once. `elapsed` gives seconds from anywhere.
    """

    def __init__(self, clock: Callable[[], float], elapsed: Callable[[], float] = elapsed) -> None:
        self._clock = clock
        self._elapsed = elapsed
        self._at = elapsed()
        self._time = clock()
        self._leapt = False

    def begin(self, last: float) -> None:
        """Begin with the time at which the last line was received."""
        if self._clock() - last > LEAP:
            self._time = last
        self.now()

    def now(self) -> float:
        """Return the time."""
        clock, elapsed = self._clock(), self._elapsed()
        passed, self._at = elapsed - self._at, elapsed
        ahead = clock - (self._time + passed)
        if ahead <= LEAP:
            # It runs a little faster, or was set back.
            self._time = clock
        else:
            self._time += min(passed * CATCHING_UP, clock - self._time)
        leapt = clock - self._time > LEAP
        if leapt and not self._leapt:
            log.warn(
                "the clock is {ahead} ahead of the time by the last lines: until "
                "that much time has passed, lines are removed by age as if it passed twice as fast",
                ahead=inSeconds(round(ahead)),
            )
        self._leapt = leapt
        return self._time
