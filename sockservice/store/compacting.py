"""Give back the space in a store's file that removed lines have left."""

import fcntl
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing

from sockservice.store.reader import INSTRUCTIONS, Reader


class NotCompacted(Exception):
    """The file is as it was; the text is the reason, one line."""


def compact(path: str, said: Callable[[], None]) -> tuple[int, int]:
    """Write the file at `path` anew without what is unused; return its size before and after.

    All or nothing: SQLite's VACUUM. It needs as much free space as the lines take up. `said`
    is called now and then.

    :raises NotCompacted: A server is using it, there is too little space, or it is damaged.
    :raises OSError: The file can't be written.
    :raises Unreadable: It is no store.
    """
    path = os.path.realpath(path)
    with closing(Reader(path)) as reader:
        reader.ids()
    lock = os.open(path, os.O_RDWR)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotCompacted("a server is using it; stop that first") from None
        before = os.stat(path).st_size
        try:
            _compact(path, said)
        except sqlite3.Error as problem:
            raise NotCompacted(str(problem)) from problem
        return before, os.stat(path).st_size
    finally:
        os.close(lock)


def _compact(path: str, said: Callable[[], None]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        ask = database.execute
        database.set_progress_handler(said, INSTRUCTIONS)
        ask("PRAGMA wal_checkpoint(TRUNCATE)")
        sizes = ("page_count", "freelist_count", "page_size")
        pages, free, size = (ask(f"PRAGMA {name}").fetchone()[0] for name in sizes)
        there = os.statvfs(path)
        # What is used is in the log before it is in the file.
        needed, available = (pages - free) * size, there.f_bavail * there.f_frsize
        if needed > available:
            raise NotCompacted(
                f"it needs {needed:,} bytes of free space, and there are {available:,}"
            )
        ask("VACUUM")
        ask("PRAGMA wal_checkpoint(TRUNCATE)")
