"""The clock is set, both ways, and lines are removed by age no sooner than is right."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sockservice.store.engine import Batch, Retention
from sockservice.store.plausible import LEAP, Plausible
from sockservice.store.retention import Expiry
from sockservice.store.sqlite import SQLite
from tests.conftest import Log

HOUR = 3600.0
START = 1_700_000_000.0


class Machine:
    """Its clock, which can be set, and the time that passes."""

    def __init__(self) -> None:
        self.clock = START
        self.passed = 0.0

    def passes(self, seconds: float) -> None:
        self.clock += seconds
        self.passed += seconds

    def plausible(self) -> Plausible:
        return Plausible(lambda: self.clock, lambda: self.passed)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_time_is_the_clocks_as_long_as_that_goes(machine: Machine, log: Log) -> None:
    time = machine.plausible()
    time.begin(START - 1)
    for _ in range(100):
        machine.passes(10)
        machine.clock += 0.1  # a little fast
        assert time.now() == machine.clock
    assert log.texts == []


def test_a_clock_that_leaps_ahead_is_caught_up_with_in_as_much_time(
    machine: Machine, log: Log
) -> None:
    time = machine.plausible()
    machine.clock += 2 * HOUR
    assert time.now() == START
    for passed in range(60, 7200 - int(LEAP) - 60, 60):
        machine.passes(60)
        assert time.now() == START + 2 * passed
    machine.passes(180)
    assert time.now() == machine.clock
    assert [text[:26] for text in log.texts] == ["the clock is 7200 seconds "]


def test_a_clock_that_is_put_right_again_is_followed_at_once(machine: Machine) -> None:
    time = machine.plausible()
    machine.clock += 2 * HOUR
    time.now()
    machine.passes(60)
    machine.clock -= 2 * HOUR
    assert time.now() == START + 60
    machine.clock -= HOUR
    assert time.now() == START + 60 - HOUR
    machine.passes(5)
    assert time.now() == START + 65 - HOUR


def test_a_start_with_a_clock_ahead_begins_with_the_last_line(machine: Machine) -> None:
    time = machine.plausible()
    time.begin(START - 2 * HOUR)
    assert time.now() == START - 2 * HOUR
    machine.passes(HOUR)
    assert time.now() == START
    machine.passes(HOUR)
    assert time.now() == machine.clock


def test_a_start_with_a_clock_behind_follows_it(machine: Machine) -> None:
    time = machine.plausible()
    time.begin(START + HOUR)
    assert time.now() == START


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines.db"


def filled(path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> SQLite:
    """Give a store with a line of each minute of the last hour, of which none is too old."""
    monkeypatch.setattr("sockservice.store.retention.Plausible", lambda _: machine.plausible())
    store = SQLite(str(path), Retention(age=HOUR), lambda: machine.clock)
    store.open()
    for minute in range(60):
        machine.passes(60)
        store.commit([Batch(int(machine.clock * 1_000_000), "", "", [b"%d" % minute])])
        tidied(store)
    return store


def tidied(store: SQLite) -> None:
    while store.tidy():
        pass


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM lines").fetchone()[0])


def test_a_clock_two_hours_ahead_removes_nothing_that_is_not_half_as_old_as_it_may_be(
    path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(path, machine, monkeypatch)
    assert count(path) == 60
    machine.clock += 2 * HOUR
    for _ in range(10):
        tidied(store)
    assert count(path) == 60
    machine.passes(600)
    tidied(store)
    # Twenty minutes' worth in ten minutes.
    assert count(path) == 41
    # It is put right: nothing goes until it is too old.
    machine.clock -= 2 * HOUR
    machine.passes(600)
    tidied(store)
    assert count(path) == 41
    machine.passes(60)
    tidied(store)
    assert count(path) == 40
    store.close()


def test_a_start_with_a_clock_ahead_removes_nothing(
    path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path, machine, monkeypatch).close()
    machine.clock += 48 * HOUR
    store = SQLite(str(path), Retention(age=HOUR), lambda: machine.clock)
    store.open()
    tidied(store)
    assert count(path) == 60
    store.close()


def test_size_is_kept_to_whatever_the_clock_says(path: Path) -> None:
    made: Callable[[], float] = lambda: START + 48 * HOUR  # noqa: E731
    expiry = Expiry(Retention(HOUR, 1), made)
    store = SQLite(str(path))
    store.open()
    store.commit([Batch(int(START * 1_000_000), "", "", [b"a"])])
    store.close()
    with closing(sqlite3.connect(path)) as database:
        expiry.begin(database)
        found = expiry.step(database)
    assert found is not None
    assert found.before is None
