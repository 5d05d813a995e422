"""Write to a store's file that no server is using."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from sockservice.store.reader import Reader


class InUse(Exception):
    """Nothing was written; the text is the reason, one line."""


@contextmanager
def exclusive(path: str) -> Iterator[str]:
    """Keep servers from the store at `path`; give the path that is behind links.

    :raises InUse: A server is using it.
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
            raise InUse("a server is using it; stop that first") from None
        try:
            yield path
        except sqlite3.Error as problem:
            raise InUse(str(problem)) from problem
    finally:
        os.close(lock)
