"""`sockservice lines`: reading a store back."""

import json
import os
import pty
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sockservice.cli import main
from sockservice.cli.lines import PAGE
from sockservice.cli.lines import lines as command
from sockservice.store import Batch, Retention
from sockservice.store.sqlite import SQLite
from tests.conftest import PATIENCE, Child, Children

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


def printed(*arguments: str) -> list[bytes]:
    """Give the lines that the command prints."""
    done = called(*arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    *found, last = done.stdout_bytes.split(b"\n")
    assert last == b""
    return found


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
    for options in [[], ["--json"], ["--since", "2020-01-01"], ["--limit", "5"]]:
        assert printed(str(tmp_path / "lines.db"), *options) == []


def test_json_has_all_columns(path: str) -> None:
    objects = [json.loads(line) for line in printed(path, "--json")]
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
        command.main([path], standalone_mode=False)
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


def test_a_time_without_a_zone_is_one_of_this_machine(path: str) -> None:
    local = datetime.fromtimestamp(START // SECOND + 1).isoformat()
    assert printed(path, "--since", local) == EVERY[2:]


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.sets(st.integers(0, 39)),
    st.integers(-1, 60),
)
@example([0] * 10, {0, 9}, 0)
def test_since_finds_the_first_line_though_ids_have_gaps(
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
    ],
)
def test_a_peer_is_named_with_or_without_its_port(
    path: str, store: SQLite, peer: str, expected: list[bytes]
) -> None:
    store.commit(
        [
            Batch(START, "[::1]:5000", "", [b"six"]),
            Batch(START, "127.0.0.1:5000 (CN=alice)", "", [b"tls"]),
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
    assert done.stderr == f"Error: {path}: no store that this program knows\n"


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
        following = Thread(
            target=command.main, args=(arguments,), kwargs={"standalone_mode": False}, daemon=True
        )
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
    assert following.end() == (-signal.SIGTERM, b"")
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
