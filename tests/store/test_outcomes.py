"""What is said of lines is so: stored, not stored, or unknown, whatever goes wrong.

The disk of a real server is made to fail by a library that is loaded before the system's.
"""

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sockservice.store.engine import Batch, Retention
from sockservice.store.sqlite import SQLite
from tests.conftest import PATIENCE, Children
from tests.soak.faults import Faulty, built, loading
from tests.soak.rounds import Server
from tests.soak.senders import OK, REFUSED, UNKNOWN, Sender, compare


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = built(tmp_path_factory.mktemp("library"))
    if made is None:
        pytest.skip("there is no C compiler")
    return made


Starting = Callable[[], Faulty]


@pytest.fixture
def faulty(children: Children, library: Path) -> Starting:
    return lambda: Faulty(children, library)


def told(senders: list[Sender], beginning: bytes) -> int:
    """Give how many replies begin so."""
    return sum(reply.startswith(beginning) for sender in senders for reply in sender.replies)


def test_what_failed_to_sync_is_spoilt_and_then_said_not_to_be_stored(faulty: Starting) -> None:
    made = faulty()
    senders = made.senders(1, 30)
    made.fault("fail 1")
    assert made.ended(senders) == 1
    assert told(senders, REFUSED + b"I/O error") >= 1
    assert told(senders, UNKNOWN) == 0
    made.recovered()
    compare(made.store, 0, senders)


def test_what_failed_to_sync_does_not_come_back_after_kill_9_before_the_close(
    faulty: Starting,
) -> None:
    made = faulty()
    senders = made.senders(1, 1)
    # The spoiling takes two calls; the third is of the checkpoint with which it closes.
    made.fault("fatal 3")
    assert made.ended(senders) == -signal.SIGKILL
    assert told(senders, REFUSED + b"I/O error") >= 1
    made.recovered()
    compare(made.store, 0, senders)


def test_what_cannot_be_spoilt_either_is_said_to_be_unknown(faulty: Starting) -> None:
    made = faulty()
    # So few that the first sync is hardly ever that of a checkpoint, which concerns no line.
    senders = made.senders(1, 1)
    made.fault("fail -1")
    assert made.ended(senders) == 1
    assert told(senders, UNKNOWN + b"I/O error") >= 1
    made.recovered()
    compare(made.store, 0, senders)


def test_lines_of_a_file_that_was_moved_are_said_to_be_unknown(
    children: Children, tmp_path: Path
) -> None:
    store = tmp_path / "lines.db"
    server = Server(children, store)
    senders = server.senders([1, 30, 300])[:3]
    for sender in senders:
        sender.until(OK)
    store.rename(tmp_path / "x")
    assert server.end()[0] == 1
    for sender in senders:
        sender.stop()
    why = f"{store} was renamed or deleted".encode()
    # If it is found out between two commits, no line's fate is unknown.
    assert told(senders, UNKNOWN + why) + told(senders, REFUSED + why) >= 1
    compare(tmp_path / "x", 0, senders)


@pytest.mark.parametrize("step", range(1, 13))
def test_kill_9_at_each_step_of_a_commit_leaves_what_was_said(faulty: Starting, step: int) -> None:
    made = faulty()
    senders = made.senders(1, 1, 30)
    made.fault(f"die {step}")
    assert made.ended(senders) == -signal.SIGKILL
    made.recovered()
    acknowledged, stored = compare(made.store, 0, senders)
    assert 3 <= acknowledged <= stored


def test_what_is_refused_since_the_process_that_stores_was_killed_is_not_stored(
    children: Children, tmp_path: Path
) -> None:
    store = tmp_path / "lines.db"
    for _ in range(3):
        server = Server(children, store, options=("--workers", "2"))
        server.until(rb"2 workers are ready")
        senders = [Sender(f"lines{n}", server.lines, 100) for n in range(4)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.until(OK)
        server.kill()
        for sender in senders:
            sender.join(20)
        again = Server(children, store)
        again.process.terminate()
        assert again.end() == (0, b"")
        compare(store, 0, senders)
        for path in tmp_path.glob("lines.db*"):
            path.unlink()


@pytest.mark.parametrize("step", [1, 2, 5, 20, 80])
def test_a_compacting_that_is_killed_at_any_step_leaves_all_lines(
    children: Children, library: Path, step: int
) -> None:
    store, faults = children.folder / "lines.db", children.folder / "faults"
    made = SQLite(str(store), Retention(age=1), lambda: 1_800_000_000)
    made.open()
    lines = [b"%d" % n + b"x" * 1000 for n in range(500)]
    old, new = 1_700_000_000_000_000, 1_800_000_000_000_000
    for received in (old, new):
        made.commit([Batch(received, "192.0.2.1:7", "tcp:192.0.2.9:555", lines)])
    while made.tidy():
        pass
    made.close()
    faults.write_text(f"die {step}")
    loaded = loading(library) | {"FAULTS": str(faults)}
    killed = children.start("sockservice", "compact", str(store), env=os.environ | loaded)
    assert killed.wait(PATIENCE) == -signal.SIGKILL
    for _ in range(2):
        with closing(sqlite3.connect(store)) as database:
            assert [line for (line,) in database.execute("SELECT line FROM lines")] == lines
        assert children.run("sockservice", "compact", str(store)).returncode == 0
