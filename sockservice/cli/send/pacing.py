"""Send lines at a constant rate: when the next are due, and how many."""

#: Seconds that lines behind schedule may catch up on.
SLACK = 0.05


class Pacing:
    """A schedule of `rate` lines a second from `now` on; None is as fast as may be."""

    def __init__(self, rate: float | None, now: float) -> None:
        self._rate = rate
        self._due = now

    def wait(self, now: float) -> float:
        """Return the seconds until the next line is due."""
        if self._rate is None:
            return 0.0
        self._due = max(self._due, now - SLACK)
        return max(0.0, self._due - now)

    def take(self, most: int, now: float) -> int:
        """Return how many lines to send at once, 1 to `most`, and count them as sent."""
        if self._rate is None:
            return most
        count = max(1, min(most, int((now - self._due) * self._rate) + 1))
        self._due += count / self._rate
        return count
