"""Counts in powers of two."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sockservice.distribution import Distribution


def made(*values: int) -> Distribution:
    found = Distribution()
    for value in values:
        found.add(value)
    return found


@given(some.lists(some.integers(0, 2**39)))
def test_each_value_is_counted_in_the_bounds_above_it(values: list[int]) -> None:
    found = made(*values)
    assert found.count == len(values)
    assert found.sum == sum(values)
    for bound, count in found.buckets(0, 39):
        assert count == sum(value <= bound for value in values)


@pytest.mark.parametrize(
    ("part", "bound"), [(0.0, 1), (0.25, 1), (0.5, 4), (0.75, 64), (0.99, 1024), (1.0, 1024)]
)
def test_a_part_of_all_values_is_below_a_bound(part: float, bound: int) -> None:
    assert made(1, 3, 50, 1000).quantile(part) == bound


def test_of_nothing_there_is_no_bound() -> None:
    assert Distribution().quantile(0.5) is None


def test_a_value_beyond_all_bounds_is_counted() -> None:
    assert made(2**60).count == 1


def test_growth_is_added_and_nothing_else() -> None:
    total, before = made(7), made(1, 2)
    now = Distribution(*json.loads(json.dumps(made(1, 2, 3, 100).state)))
    total.grow(now, before)
    assert total.state == made(7, 3, 100).state


def test_what_was_told_stays_as_it_was() -> None:
    found = made(1)
    told = found.state
    found.add(1)
    assert told == made(1).state


def test_several_at_once_are_so_many() -> None:
    found = Distribution()
    found.add(5, 3)
    assert found.state == made(5, 5, 5).state
