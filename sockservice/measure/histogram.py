"""A histogram of a wide range of values, each accurate to one part in 128.

Values are integers, such as nanoseconds. Below 256 each has a bucket of its own; from
there on each power of two is divided into 128 equal buckets (as in HdrHistogram).
"""

import math
from collections.abc import Iterator

_BITS = 7
_HALF = 1 << _BITS
#: Greater values are counted as this one: 18 minutes in nanoseconds.
GREATEST = (1 << 40) - 1


def _bucket(value: int) -> int:
    shift = max(0, value.bit_length() - _BITS - 1)
    return (shift << _BITS) + (value >> shift)


def _last(bucket: int) -> int:
    """Return the greatest value of a bucket."""
    shift = max(0, (bucket >> _BITS) - 1)
    return ((bucket - (shift << _BITS) + 1) << shift) - 1


class Histogram:
    """Counts of values."""

    def __init__(self) -> None:
        self._counts = [0] * (_bucket(GREATEST) + 1)
        self._greatest = 0
        self._least = GREATEST
        self._sum = self._squares = 0

    def record(self, value: int, count: int = 1) -> None:
        """Count `value`, `count` times; a negative one counts as 0."""
        value = min(max(value, 0), GREATEST)
        self._counts[_bucket(value)] += count
        if value > self._greatest:
            self._greatest = value
        if value < self._least:
            self._least = value
        self._sum += value * count
        self._squares += value * value * count

    def add(self, other: "Histogram") -> None:
        """Add the counts of `other`."""
        self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        self._greatest = max(self._greatest, other._greatest)
        self._least = min(self._least, other._least)
        self._sum += other._sum
        self._squares += other._squares

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(self._counts)

    @property
    def least(self) -> int:
        """The least value, exact."""
        return min(self._least, self._greatest)

    @property
    def mean(self) -> float:
        """The mean, exact; of at least one value."""
        return self._sum / self.total

    @property
    def deviation(self) -> float:
        """The standard deviation, exact; of at least one value."""
        total = self.total
        # Of integers, so nothing is cancelled out.
        return math.sqrt(total * self._squares - self._sum**2) / total

    def quantile(self, part: float) -> int:
        """Return the quantile `part`, 0 to 1: a value that this part of the values do not exceed.

        :raises ValueError: There are no values.
        """
        wanted = max(1, math.ceil(self.total * part))
        for bucket, count in enumerate(self._counts):
            wanted -= count
            if wanted <= 0:
                return min(_last(bucket), self._greatest)
        raise ValueError("an empty histogram has no quantiles")

    def bars(self, most: int) -> Iterator[tuple[int, int]]:
        """Yield at most `most` ranges that cover all values: the upper bound and count of each.

        Each has as many buckets, so the ranges of greater values are wider.
        """
        held = [bucket for bucket, count in enumerate(self._counts) if count]
        if not held:
            return
        width = math.ceil((held[-1] - held[0] + 1) / most)
        for begin in range(held[0], held[-1] + 1, width):
            end = min(begin + width, len(self._counts))
            yield min(_last(end - 1), self._greatest), sum(self._counts[begin:end])
