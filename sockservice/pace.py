"""How fast lines are taken from one connection: so many a second."""


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
