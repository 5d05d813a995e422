"""Give back the space in a store's file that removed lines have left."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing

from sockservice.store.exclusive import InUse, exclusive
from sockservice.store.reader import telling
from sockservice.wire.plurals import grouped


def compact(path: str, said: Callable[[], None]) -> tuple[int, int]:
    """Write the file at `path` anew without what is unused; return its size before and after.

    All or nothing: SQLite's VACUUM. It needs as much free space as the lines take up. `said`
    is called now and then.

    :raises InUse: A server is using it, there is too little space, or it is damaged.
    :raises OSError: The file can't be written.
    :raises Unreadable: It is no store.
    """
    with exclusive(path) as real:
        before = os.stat(real).st_size
        _compact(real, said)
        return before, os.stat(real).st_size


def _compact(path: str, said: Callable[[], None]) -> None:
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as database,
        telling(database, said),
    ):
        ask = database.execute
        ask("PRAGMA wal_checkpoint(TRUNCATE)")
        sizes = ("page_count", "freelist_count", "page_size")
        pages, free, size = (ask(f"PRAGMA {name}").fetchone()[0] for name in sizes)
        there = os.statvfs(path)
        # What is used is in the log before it is in the file.
        needed, available = (pages - free) * size, there.f_bavail * there.f_frsize
        if needed > available:
            wanted = grouped(needed, "byte")
            raise InUse(f"it needs {wanted} of free space, and there are {available:,}")
        ask("VACUUM")
        ask("PRAGMA wal_checkpoint(TRUNCATE)")
