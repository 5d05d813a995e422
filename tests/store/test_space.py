"""The space that a store leaves, and what is said before there is none."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from twisted.python import usage

from sockservice.daemon.options import Options
from sockservice.errors import StoreError
from sockservice.store import space, sqlite
from sockservice.store.engine import Batch
from sockservice.store.space import BYTES, COMMITS, LONG_LOG, RESERVE, Space
from sockservice.store.sqlite import SQLite
from tests.conftest import Children, Log
from tests.soak import disks
from tests.soak.rounds import Server
from tests.soak.senders import OK, REFUSED, Sender, compare


def test_lines_are_refused_below_the_reserve_and_taken_again_above_it() -> None:
    there = 1000
    made = Space("lines.db", 100, lambda _: there)
    made.check(0, BYTES)
    there = 100
    made.check(0, BYTES)
    there = 99
    with pytest.raises(StoreError) as told:
        made.check(0, BYTES)
    assert str(told.value) == "not stored: less than 100 bytes free on the disk, the reserve"
    assert told.value.retry and told.value.certain
    there = 101
    made.check(0, BYTES)


def test_it_is_looked_at_again_after_some_commits_and_each_time_while_there_is_little() -> None:
    looks: list[int] = []
    there = 1000

    def look(descriptor: int) -> int:
        looks.append(there)
        return there

    made = Space("lines.db", 100, look)
    for _ in range(2 * COMMITS):
        made.check(0, 1)
    assert looks == [1000] * 2
    made.check(0, BYTES)
    there = 150
    made.check(0, BYTES)
    made.check(0, 1)
    made.check(0, 1)
    assert looks == [1000] * 3 + [150] * 3


def test_without_a_reserve_all_is_used() -> None:
    Space("lines.db", 0, lambda _: 0).check(0, 1)


def test_the_log_warns_once_before_lines_are_refused_and_again_when_there_was_more(
    log: Log,
) -> None:
    free = [1000, 400, 399, 200, 150, 400, 390]
    made = Space("lines.db", 100, lambda _: free.pop(0))
    while free:
        made.check(0, BYTES)
    said = (
        "store lines.db: the disk is nearly full, {} bytes are free; lines are refused below 100 "
        "(--store-reserve)"
    )
    assert log.texts == [said.format(399), said.format(390)]


def test_the_log_warns_of_a_long_log_at_each_doubling(log: Log) -> None:
    made = Space("lines.db", 0)
    for length in (0, LONG_LOG - 1, LONG_LOG, LONG_LOG + 1, 2 * LONG_LOG, 0, LONG_LOG):
        made.grown(length)
    assert [text.split(" bytes")[0].rpartition(" ")[2] for text in log.texts] == [
        str(LONG_LOG),
        str(2 * LONG_LOG),
        str(LONG_LOG),
    ]


def test_a_reader_that_stays_for_long_is_told(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "LONG_LOG", 1 << 20)
    monkeypatch.setattr(sqlite, "CHECKPOINT", 1)
    path = tmp_path / "lines.db"
    store = SQLite(str(path))
    store.open()
    batch = Batch(1, "192.0.2.1:7", "tcp:192.0.2.9:555", [b"x" * 1000] * 600)
    store.commit([batch])
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM lines").fetchone()
        for _ in range(2):
            store.commit([batch])
            store.tidy()
    store.close()
    assert [text for text in log.texts if f"`fuser {path}-wal` names it" in text] == log.texts
    assert len(log.texts) == 1


def test_a_server_leaves_the_reserve_and_goes_on_when_there_is_more(
    children: Children, tmp_path: Path
) -> None:
    folder = tmp_path / "small"
    with disks.inMemory(folder, 8000) as problem:
        if problem:
            pytest.skip(f"no disk to fill: {problem}")
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(4_000_000))
        server = Server(children, folder / "lines.db", options=("--store-reserve", "2M"))
        sender = Sender("one", server.lines, 30)
        sender.start()
        said = REFUSED + b"less than 2097152 bytes free on the disk, the reserve"
        sender.until(said)
        ballast.unlink()
        sender.until(OK, 5)
        sender.stop()
        server.process.terminate()
        assert server.end() == (0, b"")
        assert set(sender.replies) == {OK, said}
        compare(folder / "lines.db", 0, [sender])
    assert b"the disk is nearly full" in server.output


def test_the_reserve_is_an_option() -> None:
    options = Options()
    options.parseOptions(["--store", "sqlite:x", "--store-reserve", "2G"])
    assert getattr(options.backend, "reserve", None) == 2 << 30
    options = Options()
    options.parseOptions(["--store", "sqlite:x"])
    assert getattr(options.backend, "reserve", None) == RESERVE
    with pytest.raises(usage.UsageError, match="--store-reserve x: not a number with a unit"):
        Options().parseOptions(["--store-reserve", "x"])
