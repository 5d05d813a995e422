"""The disk that durable lines are on, and what is on it afterwards."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.failure import Failure
from sockservice.store.engine import Batch
from sockservice.store.sqlite import SQLite

DATABASE = "lines.db"
MEGABYTE = 1_000_000
IN_MEMORY = ("tmpfs", "ramfs")


def memory(folder: Path) -> str | None:
    """Return the kind of file system `folder` is on if that is no disk: nothing is synced there."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, kind = line.partition(" - ")
        if mount.split()[2] == number and kind.split()[0] in IN_MEMORY:
            return kind.split()[0]
    return None


@contextmanager
def fresh(folder: Path, synced: bool) -> Iterator[Path]:
    """Make a folder for one server, and remove it with all that the server left."""
    with TemporaryDirectory(prefix="server-", dir=folder) as made:
        if synced:
            # What others have written would be synced with the first commit.
            os.sync()
        yield Path(made)


@contextmanager
def filled(folder: Path, own: Path, megabytes: int) -> Iterator[int]:
    """Have a store that many megabytes in `own` while a server runs; give its last id.

    It is made once and kept in `folder`, with what the servers add to it.

    :raises Failure: The disk has no room for it.
    """
    kept, used = folder / f"{megabytes}.db", own / DATABASE
    if not kept.exists():
        room = shutil.disk_usage(folder).free
        if room < 2 * megabytes * MEGABYTE:
            raise Failure(f"the disk has {room // MEGABYTE:,} MB free, less than twice as many")
        fill(kept, megabytes)
    kept.rename(used)
    try:
        yield latest(used)
    finally:
        latest(used)  # has the log written back
        used.rename(kept)


def fill(store: Path, megabytes: int) -> None:
    engine = SQLite(str(store))
    engine.open()
    lines = [b"x" * 1000] * 1000
    try:
        for _ in range(megabytes):
            engine.commit([Batch(0, "filled", "", lines)])
    finally:
        engine.close()


def latest(store: Path) -> int:
    """Give the highest id in a store that no server has open."""
    with closing(sqlite3.connect(store)) as database:
        (found,) = database.execute("SELECT ifnull(max(id), 0) FROM lines").fetchone()
        return int(found)


def stored_lines(folder: Path, behind: int) -> int:
    """Count the lines in the store of a server that has been stopped, behind an id."""
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        question = "SELECT count(*) FROM lines WHERE id > ?"
        (count,) = database.execute(question, (behind,)).fetchone()
        return int(count)
