"""What is looked at when a store is opened, and what later, in the background."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from queue import Queue

import pytest

from sockservice.store import inspection
from sockservice.store.engine import Batch
from sockservice.store.inspection import Inspection
from sockservice.store.sqlite import SQLite
from tests.conftest import PATIENCE, Log

LINES = 40_000


def put(store: SQLite, *lines: bytes) -> None:
    store.commit([Batch(1_700_000_000_000_000, "192.0.2.1:7", "tcp:192.0.2.9:555", [*lines])])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of some megabytes."""
    path = tmp_path / "lines.db"
    with opened(path) as store:
        put(store, *[b"x" * 200] * LINES)
    return path


@contextmanager
def opened(path: Path) -> Iterator[SQLite]:
    store = SQLite(str(path))
    store.open()
    try:
        yield store
    finally:
        store.close()


def read() -> int:
    """Give how many bytes this thread has read so far; another looks through the store."""
    told = dict(line.split(": ") for line in Path("/proc/thread-self/io").read_text().splitlines())
    return int(told["rchar"])


def damage(path: Path) -> None:
    """Overwrite a page in the middle."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xaa" * 4096)


def test_a_start_and_what_others_write_take_as_long_whatever_the_size_of_the_file(
    path: Path,
) -> None:
    assert path.stat().st_size > 8_000_000
    before = read()
    with opened(path) as store:
        put(store, b"a")
        assert read() - before < 500_000
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE lines SET peer = 'x' WHERE id = 7")
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(FULL)")
        before = read()
        put(store, b"b")
        assert read() - before < 500_000


def inspected(path: Path, stack: ExitStack) -> tuple[Inspection, "Queue[tuple[int, str]]"]:
    results: Queue[tuple[int, str]] = Queue()
    made = Inspection(str(path), lambda lines, _, problem: results.put((lines, problem)), 0.0)
    stack.callback(made.stop)
    made.start()
    return made, results


def test_every_line_is_looked_at_and_again_when_another_program_has_written(path: Path) -> None:
    with opened(path), ExitStack() as stack:
        made, results = inspected(path, stack)
        assert results.get(timeout=PATIENCE) == (LINES, "")
        made.again()
        assert results.get(timeout=PATIENCE) == (LINES, "")
        assert results.empty()


def test_damage_in_the_middle_is_found_and_where_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A look that meets damage counts for nothing: as long as it may be, so far before it ends.
    monkeypatch.setattr(inspection, "MOST", 1000)
    damage(path)
    with opened(path) as store, ExitStack() as stack:
        _, results = inspected(path, stack)
        lines, problem = results.get(timeout=PATIENCE)
        assert LINES // 3 < lines < LINES * 2 // 3
        assert problem == f"database disk image is malformed, behind id {lines}"
        put(store, b"all the same")


def test_it_ends_at_once_and_in_the_middle(path: Path) -> None:
    with opened(path), ExitStack() as stack:
        made, results = inspected(path, stack)
        made.stop()
        assert results.qsize() <= 1


def test_the_log_says_once_what_was_found(path: Path, log: Log) -> None:
    made = Inspection(str(path))
    made._log(7, 0.5, "")
    made._log(7, 0.5, "")
    assert log.texts == [f"store {path}: all can be read, 7 lines (0.5 s)"]
    made._log(3, 0.5, "malformed")
    made._log(3, 0.5, "malformed")
    assert [text for text in log.texts if "is damaged: malformed" in text] == log.texts[1:]
    assert len(log.texts) == 2


def test_a_service_says_of_its_store_what_was_found(
    path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inspection.DELAY > 0
    told: Queue[str] = Queue()
    monkeypatch.setattr(
        Inspection, "_log", lambda _, lines, seconds, problem: told.put(f"{lines} {problem}")
    )
    with opened(path):
        assert told.get(timeout=PATIENCE) == f"{LINES} "
