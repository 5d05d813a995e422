"""What tells of a failure fails the test, however it comes to be told."""

import gc
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from tests import conftest
from tests.conftest import FAILURE, Child, Children, Log, Reactor, busy, patient, sound, tidy

logger = Logger()


def test_a_critical_event_is_a_problem(log: Log) -> None:
    logger.critical("it is on fire")
    assert log.problems == ["it is on fire"]
    log.events.clear()


def test_a_failure_is_a_problem_until_it_is_noted(log: Log) -> None:
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logger.failure("it failed")
    [problem] = log.problems
    assert "ZeroDivisionError" in problem
    assert len(log.failures(ZeroDivisionError)) == 1
    assert log.problems == []


def test_an_error_left_in_a_deferred_is_a_problem(log: Log) -> None:
    left = Deferred[None]()
    left.errback(ZeroDivisionError())
    del left
    gc.collect()
    assert any("Unhandled error in Deferred" in problem for problem in log.problems)
    assert log.failures(ZeroDivisionError)
    log.events.clear()


async def test_what_is_awaited_for_ever_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "PATIENCE", 0.01)

    async def waiting() -> None:
        await Deferred[None]()

    with pytest.raises(AssertionError, match=r"it did not come in 0\.01 seconds"):
        await patient(waiting)()


def test_a_timer_that_is_left_is_told_and_gone(real: Reactor) -> None:
    before = busy()
    tidy(before)
    timer = real.callLater(60, print)
    with pytest.raises(AssertionError, match=r"left in the reactor: \{<DelayedCall"):
        tidy(before)
    assert not timer.active()


def test_a_port_that_is_left_is_told_and_gone(real: Reactor) -> None:
    before = busy()
    port = real.listenTCP(0, Factory(), interface="127.0.0.1")
    with pytest.raises(AssertionError, match=r"left in the reactor: \{<<class"):
        tidy(before)
    assert port not in real.getReaders()
    port.connectionLost(Failure(ConnectionDone()))


@pytest.mark.parametrize(
    "said",
    [
        b"2026-01-01T00:00:00+0000 [-] Unhandled Error",
        b"Traceback (most recent call last):",
        b"[twisted.internet.defer#critical] Unhandled error in Deferred:",
    ],
)
def test_a_process_that_tells_of_a_failure_fails_the_test(said: bytes) -> None:
    sound(b"all is well\n")
    with pytest.raises(AssertionError):
        sound(b"all is well\n" + said)


def test_what_a_process_has_written_is_looked_at_whoever_reads_it(tmp_path: Path) -> None:
    assert FAILURE.search(b"Traceback (most recent call last):")
    told = "print('Traceback (most recent call last):', flush=True)"
    with pytest.raises(AssertionError), ExitStack() as stack:
        Children(tmp_path, stack).run(sys.executable, "-c", told)
    with pytest.raises(AssertionError), ExitStack() as stack:
        Child(Children(tmp_path, stack).start(sys.executable, "-c", told)).end()
    with pytest.raises(AssertionError), ExitStack() as stack:
        Child(Children(tmp_path, stack).start(sys.executable, "-c", told)).until(b"last")
    with pytest.raises(AssertionError), ExitStack() as stack:
        Children(tmp_path, stack).start(sys.executable, "-c", told).wait()
