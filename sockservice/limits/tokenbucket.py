"""Token buckets: so many a second, and as many at once."""

from collections import OrderedDict

#: Sources whose buckets are remembered; beyond, those not heard from longest are forgotten.
SOURCES = 10_000


class Bucket:
    """A token bucket: `rate` tokens a second are added, and as many are held at most.

    Times are seconds of any clock; one that is set back adds and removes nothing.
    """

    __slots__ = ("_at", "left")

    def __init__(self, rate: int, now: float) -> None:
        #: Tokens left; below 0, tokens owed.
        self.left = float(rate)
        self._at = now

    def fill(self, rate: int, now: float) -> float:
        """Add the tokens of the time since the last call; return the tokens left."""
        left = self.left
        if now > self._at:
            left += (now - self._at) * rate
        self._at = now
        self.left = left = left if left < rate else float(rate)
        return left


class Rate:
    """So many a second from each source, and as many at once; 0 is no limit."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()  # latest last

    def take(self, source: str, now: float) -> bool:
        """Take one for `source`; return whether there was one left."""
        if not self.most:
            return True
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = Bucket(self.most, now)
            if len(self._buckets) > SOURCES:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(source)
        if bucket.fill(self.most, now) < 1:
            return False
        bucket.left -= 1
        return True


class Pace(Bucket):
    """A bucket for lines that is told how many there have been so far, not of each one."""

    __slots__ = ("_lines", "wait")

    def __init__(self, rate: int, now: float, lines: int) -> None:
        super().__init__(rate, now)
        self._lines = lines
        #: Seconds until there is something to take.
        self.wait = 0.0

    def allowed(self, rate: int, now: float, lines: int) -> int:
        """Return how many more lines may be taken `now`, when there have been `lines`."""
        self.left -= lines - self._lines
        self._lines = lines
        # Lines taken while there was another rate, or none, count for no more than a second.
        self.left = left = max(-float(rate), self.fill(rate, now))
        # A little more than one, so that few lines at a time don't cost a call each.
        self.wait = max(0.01, (1 - left) / rate)
        return int(left)
