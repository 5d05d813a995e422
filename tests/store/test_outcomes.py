"""What is said of lines is so: stored, not stored, or unknown, whatever goes wrong.

The disk of a real server is made to fail by a library that is loaded before the system's.
"""

import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Children
from tests.soak.rounds import Server
from tests.soak.senders import OK, REFUSED, Sender, compare

UNKNOWN = b"error unknown: "
SOURCE = Path(__file__).parents[1] / "soak" / "faults.c"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    made = tmp_path_factory.mktemp("library") / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, SOURCE, "-ldl"], check=True)
    return made


class Faulty:
    """A server on a disk that fails as `fault` says."""

    def __init__(self, children: Children, library: Path) -> None:
        self.store = children.folder / "lines.db"
        self._children = children
        self._faults = children.folder / "faults"
        self._loaded = ("/usr/bin/env", f"LD_PRELOAD={library}", f"FAULTS={self._faults}")
        self.server = Server(children, self.store, self._loaded)

    def fault(self, what: str) -> None:
        """Have the disk fail from now on."""
        new = self._faults.with_suffix(".new")
        new.write_text(what)
        new.replace(self._faults)

    def senders(self, *windows: int) -> list[Sender]:
        """Start senders whose first line is acknowledged."""
        made = [Sender(f"lines{n}", self.server.lines, w) for n, w in enumerate(windows)]
        for sender in made:
            sender.start()
        for sender in made:
            sender.until(OK)
        return made

    def ended(self, senders: list[Sender]) -> int:
        """Wait for the server's end; give its status."""
        status, _ = self.server.end()
        for sender in senders:
            sender.stop()
        return status

    def recovered(self) -> None:
        """Start a server on what the last one has left, as it would be in the end."""
        self._faults.unlink(missing_ok=True)
        again = Server(self._children, self.store)
        again.process.terminate()
        assert again.end() == (0, b"")


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
