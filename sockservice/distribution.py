"""How often values of each size have come: counts in powers of two."""

from collections.abc import Sequence


class Distribution:
    """Counts of values, each in the smallest power of two that is no less.

    Values are whole numbers of one unit, 0 or more. What is counted only grows; one thread
    counts, others may read.
    """

    __slots__ = ("counts", "sum")

    #: A value has to be smaller than two to the power of this; larger ones are counted there.
    MOST = 40

    def __init__(self, counts: Sequence[int] = (), sum: int = 0) -> None:
        #: How many values there were, by the power of two.
        self.counts = list(counts) or [0] * self.MOST
        #: The sum of all values.
        self.sum = sum

    def add(self, value: int, times: int = 1) -> None:
        """Count a value, so many times."""
        self.counts[min((value - 1).bit_length(), self.MOST - 1) if value else 0] += times
        self.sum += value * times

    def grow(self, now: "Distribution", before: "Distribution") -> None:
        """Add what `now` has more than `before`."""
        pairs = zip(now.counts, before.counts, strict=True)
        self.counts = [
            mine + new - old for mine, (new, old) in zip(self.counts, pairs, strict=True)
        ]
        self.sum += now.sum - before.sum

    def buckets(self, least: int, most: int) -> list[tuple[int, int]]:
        """Give bounds, powers of two, and how many values were at most that.

        `least` and `most` are the first and the last power.
        """
        return [(1 << power, sum(self.counts[: power + 1])) for power in range(least, most + 1)]

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def quantile(self, part: float) -> int | None:
        """Give a bound below which `part` of all values are, None if there are none."""
        left = self.count * part
        for power, count in enumerate(self.counts):
            left -= count
            if count and left <= 0:
                return 1 << power
        return None

    @property
    def state(self) -> list[list[int] | int]:
        """What makes it again, for JSON: `Distribution(*state)`."""
        return [list(self.counts), self.sum]
