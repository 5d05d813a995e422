"""The SQLite engine: what it writes, what it refuses, what it removes."""

import os
import resource
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Timer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockservice.errors import CannotStart, StoreError
from sockservice.store import sqlite
from sockservice.store.engine import EVERYTHING, Batch, Retention
from sockservice.store.linetable import SCHEMA
from sockservice.store.retention import STEP
from sockservice.store.sqlite import SQLite
from tests.soak import disks

NOW = 1_700_000_000_123_456


def batch(
    *lines: bytes, received: int = NOW, peer: str = "192.0.2.1:7", listener: str = "tcp:[::1]:555"
) -> Batch:
    return Batch(received, peer, listener, list(lines))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines.db"


@contextmanager
def engine(path: Path, retention: Retention = EVERYTHING, now: int = NOW) -> Iterator[SQLite]:
    """Open a database, and close it at the end."""
    made = SQLite(str(path), retention, lambda: now / 1_000_000)
    made.open()
    try:
        yield made
    finally:
        made.close()


def ask(path: Path, question: str, *values: object) -> list[tuple[object, ...]]:
    """Ask as any other program would, while the engine may be writing."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute(question, values).fetchall()


def lines(path: Path) -> list[object]:
    return [line for (line,) in ask(path, "SELECT line FROM lines ORDER BY id")]


# What is in the file


def test_the_schema_is_the_documented_one(path: Path) -> None:
    with engine(path):
        assert ask(path, "SELECT name, type, [notnull], pk FROM pragma_table_info('lines')") == [
            ("id", "INTEGER", 0, 1),
            ("received", "INTEGER", 1, 0),
            ("peer", "TEXT", 1, 0),
            ("listener", "TEXT", 1, 0),
            ("line", "BLOB", 1, 0),
        ]
        assert ask(path, "SELECT name FROM pragma_table_info('readable')") == [
            ("id",),
            ("received",),
            ("peer",),
            ("listener",),
            ("line",),
        ]
        assert ask(path, "PRAGMA user_version") == [(1,)]
        assert ask(path, "PRAGMA journal_mode") == [("wal",)]


def test_the_page_shows_the_schema_as_it_is() -> None:
    page = Path(__file__).parents[2] / "docs" / "durability.md"
    table = SCHEMA.partition("CREATE VIEW")[0].strip()
    assert textwrap.indent(table, "    ") in page.read_text()


def test_all_columns_are_kept_as_they_were_given(path: Path) -> None:
    with engine(path) as kept:
        kept.commit(
            [
                batch(b"a", b"b", received=1, peer="[2001:db8::1]:7", listener="unix:/run/s"),
                batch(b"c", received=2**62, peer="unix:pid=7,uid=0", listener=""),
            ]
        )
        assert ask(path, "SELECT * FROM lines ORDER BY id") == [
            (1, 1, "[2001:db8::1]:7", "unix:/run/s", b"a"),
            (2, 1, "[2001:db8::1]:7", "unix:/run/s", b"b"),
            (3, 2**62, "unix:pid=7,uid=0", "", b"c"),
        ]


def test_every_byte_is_kept(path: Path) -> None:
    # Lengths about a page of the file, and one that many pages hold.
    every = [b"", bytes(range(256)), b"\0", b"\0" * 4096, *(b"x" * n for n in range(4000, 4100))]
    big = os.urandom(300_000)
    with engine(path) as kept:
        kept.commit([batch(*every, big)])
    assert lines(path) == [*every, big]
    assert ask(path, "SELECT DISTINCT typeof(line) FROM lines") == [("blob",)]


@settings(max_examples=30)
@given(st.lists(st.lists(st.binary(max_size=40), max_size=3), max_size=30))
def test_lines_are_kept_in_order_however_they_are_divided(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]]
) -> None:
    path = tmp_path_factory.mktemp("store") / "lines.db"
    with engine(path) as kept:
        kept.commit([batch(*given) for given in batches])
        assert lines(path) == [line for given in batches for line in given]


@pytest.mark.parametrize("number", [1, 3, 4, 5, 63, 64, 1023, 4096, 4097, 9999])
def test_any_number_of_lines_is_one_commit(path: Path, number: int) -> None:
    given = [b"%d" % n for n in range(number)]
    with engine(path) as kept:
        kept.commit([batch(*given)])
        assert lines(path) == given
        assert ask(path, "SELECT max(id) FROM lines") == [(number,)]


def test_the_view_shows_times_and_text(path: Path) -> None:
    with engine(path) as kept:
        kept.commit([batch("tschüß".encode(), received=NOW), batch(b"b", received=0)])
        assert ask(path, "SELECT * FROM readable ORDER BY id") == [
            (1, "2023-11-14T22:13:20.123Z", "192.0.2.1:7", "tcp:[::1]:555", "tschüß"),
            (2, "1970-01-01T00:00:00.000Z", "192.0.2.1:7", "tcp:[::1]:555", "b"),
        ]


def test_an_id_is_never_used_twice_though_its_line_is_removed(path: Path) -> None:
    with engine(path, Retention(age=1), NOW + 10_000_000) as kept:
        kept.commit([batch(b"a", b"b")])
        while kept.tidy():
            pass
        assert lines(path) == []
        kept.commit([batch(b"c")])
        assert ask(path, "SELECT id, line FROM lines") == [(3, b"c")]
        while kept.tidy():
            pass
    with engine(path) as kept:
        kept.commit([batch(b"d")])
        assert ask(path, "SELECT id, line FROM lines") == [(4, b"d")]


def test_only_its_owner_and_group_may_read_the_file(path: Path) -> None:
    before = os.umask(0)
    try:
        with engine(path) as kept:
            kept.commit([batch(b"secret")])
            files = sorted(path.parent.iterdir())
            assert [each.name for each in files] == ["lines.db", "lines.db-shm", "lines.db-wal"]
            assert [each.stat().st_mode & 0o777 for each in files] == [0o640] * 3
    finally:
        os.umask(before)


def test_closing_leaves_one_file_that_holds_everything(path: Path) -> None:
    with engine(path) as kept:
        kept.commit([batch(b"a")])
    assert os.listdir(path.parent) == ["lines.db"]
    assert lines(path) == [b"a"]


def test_closing_while_another_reads_leaves_nothing_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_TIMEOUT", 0.05)
    with ExitStack() as reading:
        with engine(path) as kept:
            kept.commit([batch(b"a")])
            other = reading.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
            other.execute("BEGIN")
            assert other.execute("SELECT line FROM lines").fetchall() == [(b"a",)]
            kept.commit([batch(b"b")])
        assert other.execute("SELECT line FROM lines").fetchall() == [(b"a",)]
    with engine(path):
        assert lines(path) == [b"a", b"b"]


# After a crash


def copied(path: Path) -> Path:
    """Give what a crash at this moment would leave."""
    folder = path.parent / "copy"
    folder.mkdir()
    # In a process of its own, which takes no lock away.
    subprocess.run(["cp", path, f"{path}-wal", folder], check=True)
    return folder / path.name


def test_what_was_committed_is_there_when_it_was_never_closed(path: Path) -> None:
    with engine(path) as kept:
        kept.commit([batch(b"a")])
        kept.commit([batch(b"b")])
        crashed = copied(path)
    with engine(crashed) as again:
        again.commit([batch(b"c")])
        assert lines(crashed) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("missing", [1, 3000, 5000])
def test_a_commit_whose_end_is_missing_was_never_there(path: Path, missing: int) -> None:
    with engine(path) as kept:
        kept.commit([batch(b"whole" * 1000)])
        kept.commit([batch(b"torn" * 5000, b"torn")])
        crashed = copied(path)
    log = Path(f"{crashed}-wal")
    os.truncate(log, log.stat().st_size - missing)
    with engine(crashed) as again:
        again.commit([batch(b"next")])
        assert lines(crashed) == [b"whole" * 1000, b"next"]


# What keeps it from starting


def refused(path: Path) -> str:
    """Open what can't be opened; give what is said of it, behind its name."""
    with pytest.raises(CannotStart) as told:
        SQLite(str(path)).open()
    said = str(told.value)
    assert "\n" not in said
    return said.removeprefix(f"store {path}: ")


def test_what_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"precious notes, and no database\n" * 200)
    assert refused(path) == "the file is no database"
    assert path.read_bytes() == b"precious notes, and no database\n" * 200


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    with engine(path):
        pass
    ask(path, "PRAGMA user_version=3")
    before = path.read_bytes()
    assert refused(path) == "its schema has version 3, this program knows 2: use a newer one"
    assert path.read_bytes() == before


def test_the_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    ask(path, "CREATE TABLE recipes(name TEXT)")
    before = path.read_bytes()
    assert refused(path) == "it is the database of another program"
    assert path.read_bytes() == before


def test_what_was_refused_is_not_held_open(path: Path) -> None:
    ask(path, "CREATE TABLE recipes(name TEXT)")
    engine_ = SQLite(str(path))
    with pytest.raises(CannotStart):
        engine_.open()
    held = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.exists()]
    assert path not in held


def test_the_database_of_another_program_is_refused_whatever_its_version(path: Path) -> None:
    ask(path, "CREATE TABLE recipes(name TEXT)")
    ask(path, "PRAGMA user_version=1")
    assert refused(path) == "it is the database of another program"


@pytest.mark.parametrize(
    "made", ["CREATE TABLE lines(name TEXT)", "CREATE VIEW lines AS SELECT 1 AS id", "SELECT 1"]
)
def test_what_has_the_version_but_not_the_table_is_refused(path: Path, made: str) -> None:
    ask(path, made)
    ask(path, "PRAGMA user_version=1")
    before = path.read_bytes()
    assert refused(path) == "it is the database of another program"
    assert path.read_bytes() == before


def test_what_somebody_has_added_to_a_store_is_no_hindrance(path: Path) -> None:
    with engine(path):
        ask(path, "CREATE INDEX times ON lines(received)")
        ask(path, "ALTER TABLE lines ADD COLUMN note TEXT")
    with engine(path) as kept:
        kept.commit([batch(b"a")])
    assert lines(path) == [b"a"]


def test_a_link_to_a_database_is_as_good_as_its_name(path: Path) -> None:
    link = path.parent / "link.db"
    link.symlink_to(path)
    with engine(link) as kept:
        kept.commit([batch(b"a")])
    assert lines(path) == [b"a"]


def test_an_empty_file_is_made_a_database(path: Path) -> None:
    path.touch()
    with engine(path) as kept:
        kept.commit([batch(b"a")])
    assert lines(path) == [b"a"]


def test_a_second_server_on_the_same_file_is_refused_and_the_first_goes_on(path: Path) -> None:
    with engine(path) as kept:
        assert refused(path) == "another server is using it"
        kept.commit([batch(b"a")])
        assert lines(path) == [b"a"]
    with engine(path):
        pass


def test_after_a_refusal_the_file_can_be_opened_by_whoever_puts_it_right(path: Path) -> None:
    path.write_bytes(b"no database" * 100)
    assert refused(path) == "the file is no database"
    path.unlink()
    with engine(path) as kept:
        kept.commit([batch(b"a")])


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert refused(tmp_path / "none" / "lines.db") == "No such file or directory"


def test_what_cannot_be_printed_is_escaped(tmp_path: Path) -> None:
    with pytest.raises(CannotStart) as told:
        SQLite(f"{tmp_path}/no\n\x1b[31m\udcffü/lines.db").open()
    said = f"store {tmp_path}/no\\n\\x1b[31m\\udcffü/lines.db: No such file or directory"
    assert str(told.value) == said


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    assert refused(tmp_path) == "it is no file, but a folder or a device"


def test_a_pipe_and_a_device_are_no_store_and_are_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null"), Path("/dev/full")):
        assert refused(path) == "it is no file, but a folder or a device"


def test_a_path_is_one_of_the_folder_in_which_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as twistd's --rundir."""
    made = SQLite(":memory:")
    monkeypatch.chdir(tmp_path)
    made.open()
    monkeypatch.chdir("/")
    made.commit([batch(b"a")])
    made.close()
    assert lines(tmp_path / ":memory:") == [b"a"]


def test_a_lock_that_another_process_holds_at_the_start_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_TIMEOUT", 0.05)
    with engine(path):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert refused(path) == "another process holds the write lock"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that `closed` can make unwritable, to root too."""
    made = tmp_path / "folder"
    if os.geteuid():
        made.mkdir()
        yield made
        made.chmod(0o770)
        return
    with disks.inMemory(made, 1024) as problem:
        if problem:
            pytest.skip(f"nothing is read-only to root here: {problem}")
        yield made


def closed(folder: Path) -> None:
    """Let nothing in the folder be written."""
    if os.geteuid():
        for each in folder.iterdir():
            each.chmod(0o440)
        folder.chmod(0o550)
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def test_what_is_read_only_is_told(folder: Path) -> None:
    with engine(folder / "lines.db") as kept:
        kept.commit([batch(b"a")])
    closed(folder)
    for name in ("lines.db", "new.db"):
        assert refused(folder / name) in ("Read-only file system", "Permission denied")


# What makes a commit fail


def failure(kept: SQLite, *given: bytes) -> tuple[str, bool]:
    """Commit what can't be committed; give the reason, and whether it may work later."""
    with pytest.raises(StoreError) as told:
        kept.commit([batch(*given)])
    return told.value.reason, told.value.retry


def test_a_lock_held_too_long_fails_a_commit_and_when_it_is_gone_all_is_well(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_TIMEOUT", 0.05)
    with engine(path) as kept, closing(sqlite3.connect(path, isolation_level=None)) as other:
        kept.commit([batch(b"a")])
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            assert failure(kept, b"b") == ("another process holds the write lock", True)
        other.execute("ROLLBACK")
        kept.commit([batch(b"c")])
        assert lines(path) == [b"a", b"c"]


def test_a_lock_held_shortly_is_waited_for(path: Path) -> None:
    with engine(path) as kept, ExitStack() as opened:
        other = opened.enter_context(
            closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False))
        )
        other.execute("BEGIN IMMEDIATE")
        releasing = Timer(0.1, lambda: other.execute("ROLLBACK"))
        opened.callback(releasing.join)
        releasing.start()
        kept.commit([batch(b"a")])
        assert lines(path) == [b"a"]


def test_a_full_disk_rolls_a_commit_back_whole_and_freed_space_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    with disks.inMemory(folder, 1024) as problem:
        if problem:
            pytest.skip(f"no disk to fill: {problem}")
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(400_000))
        path = folder / "lines.db"
        with engine(path) as kept:
            kept.commit([batch(b"a")])
            for _ in range(3):
                assert failure(kept, b"small", b"big" * 250_000) == ("disk full", True)
                assert lines(path) == [b"a"]
            ballast.unlink()
            kept.commit([batch(b"b", b"c" * 200_000)])
            assert lines(path) == [b"a", b"b", b"c" * 200_000]


def test_an_io_error_fails_for_good(path: Path) -> None:
    with engine(path) as kept:
        kept.commit([batch(b"a")])
        most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, most[1]))
        try:
            assert failure(kept, b"x" * (1 << 18)) == ("I/O error", False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert lines(path) == [b"a"]


def test_a_corrupt_database_does_not_start(path: Path) -> None:
    with engine(path) as kept:
        kept.commit([batch(*[b"x" * 100] * 1000)])
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xaa" * (path.stat().st_size - 4096))
    assert refused(path).startswith("the database is corrupt")


def test_what_finds_no_memory_fails_for_now_and_is_not_stored(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def insert(database: sqlite3.Connection, values: list[object]) -> None:
        raise MemoryError

    with engine(path) as kept:
        kept.commit([batch(b"a")])
        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "insert", insert)
            assert failure(kept, b"b") == ("out of memory", True)
        kept.commit([batch(b"c")])
        assert lines(path) == [b"a", b"c"]


def test_another_that_writes_meanwhile_makes_a_failed_commit_unknown(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frames are where those of the commit were; nothing of them may be spoilt."""

    def insert(database: sqlite3.Connection, values: list[object]) -> None:
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE lines SET peer = 'x'")
        raise sqlite3.OperationalError("disk I/O error")

    with engine(path) as kept:
        kept.commit([batch(b"a")])
        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "insert", insert)
            with pytest.raises(StoreError, match="unknown: disk I/O error"):
                kept.commit([batch(b"b")])
        crashed = copied(path)
    with engine(crashed):
        assert ask(crashed, "SELECT peer, line FROM lines") == [("x", b"a")]


def test_a_name_that_is_no_text_fails_and_leaves_nothing_behind(path: Path) -> None:
    with engine(path) as kept:
        with pytest.raises(Exception, match="surrogates"):
            kept.commit([batch(b"a", listener="\udcff")])
        kept.commit([batch(b"b")])
        assert lines(path) == [b"b"]


def test_a_schema_that_is_gone_fails_for_good(path: Path) -> None:
    with engine(path) as kept:
        ask(path, "ALTER TABLE lines RENAME TO mine")
        assert failure(kept, b"a") == ("no such table: lines", False)


@pytest.mark.parametrize(
    "suffix", ["", "-wal", "-shm"], ids=["the database", "the log", "the index"]
)
@pytest.mark.parametrize("how", ["renamed", "deleted", "replaced"])
def test_what_goes_to_a_file_nobody_will_find_is_not_stored(
    path: Path, suffix: str, how: str
) -> None:
    file = Path(f"{path}{suffix}")
    with engine(path) as kept:
        kept.commit([batch(b"a")])
        if how == "deleted":
            file.unlink()
        else:
            file.rename(path.parent / "elsewhere")
        if how == "replaced":
            file.touch()
        said = "was replaced" if how == "replaced" else "was renamed or deleted"
        for _ in range(2):
            assert failure(kept, b"b") == (f"{file} {said}", False)


@pytest.mark.parametrize("suffix", ["", "-wal"], ids=["the database", "the log"])
def test_what_somebody_else_made_garbage_of_is_not_written_to(path: Path, suffix: str) -> None:
    with engine(path) as kept:
        kept.commit([batch(*[b"x" * 100] * 1000)])
    with engine(path) as kept:
        kept.commit([batch(b"a")])
        with open(f"{path}{suffix}", "r+b") as file:
            # Behind the header of the database, in pages that the engine has in memory.
            file.seek(4096 if suffix == "" else 0)
            file.write(b"\xaa" * 8192)
        said = f"{path}-wal was overwritten" if suffix else "the database is corrupt"
        for _ in range(2):
            assert failure(kept, b"b") == (said, False)


def test_what_others_do_to_the_log_without_its_index_harms_nothing(path: Path) -> None:
    with engine(path) as kept:
        kept.commit([batch(b"a")])
        kept.commit([batch(b"b")])
        os.unlink(f"{path}-shm")
        # In a process of its own, which does not know of this one's index.
        asked = (str(path), "PRAGMA wal_checkpoint(TRUNCATE)")
        subprocess.run([sys.executable, "-c", OTHER, *asked], check=True)
        assert failure(kept, b"c") == (f"{path}-shm was replaced", False)
    with engine(path):
        assert lines(path) == [b"a", b"b"]


OTHER = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall()"


@pytest.mark.parametrize("number", [1 << 30, 0xF0000000])
def test_an_index_that_says_all_is_done_does_not_have_the_log_deleted(
    path: Path, number: int
) -> None:
    with engine(path) as kept:
        kept.commit([batch(b"a")])
        with open(f"{path}-shm", "r+b") as file:
            file.seek(96)  # nBackfill
            file.write(number.to_bytes(4, sys.byteorder))
    assert lines(path) == [b"a"]


def test_an_index_that_says_all_is_done_is_found_when_the_log_is_written_into_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT", 1)
    with engine(path) as kept:
        kept.commit([batch(b"a")])
        with open(f"{path}-shm", "r+b") as file:
            file.seek(96)
            file.write((1 << 30).to_bytes(4, sys.byteorder))
        with pytest.raises(StoreError, match="-shm was overwritten"):
            kept.tidy()
    assert lines(path) == [b"a"]


@pytest.mark.parametrize("suffix", ["", "-wal"], ids=["the database", "the log"])
def test_what_was_truncated_is_not_written_to(path: Path, suffix: str) -> None:
    with engine(path) as kept:
        kept.commit([batch(*[b"x" * 100] * 1000)])
    with engine(path) as kept:
        for _ in range(3):
            kept.commit([batch(b"a")])
        os.truncate(f"{path}{suffix}", 4096)
        said = f"{path}-wal was truncated" if suffix else "the database is corrupt"
        for _ in range(2):
            assert failure(kept, b"b") == (said, False)


def test_another_program_may_truncate_a_log_that_was_written_back(path: Path) -> None:
    with engine(path) as kept:
        kept.commit([batch(*[b"x" * 1000] * 5000)])
        kept.tidy()
        assert ask(path, "PRAGMA wal_checkpoint(TRUNCATE)") == [(0, 0, 0)]
        kept.commit([batch(b"after")])
        assert len(lines(path)) == 5001


def test_another_program_may_change_the_database(path: Path) -> None:
    with engine(path) as kept:
        kept.commit([batch(b"a", b"b")])
        with closing(sqlite3.connect(path)) as database:
            database.execute("DELETE FROM lines WHERE id = 1")
            database.commit()
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.execute("VACUUM")
        kept.commit([batch(b"c")])
        assert lines(path) == [b"b", b"c"]


def test_the_log_is_written_into_the_file_before_it_is_long(path: Path) -> None:
    log = Path(f"{path}-wal")
    with engine(path) as kept:
        for number in range(20):
            kept.commit([batch(*[b"x" * 1000] * 1000)])
            kept.tidy()
            assert log.stat().st_size < sqlite.CHECKPOINT * 1.5
            assert path.stat().st_size > number * 1_000_000 - sqlite.CHECKPOINT


def test_a_reader_that_keeps_the_log_long_is_not_waited_for(path: Path) -> None:
    log = Path(f"{path}-wal")
    with engine(path) as kept:
        kept.commit([batch(b"first")])
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM lines").fetchone() == (1,)
            for _ in range(10):
                kept.commit([batch(*[b"x" * 1000] * 1000)])
                kept.tidy()
            long = log.stat().st_size
            assert long > 2 * sqlite.CHECKPOINT
        kept.commit([batch(*[b"x" * 1000] * 5000)])
        kept.tidy()
        long = log.stat().st_size
        kept.commit([batch(*[b"x" * 1000] * 5000)])
        assert log.stat().st_size == long  # it has been begun again
        assert len(lines(path)) == 20_001


def test_a_commit_that_failed_half_way_leaves_nothing_behind(path: Path) -> None:
    """Some of its statements have been executed by then."""
    with engine(path) as kept:
        kept.commit([batch(b"a")])
        ask(
            path,
            "CREATE TRIGGER refuse BEFORE INSERT ON lines WHEN NEW.line = x'ff' "
            "BEGIN SELECT raise(ABORT, 'not this one'); END",
        )
        assert failure(kept, *[b"b"] * 5000, b"\xff") == ("not this one", False)
        assert lines(path) == [b"a"]
        ask(path, "DROP TRIGGER refuse")  # takes the write lock, which is free
        kept.commit([batch(b"c")])
        assert lines(path) == [b"a", b"c"]


# Retention


def steps(kept: SQLite, path: Path) -> list[int]:
    """Tidy up; give how many lines went in each step."""
    went = []
    before = len(lines(path))
    while kept.tidy():
        after = len(lines(path))
        went.append(before - after)
        before = after
    assert len(lines(path)) == before
    return went


def test_without_retention_nothing_is_ever_removed(path: Path) -> None:
    with engine(path, now=NOW * 2) as kept:
        kept.commit([batch(b"a", received=0)])
        assert not kept.tidy()
        assert lines(path) == [b"a"]


def test_lines_are_removed_when_they_are_too_old_and_not_before(path: Path) -> None:
    old, young = NOW - 10_000_001, NOW - 9_999_999
    with engine(path, Retention(age=10)) as kept:
        assert steps(kept, path) == []
        kept.commit([batch(b"a", b"b", received=old), batch(b"c", received=young)])
        assert steps(kept, path) == [2]
        assert lines(path) == [b"c"]


def test_old_lines_go_in_small_steps(path: Path) -> None:
    old = [batch(*[b"x"] * 100, received=0)] * 100
    with engine(path, Retention(age=10)) as kept:
        kept.commit(old)
        kept.commit([batch(b"young")])
        # The latest commit was a small one; 10,000 lines are removed none the less.
        assert steps(kept, path) == [STEP] * 10
        assert lines(path) == [b"young"]


def test_a_step_gets_ahead_of_what_comes_in(path: Path) -> None:
    with engine(path, Retention(age=10)) as kept:
        kept.commit([batch(*[b"x"] * 10_000, received=0)])
        kept.commit([batch(*[b"y"] * 2000)])
        assert kept.tidy()
        assert len(lines(path)) == 12_000 - 2 * 2000


def used(path: Path) -> int:
    """Give the bytes of the database that are in use."""
    [(pages,)], [(free,)] = ask(path, "PRAGMA page_count"), ask(path, "PRAGMA freelist_count")
    assert isinstance(pages, int) and isinstance(free, int)
    return (pages - free) * 4096


def test_the_oldest_lines_are_removed_when_they_take_up_too_much(path: Path) -> None:
    size = 1 << 20
    with engine(path, Retention(size=size)) as kept:
        for number in range(20):
            kept.commit([batch(*[b"%06d%094d" % (number, n) for n in range(1000)])])
            steps(kept, path)
            assert used(path) <= size
        there = lines(path)
    newest = [b"%06d%094d" % (number, n) for number in range(20) for n in range(1000)]
    assert there == newest[-len(there) :]
    assert len(there) * 100 > size // 2  # and no more than that


def test_no_more_is_removed_than_takes_up_too_much(path: Path) -> None:
    size = 10 << 20
    with engine(path, Retention(size=size)) as kept:
        for _ in range(20):
            kept.commit([batch(*[b"x" * 60_000] * 10)])
        steps(kept, path)
        assert size // 2 < used(path) <= size


def test_no_more_short_lines_are_removed_than_take_up_too_much(path: Path) -> None:
    size = 1 << 20
    with engine(path, Retention(size=size)) as kept:
        for number in range(8):
            kept.commit([batch(*[b"%d" % n for n in range(8000)], received=number)])
            steps(kept, path)
            assert used(path) <= size
            if number > 2:
                assert used(path) > size * 9 // 10


def test_the_space_of_removed_lines_is_used_again(path: Path) -> None:
    def store(kept: SQLite) -> int:
        for _ in range(10):
            kept.commit([batch(*[b"x" * 100] * 1000)])
            steps(kept, path)
        [(pages,)] = ask(path, "PRAGMA page_count")
        assert isinstance(pages, int)
        return pages

    with engine(path, Retention(size=1 << 19)) as kept:
        first = store(kept)
        assert [store(kept) for _ in range(3)] == [first] * 3


def test_both_limits_hold(path: Path) -> None:
    with engine(path, Retention(age=10, size=1 << 20)) as kept:
        kept.commit([batch(b"old", received=0), batch(b"x" * 100)])
        steps(kept, path)
        assert lines(path) == [b"x" * 100]
        kept.commit([batch(*[b"y" * 1000] * 3000)])
        assert sum(steps(kept, path)) > 1000
        assert used(path) <= 1 << 20


def test_removing_does_not_wait_for_a_lock_and_is_done_later(path: Path) -> None:
    with engine(path, Retention(age=1), NOW + 10_000_000) as kept:
        kept.commit([batch(b"a")])
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            with pytest.raises(StoreError) as told:
                kept.tidy()
            assert told.value.retry
            assert time.monotonic() - began < sqlite.LOCK_TIMEOUT / 2
            other.execute("ROLLBACK")
        assert steps(kept, path) == [1]
