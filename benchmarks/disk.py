"""The disk that durable lines are on, and what is on it afterwards."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

DATABASE = "lines.db"
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


def stored_lines(folder: Path) -> int:
    """Count the lines in the store of a server that has been stopped."""
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        (count,) = database.execute("SELECT count(*) FROM lines").fetchone()
        return int(count)
