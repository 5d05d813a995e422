"""The promise of `ok`, on a real server: killed, cut off, filled up, traced.

The rounds are in tests/soak, which runs many of them.
"""

import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from twisted.python import usage

from sockservice.daemon.engines import ENGINES
from sockservice.daemon.options import Options
from sockservice.store.engine import Retention
from tests.conftest import Children
from tests.soak import disks, rounds
from tests.soak.rounds import Server
from tests.soak.senders import OK, Sender, compare

REFUSED = b"error not stored: "


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "lines.db"


def one(server: Server, name: str = "one") -> Sender:
    """Start a sender that sends line after line."""
    sender = Sender(name, server.lines)
    sender.start()
    return sender


# The promise


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_was_acknowledged_survives_kill_9(children: Children, store: Path, seed: int) -> None:
    acknowledged, stored = rounds.crash(children, store, Random(seed))
    assert 0 < acknowledged <= stored


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[disks.Disk]:
    made = disks.Disk(tmp_path)
    if problem := made.make():
        pytest.skip(f"no disk to cut the power of: {problem}")
    yield made
    made.unmount()


def test_what_was_acknowledged_survives_a_power_failure(
    children: Children, disk: disks.Disk
) -> None:
    acknowledged, stored = rounds.power(children, disk, Random(1))
    assert 0 < acknowledged <= stored


def test_what_was_received_is_stored_and_acknowledged_before_it_ends(
    children: Children, store: Path
) -> None:
    server = Server(children, store)
    senders = server.senders([1, 100, 1000])
    for sender in senders:
        sender.until(OK, 10)
    server.process.terminate()
    status, errors = server.end()
    for sender in senders:
        sender.stop()
    assert (status, errors) == (0, b"")
    acknowledged, stored = compare(store, 0, senders)
    # To the last line: what is stored was acknowledged.
    assert acknowledged == stored
    assert list(store.parent.glob("lines.db*")) == [store]


# Order of events


@pytest.fixture
def tracer(tmp_path: Path) -> tuple[str, ...]:
    """The command that traces another, into the file `trace`."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed")
    # -D: what is traced is our child, and strace ends with it.
    command = (found, "-D", "-f", "-y", "-s", "65536", "-o", str(tmp_path / "trace"))
    tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"strace can't trace here: {tried.stderr.decode().strip()}")
    return command


# A line of `strace -f`: the thread, the call and its arguments, the result.
CALL = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)")
BEGUN = re.compile(r"^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)")
NAMED = re.compile(r"<(lines\d+):(\d+)>")


class Trace:
    """What a traced server did, event after event; says when each line was synced."""

    def __init__(self, log: Path) -> None:
        self.synced: set[tuple[str, int]] = set()
        self.syncs = 0
        #: The `ok`s that left for each connection, by its descriptor: how many, and
        #: which lines were synced by then.
        self.oks: dict[str, list[int]] = {}
        self._written: set[tuple[str, int]] = set()
        self._covered: dict[str, set[tuple[str, int]]] = {}
        self._begun: dict[str, str] = {}
        #: Whose line each connection's first was.
        self.owners: dict[str, str] = {}
        self.early: list[str] = []
        for event in log.read_text("latin-1").splitlines():
            self._read(event)

    def _read(self, event: str) -> None:
        if found := BEGUN.match(event):
            thread, call, arguments = found.groups()
            self._begun[thread] = arguments
            self._begin(thread, call, arguments)
        elif found := RESUMED.match(event):
            thread, call, rest, result = found.groups()
            self._end(thread, call, self._begun.pop(thread) + rest, int(result))
        elif found := CALL.match(event):
            thread, call, arguments, result = found.groups()
            self._begin(thread, call, arguments)
            self._end(thread, call, arguments, int(result))

    def _begin(self, thread: str, call: str, arguments: str) -> None:
        if call == "fdatasync":
            self._covered[thread] = set(self._written)
        elif call == "sendto" and '"ok' in arguments:
            descriptor = arguments.partition(",")[0]
            oks = self.oks.setdefault(descriptor, [])
            owner = self.owners[descriptor]
            for number in range(sum(oks), sum(oks) + arguments.count("ok")):
                if (owner, number) not in self.synced:
                    self.early.append(f"{owner}:{number}")
            oks.append(arguments.count("ok"))

    def _end(self, thread: str, call: str, arguments: str, result: int) -> None:
        lines = {(name, int(number)) for name, number in NAMED.findall(arguments)}
        if call == "pwrite64" and "-wal>" in arguments.partition(",")[0]:
            self._written |= lines
        elif call == "fdatasync" and result == 0 and "-wal>" in arguments:
            self.synced |= self._covered[thread]
            self.syncs += 1
        elif call == "recvfrom" and lines:
            self.owners.setdefault(arguments.partition(",")[0], min(lines)[0])


def test_every_ok_leaves_after_the_sync_that_covers_its_line(
    children: Children, store: Path, tmp_path: Path, tracer: tuple[str, ...]
) -> None:
    server = Server(
        children, store, (*tracer, "-e", "trace=fdatasync,pwrite64,recvfrom,sendto,write")
    )
    senders = [Sender(f"lines{n}", server.lines, window) for n, window in enumerate([1, 1, 20])]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.until(OK, 25)
    server.process.terminate()
    assert server.end() == (0, b"")  # strace has written all then, too: it holds stdout as well
    for sender in senders:
        sender.stop()
    trace = Trace(tmp_path / "trace")
    counts = sorted(sum(oks) for oks in trace.oks.values())
    assert counts == sorted(sender.replies.count(OK) for sender in senders)
    assert min(counts) >= 25
    assert trace.syncs >= 25
    assert trace.early == []


def test_a_sync_that_failed_ends_it_and_is_never_tried_again(
    children: Children, store: Path, tracer: tuple[str, ...]
) -> None:
    fault = "inject=fdatasync:error=EIO:when=30"  # once: the next would succeed
    server = Server(children, store, (*tracer, "-e", "trace=fdatasync", "-e", fault))
    sender = one(server)
    status, errors = server.end()
    sender.stop()
    assert (status, errors) == (1, b"")
    oks = sender.replies.count(OK)
    assert oks > 5
    assert sender.replies == [OK] * oks + [REFUSED + b"I/O error"] * (len(sender.replies) - oks)
    assert sender.replies[-1] != OK
    acknowledged, _ = compare(store, 0, [sender])
    assert acknowledged == oks


# Trouble while it serves


def test_it_ends_with_status_1_when_its_file_is_not_there_any_more(
    children: Children, store: Path, tmp_path: Path
) -> None:
    server = Server(children, store)
    sender = one(server)
    sender.until(OK, 10)
    store.rename(tmp_path / "elsewhere")
    status, errors = server.end()
    sender.stop()
    assert (status, errors) == (1, b"")
    why = f"{store} was renamed or deleted".encode()
    oks = sender.replies.count(OK)
    # The line that was being stored, if any was, is in the file that was moved; none behind it is.
    unknown = sender.replies.count(b"error unknown: " + why)
    refusals = [REFUSED + why] * (len(sender.replies) - oks - unknown)
    assert sender.replies == [OK] * oks + [b"error unknown: " + why] * unknown + refusals
    assert unknown <= 1 < 1 + unknown + len(refusals)
    assert server.output.count(b"nothing will be stored any more") == 1
    acknowledged, stored = compare(tmp_path / "elsewhere", 0, [sender])
    assert (acknowledged, stored) == (oks, oks + unknown)


def test_a_full_disk_refuses_lines_and_room_on_it_accepts_them_again(
    children: Children, tmp_path: Path
) -> None:
    folder = tmp_path / "small"
    with disks.inMemory(folder, 6000) as problem:
        if problem:
            pytest.skip(f"no disk to fill: {problem}")
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(4_000_000))
        server = Server(children, folder / "lines.db", options=("--store-reserve", "0"))
        senders = [one(server, "one"), one(server, "other")]
        try:
            for sender in senders:
                sender.until(REFUSED + b"disk full")
            ballast.unlink()
            for sender in senders:
                sender.until(OK, 5)
        finally:
            for sender in senders:
                sender.stop()
        server.process.terminate()
        assert server.end() == (0, b"")
        acknowledged, stored = compare(folder / "lines.db", 0, senders)
        assert acknowledged <= stored
        for sender in senders:
            assert set(sender.replies) == {OK, REFUSED + b"disk full"}
    assert server.output.count(b"cannot be stored: disk full; trying again") >= 1
    assert server.output.count(b"cannot be stored") == server.output.count(b"storing lines again")


def test_a_lock_held_too_long_refuses_lines_until_it_is_gone(
    children: Children, store: Path
) -> None:
    server = Server(children, store)
    sender = one(server)
    sender.until(OK)
    with closing(sqlite3.connect(store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        sender.until(REFUSED + b"another process holds the write lock")
        other.execute("ROLLBACK")
        sender.until(OK, 5)
    sender.stop()
    server.process.terminate()
    assert server.end() == (0, b"")
    compare(store, 0, [sender])


# Trouble at the start


def start(children: Children, store: str, *options: str) -> "subprocess.CompletedProcess[bytes]":
    return children.run(
        *("twistd", "-n", "--pidfile=", "sockservice", "--port", "0", "--store", store, *options)
    )


def test_a_second_server_on_the_same_file_does_not_start_and_the_first_goes_on(
    children: Children, store: Path
) -> None:
    server = Server(children, store)
    sender = one(server)
    done = start(children, f"sqlite:{store}")
    said = f"sockservice: store {store}: another server is using it\n"
    assert (done.returncode, done.stderr.decode()) == (1, said)
    assert b"listening on" not in done.stdout
    sender.until(OK)
    sender.stop()
    server.kill()
    compare(store, 0, [sender])


def test_what_is_no_database_is_one_line_on_stderr_and_status_1(
    children: Children, store: Path
) -> None:
    store.write_bytes(b"no database\n" * 100)
    done = start(children, f"sqlite:{store}")
    said = f"sockservice: store {store}: the file is no database\n"
    assert (done.returncode, done.stderr.decode()) == (1, said)
    assert b"Traceback" not in done.stdout
    assert store.read_bytes() == b"no database\n" * 100


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--store", "kafka:x"], "--store kafka:x: no store called 'kafka'"),
        (["--store", "sqlite:"], "--store sqlite:: sqlite:: no path"),
        (["--retain-age", "1d"], "--retain-age and --retain-size need a --store"),
        (["--retain-age", "0"], "--retain-age 0: not a number with a unit, as 30d"),
        (["--store", "sqlite:x", "--retain-size", "1T"], "--retain-size 1T: not a number with"),
    ],
)
def test_what_cannot_be_asked_for_is_a_usage_error(options: list[str], why: str) -> None:
    with pytest.raises(usage.UsageError, match=f"^{re.escape(why)}"):
        Options().parseOptions(options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], Retention()),
        (["--retain-age", "90"], Retention(age=90)),
        (["--retain-age", "90m"], Retention(age=5400)),
        (["--retain-age", "48h"], Retention(age=172_800)),
        (["--retain-age", "30d", "--retain-size", "20G"], Retention(2_592_000, 20 << 30)),
        (["--retain-size", "500M"], Retention(size=500 << 20)),
    ],
)
def test_how_long_lines_are_kept_is_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: list[str], expected: Retention
) -> None:
    asked: list[tuple[str, Retention]] = []
    monkeypatch.setitem(ENGINES, "mine", lambda place, retention: asked.append((place, retention)))
    Options().parseOptions(["--store", "mine:place", *options])
    assert asked == [("place", expected)]
