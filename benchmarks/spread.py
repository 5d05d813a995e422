"""What several rounds say of one figure: its median, its spread, and what is beyond the noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median, quantiles

# How sure a difference has to be before it is told. With twenty works and two figures each, one
# run in three would tell of something that is not there; with WORTH besides, next to none does.
CERTAINTY = 0.99
# A smaller difference is not told however sure it is: it comes with the order of two functions.
WORTH = 0.02


@dataclass(frozen=True)
class Spread:
    """The median over the rounds, and the range of their middle half."""

    middle: float
    lower: float
    upper: float


def spread(values: Sequence[float]) -> Spread | None:
    """Return the spread of `values`, or None where there are none."""
    if not values:
        return None
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    lower, middle, upper = quantiles(values, n=4, method="inclusive")
    return Spread(middle, lower, upper)


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the range that holds the true median with CERTAINTY, or None for too few values.

    It goes from one of the values to another, and assumes nothing of how they are distributed
    (the sign test turned round: David and Nagaraja, Order Statistics, 7.1).
    """
    ordered, count = sorted(values), len(values)
    outside, left = 0.0, 0
    while left < count // 2:
        outside += 2 * comb(count, left) / 2**count
        if outside > 1 - CERTAINTY:
            break
        left += 1
    return (ordered[left - 1], ordered[-left]) if left else None


@dataclass(frozen=True)
class Gain:
    """How many times as good a figure is as it was, round by round; `low` to `high` holds it."""

    middle: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`better` or `worse` if that is beyond the noise and worth telling, else nothing."""
        if self.low > 1 and self.middle >= 1 + WORTH:
            return "better"
        if self.high < 1 and self.middle <= 1 - WORTH:
            return "worse"
        return ""


def gain(now: Sequence[float], then: Sequence[float], *, less: bool = False) -> Gain | None:
    """Compare two figures of which more is better unless `less`; None for too few rounds."""
    if less:
        now, then = then, now
    ratios = [a / b for a, b in zip(now, then, strict=False)]
    held = interval(ratios)
    return None if held is None else Gain(median(ratios), *held)


#: Rounds without which there is no interval.
LEAST_ROUNDS = next(n for n in range(1, 100) if interval(range(n)))
