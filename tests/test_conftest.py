"""What tells of a failure fails the test, however it comes to be told."""

import gc
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tests import conftest
from tests.conftest import FAILURE, Child, Children, Log, patient, sound

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


ASYNC = """
import os
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer
from tests.conftest import REACTOR, clean, collected, log, pytest_collection_modifyitems

async def test_a_timer_is_left():
    REACTOR.callLater(60, print)

@implementer(IReadDescriptor)
class Pipe:
    def __init__(self):
        self.reading, self.writing = os.pipe()
    def fileno(self):
        return self.reading
    def doRead(self):
        pass
    def logPrefix(self):
        return "pipe"
    def connectionLost(self, reason):
        pass

def test_a_reader_is_left():
    REACTOR.addReader(Pipe())

async def test_nothing_is_left():
    await Deferred.fromCoroutine(nothing())

async def nothing():
    pass
"""


def test_what_is_left_in_the_reactor_fails_its_test_and_no_other(
    children: Children, tmp_path: Path
) -> None:
    (tmp_path / "test_left.py").write_text(ASYNC)
    root = Path(__file__).parents[1]
    command = ("-m", "pytest", "-rA", "--rootdir", str(tmp_path), "test_left.py")
    where = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"}
    done = children.run(sys.executable, *command, env=where)
    said = done.stdout.decode()
    assert "3 passed, 2 errors" in said
    assert "ERROR test_left.py::test_a_timer_is_left - AssertionError: left in the reactor" in said
    assert "ERROR test_left.py::test_a_reader_is_left - AssertionError: left in the reactor" in said


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
