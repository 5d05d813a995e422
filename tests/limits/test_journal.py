"""A log that a flood can't fill: what is written, and what is summed up."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from sockservice.limits.lograte import KINDS, LOG_LIMIT, PERIOD, Journal
from tests.conftest import Log


def test_so_many_of_a_kind_are_written_and_the_rest_are_counted(log: Log) -> None:
    clock = Clock()
    journal = Journal(clock, 2)
    assert [journal.admits("connected") for _ in range(5)] == [True, True, False, False, False]
    assert journal.admits("gone")
    assert log.texts == []
    clock.advance(PERIOD)
    assert log.texts == ["3 more in 10 seconds: connected"]
    assert [journal.admits("connected") for _ in range(3)] == [True, True, False]
    clock.advance(PERIOD)
    assert log.texts[1:] == ["1 more in 10 seconds: connected"]


def test_a_period_without_more_is_not_summed_up_and_leaves_no_timer(log: Log) -> None:
    clock = Clock()
    journal = Journal(clock, 2)
    for _ in range(5):
        assert journal.admits("connected") and journal.admits("connected")
        assert clock.getDelayedCalls() == []
        clock.advance(PERIOD)
    assert log.texts == []


def test_the_period_begins_anew_when_it_is_over_though_nobody_looked() -> None:
    clock = Clock()
    journal = Journal(clock, 1)
    assert journal.admits("connected")
    clock.advance(PERIOD - 0.5)
    assert not journal.admits("connected")
    clock.advance(0.5)
    assert journal.admits("connected")
    clock.advance(PERIOD * 3)
    assert journal.admits("connected")


def test_a_kind_may_have_a_limit_of_its_own() -> None:
    journal = Journal(Clock(), 3)
    assert [journal.admits("busy", 1) for _ in range(3)] == [True, False, False]
    assert [journal.admits("gone") for _ in range(4)] == [True, True, True, False]


def test_without_a_limit_everything_is_written(log: Log) -> None:
    clock = Clock()
    journal = Journal(clock, 0)
    assert all(journal.admits("connected") for _ in range(LOG_LIMIT * 2))
    assert all(journal.admits("busy", 1) for _ in range(3))
    assert clock.getDelayedCalls() == []


def test_kinds_that_peers_make_are_bounded_and_crowd_out_no_other(log: Log) -> None:
    clock = Clock()
    journal = Journal(clock, 2)
    written = sum(journal.admits(f"not allowed: {number}", 1) for number in range(KINDS * 3))
    assert written == KINDS
    assert journal.admits("an answer failed")
    clock.advance(PERIOD)
    assert log.texts == [f"{KINDS * 2} more in 10 seconds: of other kinds"]
    assert journal.admits("not allowed: new", 1)


def test_at_the_end_it_is_summed_up_at_once(log: Log) -> None:
    clock = Clock()
    journal = Journal(clock, 1)
    for _ in range(3):
        journal.admits("connected")
    journal.close()
    assert log.texts == ["2 more in 10 seconds: connected"]
    assert clock.getDelayedCalls() == []
    journal.close()
    assert len(log.texts) == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 4)), max_size=100))
def test_every_line_is_written_or_counted_once(asked: list[tuple[str, float]]) -> None:
    clock = Clock()
    journal = Journal(clock, 2)
    written: Counter[str] = Counter()
    log = Log()
    from twisted.logger import globalLogPublisher

    globalLogPublisher.addObserver(log)
    try:
        for kind, pause in asked:
            written[kind] += journal.admits(kind)
            clock.advance(pause)
        journal.close()
    finally:
        globalLogPublisher.removeObserver(log)
    summed = Counter[str]()
    for event in log.events:
        summed[event["kind"]] += event["more"]
    assert written + summed == Counter(kind for kind, _ in asked)
    assert clock.getDelayedCalls() == []
