"""Token buckets: so many a second, and as many at once."""

from collections import OrderedDict

#: Sources whose rates are remembered; of more, those not heard of longest are forgotten.
SOURCES = 10_000


class Rate:
    """So many a second from each source, and as many at once; 0 is no limit."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()  # left, when

    def take(self, source: str, now: float) -> bool:
        """Take one for `source`; False when it has had its share."""
        if not self.most:
            return True
        left, before = self._known.pop(source, (float(self.most), now))
        # A clock may be set back.
        left = min(self.most, left + max(0.0, now - before) * self.most)
        taken = left >= 1
        self._known[source] = (left - taken, now)
        if len(self._known) > SOURCES:
            self._known.popitem(last=False)
        return taken


class Pace:
    """A bucket that fills with `rate` lines a second and holds as many.

    It is told how many lines there have been so far instead of each of them.
    """

    __slots__ = ("_at", "_left", "_lines", "wait")

    def __init__(self, rate: int, now: float, lines: int) -> None:
        self._left = float(rate)
        self._at = now
        self._lines = lines
        #: Seconds until there is something to take.
        self.wait = 0.0

    def allowed(self, rate: int, now: float, lines: int) -> int:
        """Give how many more lines may be taken `now`, when there have been `lines`."""
        self._left += (now - self._at) * rate - (lines - self._lines)
        # Neither the time before, nor a clock that is set back, nor lines taken while there
        # was another rate or none count for more than a second.
        self._left = max(-float(rate), min(self._left, float(rate)))
        self._at = now
        self._lines = lines
        # A little more than one, so that few lines at a time don't cost a call each.
        self.wait = max(0.01, (1 - self._left) / rate)
        return int(self._left)
