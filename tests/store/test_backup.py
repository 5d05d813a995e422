"""`sockservice backup`, `verify` and `compact`: what is done with a store besides reading it."""

import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from sockservice.cli import main
from sockservice.cli.status import SIGNALS
from sockservice.cli.storing import Steps
from sockservice.store import copying, reader
from sockservice.store.engine import EVERYTHING, Batch, Retention
from sockservice.store.sqlite import SQLite
from tests.conftest import Children
from tests.soak.rounds import Server
from tests.soak.senders import OK, compare

PLACE = ("192.0.2.1:7", "tcp:192.0.2.9:555")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLite]:
    made = SQLite(str(path))
    made.open()
    yield made
    made.close()


def put(store: SQLite, *lines: bytes) -> None:
    store.commit([Batch(1_700_000_000_000_000, *PLACE, list(lines))])


def run(*arguments: object) -> tuple[int, str]:
    """Give the status and all that is said."""
    done = CliRunner().invoke(main, [str(each) for each in arguments])
    return done.exit_code, done.output


def rows(path: Path) -> list[tuple[int, bytes]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT id, line FROM lines ORDER BY id").fetchall()


@pytest.mark.parametrize("number", SIGNALS, ids=lambda each: each.name)
@pytest.mark.parametrize("command", ["verify", "compact"])
def test_a_signal_while_sqlite_calls_is_no_fault(
    store: SQLite,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    number: signal.Signals,
) -> None:
    put(store, *[b"%d" % n for n in range(1000)])
    store.close()
    show = Steps.show

    def signalled(self: Steps, done: int = 0, total: int = 0) -> None:
        if signal.getsignal(number) not in (before, signal.SIG_DFL):
            signal.raise_signal(number)
        show(self, done, total)

    before = signal.getsignal(number)
    monkeypatch.setattr(reader, "INSTRUCTIONS", 1)
    monkeypatch.setattr(Steps, "show", signalled)
    assert run(command, path) == (128 + number, f"{SIGNALS[number]}\n")
    assert signal.getsignal(number) == before


# Backup


def test_a_copy_holds_all_lines_and_is_a_store(store: SQLite, path: Path, tmp_path: Path) -> None:
    put(store, b"a", b"\0\xff", b"")
    copy = tmp_path / "copy.db"
    assert run("backup", f"sqlite:{path}", copy) == (0, f"{copy}: 3 lines, last id 3\n")
    assert rows(copy) == rows(path) == [(1, b"a"), (2, b"\0\xff"), (3, b"")]
    assert run("verify", copy) == (0, f"{copy}: sound, ids 1 to 3\n")
    again = SQLite(str(copy))
    again.open()
    put(again, b"b")
    again.close()
    assert rows(copy)[-1] == (4, b"b")
    assert sorted(each.name for each in tmp_path.glob("copy*")) == ["copy.db"]


def test_a_copy_is_made_under_full_load_in_bounded_time(children: Children, path: Path) -> None:
    server = Server(children, path)
    senders = server.senders([1, 30, 1000])
    for sender in senders:
        sender.until(OK, 20)
    done = children.run("sockservice", "backup", str(path), "copy.db")
    for sender in senders:
        sender.until(OK)  # they went on
    server.process.terminate()
    assert server.end() == (0, b"")
    for sender in senders:
        sender.stop()
    compare(path, 0, senders)
    assert (done.returncode, done.stderr) == (0, b"")
    last = int(done.stdout.split()[-1])
    copied = rows(children.folder / "copy.db")
    assert copied == rows(path)[: len(copied)]
    assert copied[-1][0] == last


def test_an_id_is_not_used_again_in_a_copy(path: Path, tmp_path: Path) -> None:
    store = SQLite(str(path), Retention(age=1), lambda: 1_800_000_000)
    store.open()
    put(store, b"a", b"b")
    while store.tidy():
        pass
    copy = tmp_path / "copy.db"
    assert run("backup", path, copy) == (0, f"{copy}: 0 lines, last id 2\n")
    store.close()
    again = SQLite(str(copy))
    again.open()
    put(again, b"c")
    again.close()
    assert rows(copy) == [(3, b"c")]


def test_increments_are_put_together_again(store: SQLite, path: Path, tmp_path: Path) -> None:
    monday, tuesday, whole = (tmp_path / name for name in ("mon.db", "tue.db", "whole.db"))
    put(store, b"a", b"b")
    assert run("backup", path, monday)[0] == 0
    put(store, b"c")
    said = f"{tuesday}: 1 line, last id 3\n"
    assert run("backup", path, tuesday, "--since-id", 2) == (0, said)
    assert rows(tuesday) == [(3, b"c")]
    assert run("backup", monday, whole)[0] == 0
    assert run("backup", tuesday, whole, "--append") == (0, f"{whole}: 3 lines, last id 3\n")
    assert rows(whole) == rows(path)
    put(store, b"d")
    assert run("backup", path, whole, "--append") == (0, f"{whole}: 4 lines, last id 4\n")
    assert rows(whole) == rows(path)


def test_an_increment_that_leaves_a_gap_is_not_appended(
    store: SQLite, path: Path, tmp_path: Path
) -> None:
    first, third = tmp_path / "first.db", tmp_path / "third.db"
    put(store, b"a")
    run("backup", path, first)
    put(store, b"b", b"c")
    run("backup", path, third, "--since-id", 2)
    status, said = run("backup", third, first, "--append")
    assert status == 1
    assert "it ends at id 1, and what is to be appended begins behind 2" in said
    assert rows(first) == [(1, b"a")]


def test_what_has_been_removed_before_it_was_appended_is_told(
    store: SQLite, path: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    put(store, b"a")
    run("backup", path, copy)
    put(store, b"b", b"c", b"d")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM lines WHERE id < 4")
    status, said = run("backup", path, copy, "--append")
    assert (status, rows(copy)) == (0, [(1, b"a"), (4, b"d")])
    assert "2 lines between those of the copy and the rest are gone" in said


def test_what_was_interrupted_goes_on_where_it_was(
    store: SQLite, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "STEP", 1000)
    put(store, *[b"%d" % n for n in range(5000)])
    copy = tmp_path / "copy.db"
    shown: list[int] = []

    def interrupted(self: Steps, done: int, total: int) -> None:
        shown.append(done)
        if len(shown) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Steps, "show", interrupted)
        assert run("backup", path, copy) == (130, "interrupted\n")
    assert not copy.exists()
    status, said = run("backup", path, copy, "--since-id", 1)
    assert (status, "its .part is of another backup" in said) == (1, True)
    monkeypatch.setattr(Steps, "show", lambda _, done, total: shown.append(done))
    assert run("backup", path, copy) == (0, f"{copy}: 5,000 lines, last id 5000\n")
    # All but what was not committed of the first time.
    assert shown == [1000, 2000, 3000, 4000, 1000, 2000]
    assert rows(copy) == rows(path)


def test_the_part_of_another_store_is_not_gone_on_with(
    store: SQLite, path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    put(store, b"a", b"b")
    made = SQLite(str(other))
    made.open()
    put(made, b"x", b"y", b"z")
    made.close()
    copy = tmp_path / "copy.db"
    assert run("backup", path, copy)[0] == 0
    status, said = run("backup", other, copy, "--append")
    assert (status, "it is the copy of another store: line 2 differs" in said) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["lines.db", "lines.db"], "COPY is STORE itself"),
        (["lines.db", "there"], "there: it exists already"),
        (["lines.db", "none", "--append"], "none: there is no such copy to append to"),
        (["lines.db", "there", "--append"], "there: it is no store"),
        (["lines.db", "none/copy.db"], "none/copy.db: No such file or directory"),
        (["none.db", "copy.db"], "none.db: there is no such store"),
        (["lines.db", "x", "--append", "--since-id", "2"], "--append knows itself since which"),
    ],
)
def test_what_cannot_be_copied_is_told(
    store: SQLite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    status, said = run("backup", *arguments)
    assert status in (1, 2)
    assert why in said
    assert (tmp_path / "there").read_bytes() == b""


# Verify


def test_a_store_that_is_damaged_is_told_so(store: SQLite, path: Path, tmp_path: Path) -> None:
    assert run("verify", path) == (0, f"{path}: sound, no lines\n")
    put(store, *[b"x" * 100] * 5000)
    store.close()
    store.open()
    assert run("verify", path) == (0, f"{path}: sound, ids 1 to 5000\n")
    broken = tmp_path / "broken.db"
    shutil.copy(path, broken)
    with broken.open("r+b") as file:
        file.seek(4096 * 50)
        file.write(b"\xaa" * 4096)
    status, said = run("verify", broken)
    assert status == 1
    assert said.startswith(f"{broken}: ")
    assert said.count("\n") >= 1 and "Traceback" not in said


# Compact


def test_the_space_of_removed_lines_is_given_back(path: Path) -> None:
    store = SQLite(str(path), Retention(age=1), lambda: 1_800_000_000)
    store.open()
    put(store, *[b"x" * 1000] * 5000)
    status, said = run("compact", path)
    assert (status, "a server is using it; stop that first" in said) == (1, True)
    while store.tidy():
        pass
    store.close()
    before = os.stat(path).st_size
    status, said = run("compact", path)
    after = os.stat(path).st_size
    assert (status, said) == (0, f"{path}: {before - after:,} bytes freed, {after:,} left\n")
    assert after < 100_000 < before
    again = SQLite(str(path), EVERYTHING)
    again.open()
    put(again, b"y")
    again.close()
    assert rows(path) == [(5001, b"y")]
    assert sorted(each.name for each in path.parent.iterdir()) == ["lines.db"]
