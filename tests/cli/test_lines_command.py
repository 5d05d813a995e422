"""`sockservice lines`: reading a store back."""

import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sockservice.cli import main
from sockservice.cli.lines import lines as command
from sockservice.cli.lines import pages
from sockservice.store.engine import Batch, Retention
from sockservice.store.reader import PAGE, PAGE_BYTES, Query, Reader
from sockservice.store.sqlite import SQLite
from tests.conftest import PATIENCE, SCRIPTS, Child, Children

#: 2023-11-14T22:13:20Z, in microseconds
START = 1_700_000_000_000_000
SECOND = 1_000_000
BATCHES = [
    Batch(START, "192.0.2.1:7", "tcp:192.0.2.9:555", [b"one", b"two"]),
    Batch(START + SECOND, "192.0.2.11:7", "tcp:192.0.2.9:555", [b"three"]),
    Batch(START + SECOND, "192.0.2.1:8", "udp:192.0.2.9:555", [b"f\xc3\xbcnf", b"\xff\0\x1b[2J"]),
    Batch(START + 2 * SECOND + 123_456, "unix:pid=7,uid=0", "unix:/run/s", [b""]),
]
EVERY = [line for batch in BATCHES for line in batch.lines]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLite]:
    """A store with six lines, still being written."""
    made = SQLite(str(tmp_path / "lines.db"))
    made.open()
    made.commit(BATCHES)
    yield made
    made.close()


@pytest.fixture
def path(tmp_path: Path, store: SQLite) -> str:
    return str(tmp_path / "lines.db")


def called(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["lines", *arguments])


def ended(arguments: list[str]) -> None:
    """Run the command in this process, to its end."""
    with pytest.raises(SystemExit) as end:
        command.main(arguments, standalone_mode=False)
    assert end.value.code == 0


def printed(*arguments: str) -> list[bytes]:
    """Give the lines that the command prints."""
    done = called(*arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    *found, last = done.stdout_bytes.split(b"\n")
    assert last == b""
    return found


def refused(*arguments: str) -> str:
    """Give the one line that is said where nothing can be read."""
    done = called(*arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert (done.stderr[:7], done.stderr.count("\n"), done.stderr[-1]) == ("Error: ", 1, "\n")
    return done.stderr[7:-1]


# What is printed


def test_lines_are_printed_in_order_as_the_bytes_they_are(path: str) -> None:
    assert printed(path) == EVERY


def test_a_store_is_named_as_the_service_names_it_too(path: str) -> None:
    assert printed(f"sqlite:{path}") == EVERY


def test_a_store_that_nobody_writes_is_read_as_well(tmp_path: Path) -> None:
    # With all that means something in a URI.
    path = tmp_path / "a? b#c%20&mode=rw.db"
    store = SQLite(str(path))
    store.open()
    store.commit(BATCHES)
    store.close()
    assert printed(str(path)) == EVERY


def test_an_empty_store_prints_nothing(tmp_path: Path) -> None:
    store = SQLite(str(tmp_path / "lines.db"))
    store.open()
    store.close()
    for options in [[], ["--since", "2020-01-01"], ["--limit", "5"]]:
        assert printed(str(tmp_path / "lines.db"), *options) == []


def test_json_has_all_columns(path: str) -> None:
    *objects, last = [json.loads(line) for line in printed(path, "--json")]
    assert last == {"lines": 6, "last": 6, "status": 0, "why": None}
    assert objects[0] == {
        "id": 1,
        "received": "2023-11-14T22:13:20.000000Z",
        "peer": "192.0.2.1:7",
        "listener": "tcp:192.0.2.9:555",
        "line": "one",
    }
    assert [each["id"] for each in objects] == [1, 2, 3, 4, 5, 6]
    assert objects[3]["line"] == "fünf"
    # What is no text is in base64, under a name of its own.
    assert (objects[4]["line_base64"], "line" in objects[4]) == ("/wAbWzJK", False)
    assert objects[5]["received"] == "2023-11-14T22:13:22.123456Z"
    assert objects[5]["line"] == ""


def test_on_a_terminal_what_could_command_it_is_escaped(path: str, opened: ExitStack) -> None:
    ours, theirs = pty.openpty()
    opened.callback(os.close, ours)
    with pytest.MonkeyPatch.context() as patched, open(theirs, "w") as terminal:
        patched.setattr(sys, "stdout", terminal)
        ended([path])
        seen = os.read(ours, 1000)
    assert seen == "one\r\ntwo\r\nthree\r\nfünf\r\n\\xff\\x00\\x1b[2J\r\n\r\n".encode()


def test_more_than_a_page_is_printed_whole_and_in_order(path: str, store: SQLite) -> None:
    many = [b"%d" % n for n in range(3 * PAGE)]
    store.commit([Batch(START, "192.0.2.1:7", "", many)])
    assert printed(path) == EVERY + many
    assert printed(path, "--limit", str(PAGE + 7)) == (EVERY + many)[: PAGE + 7]
    assert printed(path, "--after", "6", "--limit", str(PAGE)) == many[:PAGE]


# Which are printed


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(["--after", "0"], EVERY, id="after 0"),
        pytest.param(["--after", "4"], EVERY[4:], id="after"),
        pytest.param(["--after", "6"], [], id="after the last"),
        pytest.param(["--limit", "0"], [], id="limit 0"),
        pytest.param(["--limit", "2"], EVERY[:2], id="limit"),
        pytest.param(["--limit", "99"], EVERY, id="limit beyond the end"),
        pytest.param(["--after", "1", "--limit", "2"], EVERY[1:3], id="after and limit"),
        pytest.param(["--peer", "192.0.2.1"], [EVERY[n] for n in (0, 1, 3, 4)], id="address"),
        pytest.param(["--peer", "192.0.2.1:7"], EVERY[:2], id="address and port"),
        pytest.param(["--peer", "192.0.2.11"], EVERY[2:3], id="a longer address"),
        pytest.param(["--peer", "192.0.2"], [], id="part of an address"),
        pytest.param(["--peer", "%"], [], id="no pattern"),
        pytest.param(["--peer", "unix:pid=7,uid=0"], EVERY[5:], id="a process"),
        pytest.param(["--since", "2023-11-14T22:13:21Z"], EVERY[2:], id="since"),
        pytest.param(["--since", "2023-11-14T22:13:20Z"], EVERY, id="since the first"),
        pytest.param(["--since", "1970-01-01T00:00Z"], EVERY, id="since long ago"),
        pytest.param(["--since", "2030-01-01T00:00Z"], [], id="since the future"),
        pytest.param(["--since", "2023-11-14T23:13:21+01:00"], EVERY[2:], id="since, elsewhere"),
        pytest.param(["--since", "2023-11-14T22:13:22.123456Z"], EVERY[5:], id="since, exactly"),
        pytest.param(["--since", "2023-11-14T22:13:22.123457Z"], [], id="since just after"),
        pytest.param(["--until", "2023-11-14T22:13:21Z"], EVERY[:2], id="until"),
        pytest.param(["--until", "2023-11-14T22:13:20Z"], [], id="until the first"),
        pytest.param(["--until", "2030-01-01T00:00Z"], EVERY, id="until the future"),
        pytest.param(
            ["--since", "2023-11-14T22:13:21Z", "--until", "2023-11-14T22:13:22Z"],
            EVERY[2:5],
            id="since and until",
        ),
        pytest.param(
            ["--since", "2023-11-14T22:13:21Z", "--after=3", "--peer=192.0.2.1", "--limit=1"],
            EVERY[3:4],
            id="all together",
        ),
        pytest.param(["--after", "5", "--since", "2023-11-14T22:13:20Z"], EVERY[5:], id="later id"),
    ],
)
def test_only_what_is_asked_for_is_printed(
    path: str, options: list[str], expected: list[bytes]
) -> None:
    assert printed(path, *options) == expected


@pytest.mark.parametrize(
    ("ago", "expected"),
    [("30s", 1), ("2m", 2), ("120m", 3), ("3h", 3), ("2d", 4), ("9" * 30 + "d", 4)],
)
def test_a_time_may_be_so_long_ago(tmp_path: Path, ago: str, expected: int) -> None:
    now = time.time_ns() // 1000
    store = SQLite(str(tmp_path / "lines.db"))
    store.open()
    ages = [86400, 3600, 100, 10]
    store.commit([Batch(now - age * SECOND, "", "", [b"%d" % age]) for age in ages])
    store.close()
    found = printed(str(tmp_path / "lines.db"), "--since", ago)
    assert found == [b"%d" % age for age in ages[4 - expected :]]


def test_help_says_how_a_time_is_written() -> None:
    help = called("--help").stdout
    assert "--since TIME" in help
    for written in ["2026-11-22T17:30:00Z", "90s, 10m, 2h, 7d"]:
        assert written in " ".join(help.split())


def test_numbers_of_any_length_are_taken(path: str) -> None:
    assert printed(path, "--limit", "9" * 30) == EVERY
    assert printed(path, "--after", "9" * 30) == []


def test_a_time_without_a_zone_is_one_of_this_machine(path: str) -> None:
    local = datetime.fromtimestamp(START // SECOND + 1).isoformat()
    assert printed(path, "--since", local) == EVERY[2:]


@settings(max_examples=30)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=40),
    st.sets(st.integers(0, 39)),
    st.integers(-60, 60),
)
@example([0] * 10, {0, 9}, 0)
@example([9, -9, 9, -9, 9], set(), 5)
def test_since_finds_every_line_though_ids_have_gaps_and_the_clock_was_set_back(
    tmp_path_factory: pytest.TempPathFactory, pauses: list[int], gone: set[int], since: int
) -> None:
    path = tmp_path_factory.mktemp("store") / "lines.db"
    store = SQLite(str(path))
    store.open()
    received = [START + sum(pauses[: n + 1]) * SECOND for n in range(len(pauses))]
    store.commit([Batch(at, "", "", [b"%d" % n]) for n, at in enumerate(received)])
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executemany("DELETE FROM lines WHERE id = ?", [(n + 1,) for n in gone])
    moment = datetime.fromtimestamp(START // SECOND + since, UTC)
    expected = [
        b"%d" % n for n, at in enumerate(received) if n not in gone and at >= START + since * SECOND
    ]
    assert printed(str(path), "--since", moment.isoformat()) == expected


def test_what_was_removed_is_not_printed(tmp_path: Path) -> None:
    path = tmp_path / "lines.db"
    store = SQLite(str(path), Retention(age=1.5), lambda: START / SECOND + 3)
    store.open()
    store.commit(BATCHES)
    while store.tidy():
        pass
    store.close()
    assert printed(str(path)) == EVERY[5:]
    assert printed(str(path), "--after", "2") == EVERY[5:]


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("[::1]", [b"six"]),
        ("[::1]:5000", [b"six"]),
        pytest.param("::1", [b"six"]),
        ("127.0.0.1", [b"tls"]),
        ("127.0.0.1:5000 (CN=alice)", [b"tls"]),
        pytest.param("127.0.0.1:5000", [b"tls"]),
        ("0:0::1", [b"six"]),
        ("::", []),
        ("fe80::1%eth0", [b"scoped"]),
        ("::ffff:127.0.0.1", [b"tls"]),
        ("CN=alice", [b"tls"]),
        ("CN=ali", []),
        ("alice)", []),
        ("CN=a:b:c", [b"colons"]),
        ("unix:pid=7", [b""]),
        ("unix", [b""]),
    ],
)
def test_a_peer_is_named_with_or_without_its_port(
    path: str, store: SQLite, peer: str, expected: list[bytes]
) -> None:
    store.commit(
        [
            Batch(START, "[::1]:5000", "", [b"six"]),
            Batch(START, "127.0.0.1:5000 (CN=alice)", "", [b"tls"]),
            Batch(START, "[fe80::1%eth0]:5000", "", [b"scoped"]),
            Batch(START, "192.0.2.3:5000 (CN=a:b:c)", "", [b"colons"]),
        ]
    )
    assert printed(path, "--peer", peer) == expected


# What can't be


@pytest.mark.parametrize("option", ["--since", "--until"])
@pytest.mark.parametrize("wrong", ["yesterday", "2023-13-01", ""])
def test_what_is_no_time_is_a_usage_error(path: str, option: str, wrong: str) -> None:
    done = called(path, option, wrong)
    assert done.exit_code == 2
    assert f"{wrong!r} is no time like" in done.stderr


@pytest.mark.parametrize("options", [["--after", "-1"], ["--limit", "-1"], ["--limit", "x"], ["x"]])
def test_what_cannot_be_asked_for_is_a_usage_error(path: str, options: list[str]) -> None:
    assert called(path, *options).exit_code == 2


def test_a_store_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "lines.db"
    done = called(str(path))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"Error: {path}: there is no such store\n"
    assert not path.exists()


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_bytes(b"no database\n" * 100)
    done = called(str(path))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"Error: {path}: file is not a database\n"


@pytest.mark.parametrize("version", [0, 2])
def test_a_database_that_is_no_store_is_told(tmp_path: Path, version: int) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE recipes(name TEXT)")
        database.execute(f"PRAGMA user_version={version}")
    done = called(str(path))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"Error: {path}: it is the database of another program\n"


def test_a_newer_schema_is_told(path: str, tmp_path: Path, store: SQLite) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version=3")
    said = "its schema has version 3, this program knows 2: use a newer one"
    assert refused(path) == f"{path}: {said}"


@pytest.mark.parametrize("kind", ["folder", "pipe", "/dev/zero"])
def test_what_is_no_file_is_told_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    assert refused(str(path)) == f"{path}: it is no file, but a folder or a device"


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lines.db"
    path.touch()
    assert refused(str(path)) == f"{path}: it is empty, and no store"


def test_no_name_is_a_usage_error() -> None:
    assert called("sqlite:").exit_code == 2


def test_a_damaged_store_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lines.db"
    store = SQLite(str(path))
    store.open()
    store.commit([Batch(START, "", "", [b"x" * 1000] * 1000)])
    store.close()
    os.truncate(path, 500_000)
    assert refused(str(path)) == f"{path}: database disk image is malformed"


def test_a_name_is_escaped_where_it_could_command_the_terminal(tmp_path: Path) -> None:
    assert refused(f"{tmp_path}/\x1b[2J\n") == f"{tmp_path}/\\x1b[2J\\n: there is no such store"


def test_a_log_that_was_taken_away_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lines.db"
    store = SQLite(str(path))
    store.open()
    store.close()
    (tmp_path / "lines.db-shm").write_bytes(bytes(32768))
    assert refused(str(path)).startswith(f"{path}: {path}-wal, which may hold lines, is missing")
    (tmp_path / "lines.db-shm").unlink()
    assert printed(str(path)) == []


# With no right but to read

# Drops its rights when all is imported: the modules may lie where only root may look.
UNPRIVILEGED = """
import os, sys
from sockservice.cli import lines, main
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
main(["lines", *sys.argv[1:]], prog_name="sockservice")
"""


class Locked:
    """A folder with a store, where nobody may write any more."""

    def __init__(self, children: Children, opened: ExitStack) -> None:
        self._children = children
        # Others may not look into the folders of the tests.
        self.folder = Path(opened.enter_context(TemporaryDirectory()))
        self.path = self.folder / "lines.db"
        opened.callback(self.folder.chmod, 0o700)

    def read(self, mode: int = 0o444) -> "subprocess.CompletedProcess[bytes]":
        for each in self.folder.iterdir():
            each.chmod(mode)
        self.folder.chmod(0o555)
        names = sorted(self.folder.iterdir())
        # Whoever measures what is run could not write down what this child did.
        bare = {name: value for name, value in os.environ.items() if "COV" not in name}
        done = self._children.run("python", "-c", UNPRIVILEGED, str(self.path), env=bare)
        assert sorted(self.folder.iterdir()) == names
        self.folder.chmod(0o700)
        return done


@pytest.fixture
def locked(children: Children, opened: ExitStack) -> Locked:
    return Locked(children, opened)


def test_reading_takes_no_right_to_write(locked: Locked, store: SQLite, path: str) -> None:
    every = (0, b"\n".join([*EVERY, b""]), b"")

    def outcome() -> tuple[int, bytes, bytes]:
        done = locked.read()
        return done.returncode, done.stdout, done.stderr

    # What a process leaves that was killed.
    for suffix in ["", "-wal", "-shm"]:
        shutil.copy(path + suffix, f"{locked.path}{suffix}")
    assert outcome() == every
    # While another writes.
    server = SQLite(str(locked.path))
    server.open()
    assert outcome() == every
    # When it has ended, for good or with an empty log.
    server.close()
    assert outcome() == every
    Path(f"{locked.path}-wal").touch()
    assert outcome() == every


def test_a_log_without_its_index_is_told(locked: Locked, store: SQLite, path: str) -> None:
    for suffix in ["", "-wal"]:
        shutil.copy(path + suffix, f"{locked.path}{suffix}")
    done = locked.read()
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    assert b"run this as the user of the service" in done.stderr


def test_a_store_that_may_not_be_read_is_told(locked: Locked, store: SQLite, path: str) -> None:
    store.close()
    shutil.copy(path, locked.path)
    done = locked.read(mode=0)
    said = f"no permission to read {locked.path}: run this as the user of the service"
    assert (done.returncode, done.stderr.decode()) == (1, f"Error: {locked.path}: {said}\n")


# While it changes


def test_a_reader_goes_on_when_a_server_starts_and_ends(tmp_path: Path) -> None:
    path = str(tmp_path / "lines.db")
    store = SQLite(path)
    store.open()
    store.close()
    with closing(Reader(path)) as reader:
        for last in range(0, 6, 2):
            query = Query(condition=" AND line = ?", values=(str(last).encode(),))
            assert reader.page(query, last) == ([], last)
            store = SQLite(path)
            store.open()
            assert reader.page(query, last) == ([], last)
            store.commit([Batch(START, "", "", [b"%d" % last])])
            assert reader.page(query, last) == ([(last + 1, b"%d" % last)], last + 1)
            store.commit([Batch(START, "", "", [b"%d" % last])])
            store.close()
            assert reader.page(query, last + 1) == ([(last + 2, b"%d" % last)], last + 2)


def test_a_page_holds_no_more_bytes_than_it_may(path: str, store: SQLite) -> None:
    store.commit([Batch(START, "", "", [b"x" * (PAGE_BYTES // 4)] * 20)])
    with closing(Reader(path)) as reader:
        found, last = reader.page(Query(), 6)
        assert (len(found), last) == (5, 11)
    assert len(printed(path)) == 26


def test_lines_removed_between_two_pages_are_passed_over(path: str, store: SQLite) -> None:
    with closing(Reader(path)) as reader, closing(sqlite3.connect(path)) as database:
        database.isolation_level = None
        assert reader.page(Query(), 0, limit=1)[0] == [(1, b"one")]
        database.execute("DELETE FROM lines WHERE id < 5")

        def wait() -> bool:
            store.commit(BATCHES[:1])
            return False

        found = pages(reader, Query(), 1, None, wait)
        assert next(found) == [(5, EVERY[4]), (6, EVERY[5])]
        database.execute("DELETE FROM lines")
        # There is one more look after the wait that says that it is the last.
        assert list(found) == [[(7, b"one"), (8, b"two")]]
        database.execute("DELETE FROM lines")
        assert list(pages(reader, Query(), 0, None)) == []


# Where it is printed


@pytest.mark.parametrize("options", [[], ["--json"], ["--follow"]])
def test_a_full_disk_is_told(
    path: str, store: SQLite, children: Children, options: list[str]
) -> None:
    with open("/dev/full", "wb") as full:
        done = children.run("sockservice", "lines", path, *options, stdout=full)
    said = b"Error: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_closed_standard_output_is_told(path: str, children: Children) -> None:
    done = children.run("/bin/sh", "-c", f"exec {SCRIPTS}/sockservice lines '{path}' >&- <&-")
    assert (done.returncode, done.stderr) == (1, b"Error: standard output is closed\n")


# Following


def test_following_prints_lines_as_they_are_stored(path: str, store: SQLite) -> None:
    reading, writing = os.pipe()
    with (
        pytest.MonkeyPatch.context() as patched,
        open(reading, "rb") as seen,
        open(writing, "w") as output,
    ):
        patched.setattr(sys, "stdout", output)
        arguments = [path, "--follow", "--after", "4", "--limit", "5"]
        following = Thread(target=ended, args=(arguments,), daemon=True)
        following.start()
        assert [seen.readline(), seen.readline()] == [EVERY[4] + b"\n", b"\n"]
        store.commit([Batch(START, "192.0.2.1:7", "", [b"seven", b"eight"])])
        assert [seen.readline(), seen.readline()] == [b"seven\n", b"eight\n"]
        assert following.is_alive()
        store.commit([Batch(START, "192.0.2.1:7", "", [b"nine", b"ten"])])
        assert seen.readline() == b"nine\n"
        following.join(PATIENCE)
        assert not following.is_alive()


def test_following_goes_on_until_it_is_ended(path: str, store: SQLite, children: Children) -> None:
    following = Child(children.start("sockservice", "lines", "--follow", path))
    following.until(rb"\xff\0\x1b\[2J\n\n$")
    for number in range(3):
        store.commit([Batch(START, "192.0.2.1:7", "", [b"more%d" % number])])
        following.until(b"more%d\n" % number)
    following.process.send_signal(signal.SIGTERM)
    assert following.end() == (143, b"9 lines, last id 9: terminated\n")
    assert following.output == b"\n".join([*EVERY, b"more0", b"more1", b"more2", b""])


def test_who_reads_no_further_ends_it_without_a_word(
    path: str, store: SQLite, children: Children
) -> None:
    store.commit([Batch(START, "", "", [b"x" * 1000] * 5000)])
    reading = Child(children.start("sockservice", "lines", path))
    reading.until(b"^one\n")
    assert reading.process.stdout is not None
    reading.process.stdout.close()
    assert reading.process.wait(PATIENCE) == 0
    assert reading.process.stderr is not None
    assert reading.process.stderr.read() == b""


def test_a_quiet_follower_ends_when_its_reader_has_gone(
    path: str, store: SQLite, children: Children
) -> None:
    following = Child(children.start("sockservice", "lines", "--follow", path))
    following.until(rb"\n\n$")
    assert following.process.stdout is not None
    following.process.stdout.close()
    assert following.process.wait(PATIENCE) == 0
    assert following.process.stderr is not None
    assert following.process.stderr.read() == b""


def test_an_interrupt_ends_it_without_a_word(path: str, store: SQLite, children: Children) -> None:
    following = Child(children.start("sockservice", "lines", "--follow", path))
    following.until(rb"\n\n$")
    following.process.send_signal(signal.SIGINT)
    assert following.end() == (130, b"6 lines, last id 6: interrupted\n")
    # Also while nobody reads what it has to print.
    store.commit([Batch(START, "", "", [b"x"] * 100_000)])
    reading = Child(children.start("sockservice", "lines", path))
    reading.until(rb"^one\n")
    reading.process.send_signal(signal.SIGINT)
    assert reading.process.wait(PATIENCE) == 130
    assert reading.process.stderr is not None
    said = reading.process.stderr.read()
    assert (told := re.fullmatch(rb"([\d,]+) lines, last id (\d+): interrupted\n", said)), said
    # The ids begin with 1, and what was written was a page, not whole, or several.
    assert int(told[1].replace(b",", b"")) == int(told[2]) > 6


def test_following_ends_when_the_time_is_past(path: str, store: SQLite, children: Children) -> None:
    done = children.run("sockservice", "lines", "--follow", "--until", "2023-11-14T22:13:21Z", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"one\ntwo\n", b"")


def test_following_begins_before_anything_is_stored_and_goes_on_over_a_restart(
    children: Children, tmp_path: Path
) -> None:
    path = tmp_path / "lines.db"
    store = SQLite(str(path))
    store.open()
    store.close()
    following = Child(children.start("sockservice", "lines", "--follow", "lines.db"))
    for line in [b"before", b"after"]:
        server = children.serve("--store", "sqlite:lines.db")
        with server.connected() as peer:
            peer.sendall(line + b"\n")
            assert peer.recv(10) == b"ok\n"
        following.until(line + b"\n$")
        server.stop()
    assert following.output == b"before\nafter\n"
    # Another in its place is not taken for it.
    other = SQLite(str(tmp_path / "other.db"))
    other.open()
    other.close()
    os.rename(tmp_path / "other.db", path)
    assert following.end() == (1, b"Error: lines.db: it was replaced by another file\n")


def test_a_store_that_is_deleted_while_it_is_followed_is_told(
    children: Children, path: str, store: SQLite
) -> None:
    following = Child(children.start("sockservice", "lines", "--follow", path))
    following.until(rb"\n\n$")
    os.unlink(path)
    assert following.end() == (1, f"Error: {path}: it was renamed or deleted\n".encode())
