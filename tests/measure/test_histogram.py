"""The histogram, against a sorted list."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockservice.measure.histogram import GREATEST, Histogram

VALUES = st.integers(0, GREATEST) | st.integers(0, 1000)


@given(st.lists(VALUES, min_size=1), st.floats(0, 1))
def test_a_quantile_is_that_of_the_values_to_one_part_in_128(
    values: list[int], part: float
) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    exact = sorted(values)[max(0, math.ceil(len(values) * part) - 1)]
    assert exact <= histogram.quantile(part) <= exact + exact // 128
    assert histogram.quantile(1) == max(values)
    assert histogram.total == len(values)


@given(VALUES)
def test_small_values_are_exact(value: int) -> None:
    histogram = Histogram()
    histogram.record(value, 3)
    histogram.record(GREATEST)
    found = histogram.quantile(0.5)
    assert value <= found <= value + value // 128
    assert found == value or value >= 256


@given(st.lists(VALUES, min_size=1), st.integers(1, 20))
def test_bars_count_each_value_once_and_in_its_range(values: list[int], most: int) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    bars = list(histogram.bars(most))
    assert len(bars) <= most
    assert [greatest for greatest, _ in bars] == sorted({greatest for greatest, _ in bars})
    below = 0
    for greatest, count in bars:
        below += count
        assert below == sum(value <= greatest for value in values)
    assert below == len(values)


@given(st.lists(VALUES), st.lists(VALUES))
def test_histograms_add_up(some: list[int], others: list[int]) -> None:
    one, other, both = Histogram(), Histogram(), Histogram()
    for histogram, values in ((one, some), (other, others), (both, some + others)):
        for value in values:
            histogram.record(value)
    one.add(other)
    assert list(one.bars(10_000)) == list(both.bars(10_000))


def test_what_is_out_of_range_counts_at_its_end() -> None:
    histogram = Histogram()
    histogram.record(-1)
    histogram.record(GREATEST * 2)
    assert (histogram.quantile(0.5), histogram.quantile(1)) == (0, GREATEST)


def test_an_empty_one_has_no_quantiles() -> None:
    assert list(Histogram().bars(10)) == []
    with pytest.raises(ValueError, match="empty"):
        Histogram().quantile(0.5)
