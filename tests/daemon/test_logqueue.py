"""The log's queue: order, what is dropped, and what is written at the end, without a process."""

import atexit
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import ILogObserver, LogEvent, Logger, LogPublisher, formatEvent
from zope.interface import implementer, provider

from sockservice.daemon import logqueue
from sockservice.daemon.logqueue import LogQueue
from tests.conftest import PATIENCE


@implementer(ILogObserver)
class Reader:
    """An observer that takes an event only when it may."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.thread: Any = None
        self.let = threading.Event()
        self.entered = threading.Event()

    def __call__(self, event: LogEvent) -> None:
        self.entered.set()
        assert self.let.wait(PATIENCE)
        self.thread = threading.current_thread()
        self.texts.append(formatEvent(event))


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> LogPublisher:
    """What the events of a test go to, in place of the process's own."""
    made = LogPublisher()
    monkeypatch.setattr(logqueue, "log", Logger(observer=made))
    return made


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.let.set()


@pytest.fixture
def queue(
    publisher: LogPublisher, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LogQueue]:
    made = LogQueue()
    monkeypatch.setattr(made, "_begin", lambda observers: publisher.addObserver(*observers))
    monkeypatch.setattr(atexit, "register", lambda end: None)
    made.beginLoggingTo([reader])
    yield made
    reader.let.set()
    assert made.flush(PATIENCE)


def test_before_it_is_started_it_writes_at_once(
    queue: LogQueue, publisher: LogPublisher, reader: Reader
) -> None:
    reader.let.set()
    Logger(observer=publisher).info("said")
    assert reader.texts == ["said"]
    assert reader.thread is threading.current_thread()


def test_nothing_is_lost_and_order_is_kept(
    queue: LogQueue, publisher: LogPublisher, reader: Reader
) -> None:
    queue.start()
    log = Logger(observer=publisher)
    log.info("first")
    assert reader.entered.wait(PATIENCE)
    for number in range(1000):
        log.info("{number}", number=number)
    assert reader.texts == []
    reader.let.set()
    assert queue.flush(PATIENCE)
    assert reader.texts == ["first", *map(str, range(1000))]
    assert reader.thread is not threading.current_thread()


def test_what_is_dropped_is_counted_and_told_in_its_place(
    queue: LogQueue, publisher: LogPublisher, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.most = 20 * logqueue.EACH
    dropped: list[int] = []
    queue.dropped = lambda: dropped.append(1)
    queue.start()
    log = Logger(observer=publisher)
    for number in range(100):
        log.info("{number}", number=number)
    assert 80 < len(dropped) < 100
    kept = 100 - len(dropped)
    reader.let.set()
    assert queue.flush(PATIENCE)
    log.info("flows")
    assert queue.flush(PATIENCE)
    told = f"the log was not read: {len(dropped)} lines are missing here"
    assert reader.texts == [*map(str, range(kept)), told, "flows"]


def test_it_is_told_though_nothing_more_is_logged(
    queue: LogQueue, publisher: LogPublisher, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.most = 4 * logqueue.EACH
    queue.start()
    for _ in range(10):
        Logger(observer=publisher).info("x")
    reader.let.set()
    done = threading.Event()
    queue.do(done.set)
    assert done.wait(PATIENCE)
    done.clear()
    queue.do(done.set)
    assert done.wait(PATIENCE)
    assert "are missing here" in reader.texts[-1]


def test_who_logs_waits_for_one_that_is_only_slow(
    queue: LogQueue, publisher: LogPublisher, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a flood would lose lines of a log that is read."""
    queue.most = 20 * logqueue.EACH
    monkeypatch.setattr(logqueue, "STUCK", PATIENCE)
    queue.dropped = lambda: pytest.fail("dropped")
    reader.let.set()
    queue.start()
    for number in range(500):
        Logger(observer=publisher).info("{number}", number=number)
    assert queue.flush(PATIENCE)
    assert reader.texts == [*map(str, range(500))]


def test_large_events_count_for_more(
    queue: LogQueue, publisher: LogPublisher, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.most = 20 * logqueue.EACH
    dropped: list[int] = []
    queue.dropped = lambda: dropped.append(1)
    queue.start()
    for _ in range(10):
        Logger(observer=publisher).info("{line}", line=b"x" * 8 * logqueue.EACH)
    assert len(dropped) == 8


def test_a_line_that_cannot_be_written_is_counted(queue: LogQueue, publisher: LogPublisher) -> None:
    @provider(ILogObserver)
    def full(event: LogEvent) -> None:
        raise OSError(28, "No space left on device")

    dropped: list[int] = []
    other = LogQueue()
    other._begin = lambda observers: publisher.addObserver(*observers)
    other.dropped = lambda: dropped.append(1)
    other.beginLoggingTo([full])
    publisher.removeObserver(queue)
    Logger(observer=publisher).info("lost")
    assert dropped == [1]


def test_a_reader_that_is_stuck_ends_the_process_with_its_status(
    queue: LogQueue, publisher: LogPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    queue.start()
    Logger(observer=publisher).info("stuck")
    queue.status = 3
    with monkeypatch.context() as changed:
        changed.setattr(os, "_exit", ended.append)
        changed.setattr(LogQueue.flush, "__defaults__", (0.01,))
        queue.end()
    assert ended == [3]
