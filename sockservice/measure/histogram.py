"""A histogram of any range, each value known to one part in 128.

Values are whole numbers, as nanoseconds. Below 256 each has a bucket of its own; from
there on each doubling of the value is cut into 128 buckets alike (as HdrHistogram does).
"""

import math
from collections.abc import Iterator

_BITS = 7
_HALF = 1 << _BITS
#: Greater values count as this one: 18 minutes in nanoseconds.
GREATEST = (1 << 40) - 1


def _bucket(value: int) -> int:
    shift = max(0, value.bit_length() - _BITS - 1)
    return (shift << _BITS) + (value >> shift)


def _last(bucket: int) -> int:
    """Give the greatest value of a bucket."""
    shift = max(0, (bucket >> _BITS) - 1)
    return ((bucket - (shift << _BITS) + 1) << shift) - 1


class Histogram:
    """Counts of values."""

    def __init__(self) -> None:
        self._counts = [0] * (_bucket(GREATEST) + 1)
        self._greatest = 0

    def record(self, value: int, count: int = 1) -> None:
        """Count `value` so many times; a negative one as 0."""
        value = min(max(value, 0), GREATEST)
        self._counts[_bucket(value)] += count
        if value > self._greatest:
            self._greatest = value

    def add(self, other: "Histogram") -> None:
        """Count what `other` has counted, too."""
        self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        self._greatest = max(self._greatest, other._greatest)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(self._counts)

    def quantile(self, part: float) -> int:
        """Give the value that `part` of the values, 0 to 1, do not exceed; 1 gives the greatest.

        :raises ValueError: There are no values.
        """
        wanted = max(1, math.ceil(self.total * part))
        for bucket, count in enumerate(self._counts):
            wanted -= count
            if wanted <= 0:
                return min(_last(bucket), self._greatest)
        raise ValueError("an empty histogram has no quantiles")

    def bars(self, most: int) -> Iterator[tuple[int, int]]:
        """Give at most `most` ranges that hold all values: the greatest of each, and its count.

        They hold as many buckets each, so they are wider where values are greater.
        """
        held = [bucket for bucket, count in enumerate(self._counts) if count]
        if not held:
            return
        width = math.ceil((held[-1] - held[0] + 1) / most)
        for begin in range(held[0], held[-1] + 1, width):
            end = min(begin + width, len(self._counts))
            yield min(_last(end - 1), self._greatest), sum(self._counts[begin:end])
