"""What every engine and the group commit over it hold to; the engine's own are in test_sqlite.

`pytest tests/store/test_store.py --engine module.function` tests one more. The function takes an
empty folder; it gives an engine that is not open yet, and a function that gives what the
engine has kept, also while it is open: (peer, listener, line) in order, in a list.
"""

import gc
import pkgutil
import select
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import pytest_twisted
from twisted.application.service import Service
from twisted.internet.defer import Deferred

from sockservice.daemon.allornone import AllOrNone
from sockservice.daemon.engines import backend
from sockservice.errors import CannotStart, StoreError
from sockservice.store import groupcommit as commit
from sockservice.store import turns, writer
from sockservice.store.engine import EVERYTHING, Backend, Batch
from sockservice.store.groupcommit import Store
from sockservice.store.memory import Memory
from sockservice.store.nats.engine import JetStream
from sockservice.store.nats.place import Place
from sockservice.store.nats.reading import StreamReader
from sockservice.store.reader import Query
from sockservice.store.sqlite import SQLite
from tests.conftest import PATIENCE, HandReactor, Log, Reactor, failure, until

Kept = list[tuple[str, str, bytes]]
FULL = StoreError("disk full", retry=True)
BROKEN = StoreError("I/O error", retry=False)
UNKNOWN = StoreError("I/O error", retry=False, certain=False)
UNKNOWN_FOR_NOW = StoreError("no answer", retry=True, certain=False)


class Held:
    """An engine whose commits wait until the test lets them go on, and fail when it says so."""

    def __init__(self, engine: Backend, kept: Callable[[], Kept]) -> None:
        self.engine = engine
        self.kept = kept
        self.problems: deque[Exception | None] = deque()
        #: The lines of each commit, and in which thread it was begun.
        self.commits: list[list[bytes]] = []
        self.threads: set[threading.Thread] = set()
        self.begun: Queue[list[bytes]] = Queue()
        self.free = threading.Event()
        self.free.set()
        self.turns = threading.Semaphore(0)
        self.untidy: list[Exception | bool] = []
        self.tidied = 0
        self.closed = False

    def open(self) -> None:
        self.threads.add(threading.current_thread())
        self.engine.open()

    def commit(self, batches: list[Batch]) -> None:
        self.threads.add(threading.current_thread())
        lines = [line for batch in batches for line in batch.lines]
        self.commits.append(lines)
        self.begun.put(lines)
        if not self.free.is_set():
            assert self.turns.acquire(timeout=PATIENCE)
        problem = self.problems.popleft() if self.problems else None
        if problem is not None:
            raise problem
        self.engine.commit(batches)

    def tidy(self) -> bool:
        self.threads.add(threading.current_thread())
        self.tidied += 1
        found = self.untidy.pop(0) if self.untidy else self.engine.tidy()
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        self.threads.add(threading.current_thread())
        self.engine.close()
        self.closed = True

    def release(self) -> None:
        """Hold no commit up any more."""
        self.free.set()
        self.turns.release()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        given = metafunc.config.getoption("--engine")
        names = ["sqlite", "memory", "nats", *([given] if given else [])]
        metafunc.parametrize("engine", names, indirect=True)


def read(place: Place) -> Kept:
    """Give what a stream holds."""
    query = Query(columns="id, peer, listener, line")
    found: Kept = []
    after = 0
    with closing(StreamReader(place)) as reader:
        while True:
            rows, last = reader.page(query, after)
            found += [row[1:] for row in rows]
            if last == after:
                return found
            after = last


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Held:
    if "." in request.param:
        return Held(*pkgutil.resolve_name(request.param)(tmp_path))
    if request.param == "memory":
        memory = Memory()
        return Held(memory, lambda: memory.kept)
    if request.param == "nats":
        place = request.getfixturevalue("stream")
        return Held(JetStream(place), lambda: read(place))
    path = tmp_path / "lines.db"

    def kept() -> Kept:
        with closing(sqlite3.connect(path)) as database:
            return database.execute("SELECT peer, listener, line FROM lines ORDER BY id").fetchall()

    return Held(backend(f"sqlite:{path}", EVERYTHING), kept)


@pytest_twisted.async_yield_fixture
async def store(real: Reactor, engine: Held) -> AsyncIterator[Store]:
    made = Store(real, engine)
    made.start()
    yield made
    engine.release()
    await made.stop().addTimeout(PATIENCE, real)
    assert engine.closed


@pytest.fixture
def turned(reactor: HandReactor, engine: Held) -> Iterator[Store]:
    """One whose reactor the test turns."""
    made = Store(reactor, engine)
    made.start()
    yield made
    engine.release()
    reactor.result(made.stop())
    assert engine.closed


def batch(*lines: bytes, peer: str = "192.0.2.1:7") -> Batch:
    return Batch(1_700_000_000_000_000, peer, "tcp:192.0.2.9:555", list(lines))


def heard(reactor: HandReactor) -> None:
    """Wait until a thread has something to tell the reactor, without a turn of it."""
    assert reactor.threadCallQueue or select.select([reactor.waker], [], [], PATIENCE)[0]


class Outcomes:
    """What became of appends, in the order in which it was known."""

    def __init__(self) -> None:
        self.known: list[tuple[str, object]] = []

    def watch(self, name: str, appended: Deferred[None]) -> None:
        appended.addCallbacks(
            lambda result: self.known.append((name, result)),
            lambda failure: self.known.append((name, failure.value)),
        )

    def __call__(self) -> list[tuple[str, object]]:
        known, self.known = self.known, []
        return known


@pytest.fixture
def outcomes() -> Outcomes:
    return Outcomes()


# What is appended


async def test_what_was_appended_is_kept_when_its_deferred_fires(
    store: Store, engine: Held, outcomes: Outcomes
) -> None:
    found: list[Kept] = []
    appended = store.append(batch(b"one", b"\0\xff\r", b""))
    outcomes.watch("all", appended)
    await appended.addCallback(lambda _: found.append(engine.kept()))
    assert outcomes() == [("all", None)]
    place = ("192.0.2.1:7", "tcp:192.0.2.9:555")
    assert found == [[(*place, b"one"), (*place, b"\0\xff\r"), (*place, b"")]]


async def test_no_lines_are_durable_as_they_are(store: Store, outcomes: Outcomes) -> None:
    outcomes.watch("none", store.append(batch()))
    await until(lambda: outcomes.known)
    assert outcomes() == [("none", None)]


def test_deferreds_fire_in_the_order_of_the_calls_and_lines_are_kept_in_it(
    reactor: HandReactor, turned: Store, engine: Held, outcomes: Outcomes
) -> None:
    names = [f"{number}" for number in range(50)]
    for number, name in enumerate(names):
        outcomes.watch(name, turned.append(batch(name.encode(), peer=name)))
        if number % 7 == 0:
            reactor.iterate(0)
    reactor.until(lambda: len(outcomes.known) == 50)
    assert outcomes() == [(name, None) for name in names]
    assert [(peer, line) for peer, _, line in engine.kept()] == [(n, n.encode()) for n in names]


async def test_the_engine_is_called_in_one_thread_that_is_not_the_reactors(
    real: Reactor, engine: Held
) -> None:
    store = Store(real, engine)
    store.start()
    await store.append(batch(b"a"))
    await store.append(batch(b"b"))
    await store.stop()
    assert engine.tidied
    assert len(engine.threads) == 1
    assert threading.current_thread() not in engine.threads


async def test_what_is_stored_is_counted(store: Store, engine: Held) -> None:
    await store.append(batch(b"a", b"b"))
    engine.problems.append(FULL)
    await failure(store.append(batch(b"refused")))
    assert store.stored == 2


async def test_one_who_fails_when_told_keeps_nobody_else_from_being_told(
    store: Store, log: Log
) -> None:
    def fail(problem: StoreError | None) -> None:
        raise ZeroDivisionError

    store.put(batch(b"a"), fail)
    await store.append(batch(b"b"))
    assert [text for text in log.texts if "telling of a commit failed" in text]
    log.events.clear()  # it was asked for


# Group commit


async def test_the_lines_of_one_turn_are_one_commit(store: Store, engine: Held) -> None:
    store.append(batch(b"a", b"b"))
    store.append(batch(b"c"))
    assert engine.commits == []  # the turn is not over
    await store.append(batch(b"d"))
    assert engine.commits == [[b"a", b"b", b"c", b"d"]]


def test_a_lone_line_is_committed_at_the_end_of_its_turn_without_a_timer(
    reactor: HandReactor, turned: Store, engine: Held
) -> None:
    """The reactor's time stands still here."""
    for line in (b"a", b"b", b"c"):
        reactor.result(turned.append(batch(line)))
    assert engine.commits == [[b"a"], [b"b"], [b"c"]]


def test_what_arrives_during_a_commit_forms_the_next(
    reactor: HandReactor, turned: Store, engine: Held, outcomes: Outcomes
) -> None:
    engine.free.clear()
    outcomes.watch("a", turned.append(batch(b"a")))
    reactor.iterate(0)
    assert engine.begun.get(timeout=PATIENCE) == [b"a"]
    for line in (b"b", b"c", b"d"):
        outcomes.watch(line.decode(), turned.append(batch(line)))
        reactor.iterate(0)
    assert (outcomes(), engine.commits) == ([], [[b"a"]])
    engine.turns.release()
    assert engine.begun.get(timeout=PATIENCE) == [b"b", b"c", b"d"]
    reactor.until(lambda: outcomes.known)
    assert outcomes() == [("a", None)]
    engine.release()
    reactor.until(lambda: outcomes.known)
    assert outcomes() == [("b", None), ("c", None), ("d", None)]


def test_a_commit_has_a_limit_and_no_append_is_divided(
    reactor: HandReactor, turned: Store, engine: Held
) -> None:
    engine.free.clear()
    turned.append(batch(b"first"))
    reactor.iterate(0)
    assert engine.begun.get(timeout=PATIENCE) == [b"first"]
    half = turns.COMMIT_LIMIT // 2
    last = [turned.append(batch(*[b"%d" % n] * (half + 1))) for n in range(5)][-1]
    reactor.iterate(0)
    engine.release()
    reactor.result(last)
    sizes = [len(lines) for lines in engine.commits]
    assert sizes == [1, 2 * half + 2, 2 * half + 2, half + 1]
    assert len(engine.kept()) == sum(sizes)


def test_a_lone_line_does_not_wait_behind_all_that_others_have_sent(
    reactor: HandReactor,
    turned: Store,
    engine: Held,
    outcomes: Outcomes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However long a commit takes here.
    monkeypatch.setattr(turns, "COMMIT_MOST", turns.COMMIT_LIMIT)
    engine.free.clear()
    turned.append(batch(b"first"))
    reactor.iterate(0)
    assert engine.begun.get(timeout=PATIENCE) == [b"first"]
    many = [b"x"] * 1000
    heavy = [turned.append(batch(*many, peer=f"heavy {n % 2}")) for n in range(40)]
    outcomes.watch("lone", turned.append(batch(b"lone", peer="lone")))
    reactor.iterate(0)
    engine.release()
    reactor.result(heavy[-1])
    assert b"lone" in engine.commits[1]
    assert outcomes() == [("lone", None)]
    # Those of one peer are in order.
    kept = [peer for peer, _, _ in engine.kept()]
    assert kept.count("heavy 0") == kept.count("heavy 1") == 20_000
    # And have as much in each commit.
    counts = [commit.count(b"x") for commit in engine.commits[1:]]
    assert len(counts) == 5 and max(counts) <= turns.COMMIT_LIMIT + 1000


async def test_a_list_may_be_used_again_as_soon_as_it_was_appended(
    store: Store, engine: Held
) -> None:
    lines = [b"a", b"b"]
    appended = store.append(Batch(1, "", "", lines))
    lines.clear()
    await appended
    assert engine.kept() == [("", "", b"a"), ("", "", b"b")]


@pytest.mark.parametrize("line", ["text", 7, None, bytearray(b"x"), [b"x"]])
async def test_what_is_no_line_of_bytes_is_refused_and_harms_nobody(
    store: Store, engine: Held, line: Any
) -> None:
    with pytest.raises(TypeError, match=f"a line is bytes, not {type(line).__name__}"):
        store.append(batch(b"a", line))
    await store.append(batch(b"b"))
    assert [line for _, _, line in engine.kept()] == [b"b"]


# Failures


async def test_a_failure_that_is_remembered_does_not_hold_the_lines(
    real: Reactor, engine: Held
) -> None:
    class Lines(list[bytes]):
        """One that can be watched."""

    def commit(batches: list[Batch]) -> None:
        try:
            raise sqlite3.OperationalError(f"with {len(batches)}")
        except sqlite3.Error as problem:
            raise FULL from problem

    engine.commit = commit  # type: ignore[method-assign]
    store = Store(real, engine)
    store.start()
    told: list[StoreError | None] = []
    lines = Lines([b"a"])
    held = weakref.ref(lines)
    store.put(Batch(1, "", "", lines), told.append)
    del lines
    await until(lambda: told)
    await store.stop()
    gc.collect()
    assert held() is None


@pytest.mark.parametrize("problem", [FULL, BROKEN], ids=["for now", "for good"])
async def test_none_of_a_failed_commits_lines_is_kept_and_each_append_is_told(
    store: Store, engine: Held, outcomes: Outcomes, problem: StoreError
) -> None:
    engine.problems.append(problem)
    for name in ("a", "b"):
        outcomes.watch(name, store.append(batch(name.encode())))
    await until(lambda: outcomes.known)
    assert outcomes() == [("a", problem), ("b", problem)]
    assert engine.kept() == []


def test_what_waited_for_a_commit_that_fails_fails_with_it(
    reactor: HandReactor, turned: Store, engine: Held, outcomes: Outcomes
) -> None:
    engine.free.clear()
    engine.problems.append(FULL)
    outcomes.watch("a", turned.append(batch(b"a")))
    reactor.iterate(0)
    assert engine.begun.get(timeout=PATIENCE) == [b"a"]
    outcomes.watch("b", turned.append(batch(b"b")))
    reactor.iterate(0)
    engine.release()
    reactor.until(lambda: outcomes.known)
    assert outcomes() == [("a", FULL), ("b", FULL)]
    assert (engine.commits, engine.kept()) == ([[b"a"]], [])


def test_after_a_failure_lines_are_refused_at_once_until_it_is_time_to_try_again(
    reactor: HandReactor, turned: Store, engine: Held, outcomes: Outcomes, log: Log
) -> None:
    pauses = [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    for number, pause in enumerate(pauses):
        engine.problems.append(FULL)
        assert reactor.failure(turned.append(batch(b"tried"))) is FULL
        assert len(engine.commits) == number + 1
        reactor.advance(pause * 0.9)
        outcomes.watch("early", turned.append(batch(b"early")))
        assert outcomes() == [("early", FULL)]  # with no turn of the reactor
        reactor.advance(pause * 0.1 + 0.0001)
    reactor.result(turned.append(batch(b"works")))
    assert [line for _, _, line in engine.kept()] == [b"works"]
    reactor.advance(commit.RETRY_MOST)
    # And from the beginning when it fails another time.
    engine.problems.append(FULL)
    assert reactor.failure(turned.append(batch(b"tried"))) is FULL
    reactor.advance(0.051)
    reactor.result(turned.append(batch(b"again")))
    assert [line for _, _, line in engine.kept()] == [b"works", b"again"]
    reactor.advance(commit.RETRY_MOST)
    said = [text for text in log.texts if "stor" in text]
    failed = "lines are refused, for they cannot be stored: disk full; trying again"
    assert said == [failed, "storing lines again"] * 2  # once, and not for each line


def test_what_works_only_now_and_then_is_not_said_to_work_again(
    reactor: HandReactor, turned: Store, engine: Held, log: Log
) -> None:
    for _ in range(5):
        engine.problems.append(FULL)
        assert reactor.failure(turned.append(batch(b"long"))) is FULL
        reactor.advance(0.1)
        reactor.result(turned.append(batch(b"short")))
        reactor.advance(commit.RETRY_MOST * 0.8)
    assert [text[:17] for text in log.texts if "stor" in text] == ["lines are refused"]
    reactor.advance(commit.RETRY_MOST * 0.3)
    assert log.texts[-1] == "storing lines again"


def test_another_reason_is_said_as_well(reactor: HandReactor, turned: Store, engine: Held) -> None:
    engine.problems += [FULL, StoreError("another process holds the write lock", retry=True)]
    reactor.failure(turned.append(batch(b"a")))
    reactor.advance(1)
    second = reactor.failure(turned.append(batch(b"a")))
    assert isinstance(second, StoreError)
    assert (second.reason, second.retry) == ("another process holds the write lock", True)
    assert str(second) == "not stored: another process holds the write lock"


def test_after_a_failure_for_good_nothing_is_ever_tried_again(
    reactor: HandReactor, turned: Store, engine: Held, log: Log
) -> None:
    failed: list[StoreError] = []
    turned.failed.addCallback(failed.append)
    engine.problems.append(BROKEN)
    assert reactor.failure(turned.append(batch(b"a"))) is BROKEN
    reactor.advance(3600)
    for _ in range(3):
        assert reactor.failure(turned.append(batch(b"b"))) is BROKEN
    assert (failed, engine.commits, engine.kept()) == ([BROKEN], [[b"a"]], [])
    assert [text for text in log.texts if "stored" in text] == [
        "lines are refused, for they cannot be stored: I/O error; nothing will be stored any more"
    ]


def test_what_was_already_appended_fails_after_a_failure_for_good(
    reactor: HandReactor, turned: Store, engine: Held
) -> None:
    engine.free.clear()
    engine.problems.append(BROKEN)
    turned.append(batch(b"a")).addErrback(lambda _: None)
    reactor.iterate(0)
    assert engine.begun.get(timeout=PATIENCE) == [b"a"]
    engine.release()
    heard(reactor)
    # It has failed, and the reactor has not been told yet.
    assert reactor.failure(turned.append(batch(b"b"))) is BROKEN
    assert engine.commits == [[b"a"]]


def test_a_thread_that_fails_between_commits_ends_the_service_and_is_there_to_the_end(
    reactor: HandReactor, turned: Store, engine: Held
) -> None:
    def fails() -> None:
        raise MemoryError

    turned._turns.put(fails)
    assert reactor.result(turned.failed).reason == "out of memory"
    problem = reactor.failure(turned.append(batch(b"a")))
    assert (str(problem), engine.commits) == ("not stored: out of memory", [])
    reactor.result(turned.stop())
    assert engine.closed


def test_a_failure_for_now_that_becomes_one_for_good_ends_it(
    reactor: HandReactor, turned: Store, engine: Held
) -> None:
    engine.problems += [FULL, BROKEN]
    reactor.failure(turned.append(batch(b"a")))
    assert not turned.failed.called
    reactor.advance(1)
    reactor.failure(turned.append(batch(b"b")))
    assert reactor.result(turned.failed) is BROKEN


async def test_an_error_that_no_engine_should_raise_is_for_good_and_its_outcome_unknown(
    store: Store, engine: Held
) -> None:
    engine.problems.append(ZeroDivisionError("at 7"))
    problem = await failure(store.append(batch(b"a")))
    assert isinstance(problem, StoreError)
    assert (str(problem), problem.retry) == ("unknown: ZeroDivisionError: at 7", False)
    later = await failure(store.append(batch(b"b")))
    assert str(later) == "not stored: ZeroDivisionError: at 7"
    assert (await store.failed).reason == "ZeroDivisionError: at 7"


async def test_an_engine_that_finds_no_memory_is_tried_again(store: Store, engine: Held) -> None:
    engine.problems.append(MemoryError())
    problem = await failure(store.append(batch(b"a")))
    assert isinstance(problem, StoreError)
    assert (str(problem), problem.retry) == ("unknown: out of memory", True)
    assert not store.failed.called


@pytest.mark.parametrize("problem", [UNKNOWN, UNKNOWN_FOR_NOW], ids=["for good", "for now"])
def test_only_the_lines_of_the_commit_are_told_that_their_outcome_is_unknown(
    reactor: HandReactor, turned: Store, engine: Held, outcomes: Outcomes, problem: StoreError
) -> None:
    engine.free.clear()
    engine.problems.append(problem)
    outcomes.watch("committed", turned.append(batch(b"a")))
    reactor.iterate(0)
    assert engine.begun.get(timeout=PATIENCE) == [b"a"]
    outcomes.watch("waiting", turned.append(batch(b"b")))
    reactor.iterate(0)
    engine.release()
    reactor.until(lambda: len(outcomes.known) == 2)
    outcomes.watch("later", turned.append(batch(b"c")))
    assert [(name, str(told)) for name, told in outcomes()] == [
        ("committed", f"unknown: {problem.reason}"),
        ("waiting", f"not stored: {problem.reason}"),
        ("later", f"not stored: {problem.reason}"),
    ]
    assert (engine.commits, engine.kept()) == ([[b"a"]], [])


def test_the_memory_engine_keeps_what_it_says_is_unknown(reactor: HandReactor) -> None:
    memory = Memory()
    memory.problem = UNKNOWN_FOR_NOW
    with pytest.raises(StoreError, match="unknown: no answer"):
        memory.commit([batch(b"a")])
    assert [line for _, _, line in memory.kept] == [b"a"]


def test_what_is_refused_at_once_does_not_overtake_what_was_appended_before(
    reactor: HandReactor, turned: Store, engine: Held, outcomes: Outcomes
) -> None:
    engine.problems += [FULL, FULL]
    first = turned.append(batch(b"first"))
    reactor.iterate(0)
    heard(reactor)
    first.addErrback(lambda _: outcomes.watch("later", turned.append(batch(b"later"))))
    outcomes.watch("earlier", turned.append(batch(b"earlier")))
    reactor.until(lambda: len(outcomes.known) == 2)
    assert [name for name, _ in outcomes()] == ["earlier", "later"]


# Upkeep


async def test_upkeep_goes_on_between_commits_and_while_idle_until_nothing_is_left(
    real: Reactor, engine: Held
) -> None:
    engine.untidy += [True, True, True, False]
    store = Store(real, engine)
    store.start()
    await until(lambda: not engine.untidy)
    before = engine.tidied
    await store.append(batch(b"a"))
    await store.stop()
    assert engine.tidied > before


def test_upkeep_has_its_turn_between_commits_however_many_follow_each_other(
    reactor: HandReactor, turned: Store, engine: Held
) -> None:
    engine.free.clear()
    turned.append(batch(b"a"))
    reactor.iterate(0)
    assert engine.begun.get(timeout=PATIENCE) == [b"a"]
    last = turned.append(batch(b"b"))
    reactor.iterate(0)
    before = engine.tidied
    engine.turns.release()
    assert engine.begun.get(timeout=PATIENCE) == [b"b"]
    assert engine.tidied == before + 1
    engine.release()
    reactor.result(last)


async def test_upkeep_is_looked_for_while_nothing_is_stored(
    real: Reactor, engine: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "TIDY_INTERVAL", 0.01)
    store = Store(real, engine)
    store.start()
    await until(lambda: engine.tidied > 5)
    await store.stop()
    assert engine.commits == []


async def test_upkeep_that_fails_for_now_concerns_nobody(
    real: Reactor, engine: Held, log: Log
) -> None:
    engine.untidy += [FULL]
    store = Store(real, engine)
    store.start()
    await until(lambda: not engine.untidy)
    await store.append(batch(b"a"))
    await store.stop()
    assert log.texts == []
    assert not store.failed.called


async def test_upkeep_that_fails_for_good_ends_it(real: Reactor, engine: Held) -> None:
    engine.untidy += [BROKEN]
    store = Store(real, engine)
    store.start()
    assert await store.failed is BROKEN
    assert await failure(store.append(batch(b"a"))) is BROKEN
    tidied = engine.tidied
    await store.stop()
    assert (engine.commits, engine.tidied) == ([], tidied)


async def test_after_a_failure_for_good_there_is_no_upkeep(engine: Held, store: Store) -> None:
    engine.problems.append(BROKEN)
    await failure(store.append(batch(b"a")))
    tidied = engine.tidied
    await store.stop()
    assert engine.tidied == tidied


# How much waits


def test_it_is_full_while_too_much_is_not_durable_and_has_room_when_it_is(
    reactor: HandReactor, turned: Store, engine: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "PENDING_LIMIT", 10)
    engine.free.clear()
    assert reactor.result(turned.room()) is None
    first = turned.append(batch(b"1234", b"56789"))
    assert not turned.full
    reactor.iterate(0)
    engine.begun.get(timeout=PATIENCE)
    turned.append(batch(b"0", b""))
    assert turned.full
    order: list[str] = []
    for name in ("first", "second"):
        turned.room().addCallback(lambda _, name=name: order.append(name))
    assert order == []
    first.addCallback(lambda _: order.append("durable"))
    engine.release()
    reactor.until(lambda: len(order) == 3)
    assert order == ["durable", "first", "second"]
    assert not turned.full


def test_it_stays_full_when_what_is_durable_makes_too_little_room(
    reactor: HandReactor, turned: Store, engine: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "PENDING_LIMIT", 10)
    engine.free.clear()
    first = turned.append(batch(b"1"))
    reactor.iterate(0)
    engine.begun.get(timeout=PATIENCE)
    second = turned.append(batch(b"x" * 20))
    room = turned.room()
    reactor.iterate(0)
    engine.turns.release()
    reactor.result(first)
    assert turned.full
    assert not room.called
    engine.release()
    reactor.result(second)
    assert room.called


@pytest.mark.parametrize("problem", [FULL, BROKEN], ids=["for now", "for good"])
async def test_what_failed_waits_no_more(
    store: Store,
    engine: Held,
    monkeypatch: pytest.MonkeyPatch,
    problem: StoreError,
) -> None:
    monkeypatch.setattr(commit, "PENDING_LIMIT", 10)
    engine.problems.append(problem)
    appended = store.append(batch(b"x" * 10))
    room = store.room()
    assert store.full
    assert await failure(appended) is problem
    assert room.called
    assert not store.full
    store.append(batch(b"x" * 10)).addErrback(lambda _: None)  # refused at once
    assert not store.full


# Start and stop


def test_stopping_stores_what_was_appended_and_then_closes(
    reactor: HandReactor, engine: Held, outcomes: Outcomes
) -> None:
    store = Store(reactor, engine)
    store.start()
    engine.free.clear()
    outcomes.watch("being committed", store.append(batch(b"a")))
    reactor.iterate(0)
    engine.begun.get(timeout=PATIENCE)
    outcomes.watch("waiting", store.append(batch(b"b")))
    reactor.iterate(0)
    outcomes.watch("of this turn", store.append(batch(b"c")))
    stopped = store.stop()
    outcomes.watch("closed", stopped)
    reactor.iterate(0)
    assert (outcomes(), engine.closed) == ([], False)
    engine.release()
    reactor.until(lambda: engine.closed and stopped.called)
    assert outcomes() == [
        ("being committed", None),
        ("waiting", None),
        ("of this turn", None),
        ("closed", None),
    ]
    assert [line for _, _, line in engine.kept()] == [b"a", b"b", b"c"]


def test_stopping_stores_what_this_turn_has_brought_an_idle_store(
    reactor: HandReactor, engine: Held
) -> None:
    store = Store(reactor, engine)
    store.start()
    appended = store.append(batch(b"a"))
    stopped = store.stop()
    heard(reactor)
    assert [line for _, _, line in engine.kept()] == [b"a"]
    reactor.result(appended)
    reactor.result(stopped)


async def test_stopping_after_a_failure_for_good_closes(real: Reactor, engine: Held) -> None:
    store = Store(real, engine)
    store.start()
    engine.problems.append(BROKEN)
    await failure(store.append(batch(b"a")))
    await store.stop()
    assert engine.closed


def test_what_keeps_an_engine_from_opening_keeps_the_store_from_starting(
    reactor: HandReactor, tmp_path: Path
) -> None:
    store = Store(reactor, SQLite(str(tmp_path / "no folder" / "lines.db")))
    with pytest.raises(CannotStart, match="No such file or directory"):
        store.start()


class Watching(Service):
    """A listener's place: says what it finds when it starts and stops."""

    def __init__(self, found: list[Any], engine: Held, appends: Callable[[], Any]) -> None:
        self._found = found
        self._engine = engine
        self._appends = appends

    def startService(self) -> None:
        self._found.append(("start", bool(self._engine.threads)))

    def stopService(self) -> Any:
        self._found.append(("stop", self._engine.closed))
        return self._appends()


async def test_the_store_is_opened_before_anything_listens_and_closed_when_all_has_drained(
    real: Reactor, engine: Held
) -> None:
    found: list[Any] = []
    store = Store(real, engine)
    service = AllOrNone(store, reactor=real)
    Watching(found, engine, lambda: store.append(batch(b"the last"))).setServiceParent(service)
    service.startService()
    await service.stopService()
    assert found == [("start", True), ("stop", False)]
    assert [line for _, _, line in engine.kept()] == [b"the last"]
    assert engine.closed


# What is asked for


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("kafka:lines", "no store called 'kafka'; there is sqlite:PATH, nats://HOST/STREAM"),
        ("lines.db", "no store called 'lines.db'; there is sqlite:PATH, nats://HOST/STREAM"),
        ("", "no store called ''; there is sqlite:PATH, nats://HOST/STREAM"),
        ("sqlite:", "sqlite:: no path"),
        ("no.such:x", "ModuleNotFoundError: No module named 'no'"),
        ("json.dumps:x", "TypeError: dumps() takes 1 positional argument but 2 were given"),
        ("json.none:x", "AttributeError: module 'json' has no attribute 'none'"),
        ("json.dumps:", "no store called 'json.dumps'; there is sqlite:PATH, nats://HOST/STREAM"),
        (".dumps:x", "no store called '.dumps'; there is sqlite:PATH, nats://HOST/STREAM"),
    ],
)
def test_what_is_no_store_is_told_so(url: str, why: str) -> None:
    with pytest.raises(ValueError) as told:
        backend(url, EVERYTHING)
    assert str(told.value) == why


def test_the_memory_engine_fails_and_works_again_as_a_test_says(reactor: HandReactor) -> None:
    memory = Memory()
    store = Store(reactor, memory)
    with ExitStack() as started:
        store.start()
        started.callback(lambda: reactor.result(store.stop()))
        memory.problem = FULL
        assert reactor.failure(store.append(batch(b"a"))) is FULL
        memory.problem = None
        reactor.advance(commit.RETRY_FIRST)
        reactor.result(store.append(batch(b"b")))
        assert memory.kept == [("192.0.2.1:7", "tcp:192.0.2.9:555", b"b")]
        assert memory.opened
    assert not memory.opened
