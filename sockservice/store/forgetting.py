"""Forget a session, or give a copy of a store an identity of its own."""

import os
import sqlite3
from contextlib import closing

from sockservice.store.exclusive import exclusive
from sockservice.store.sessiontable import remove


def forget(path: str, name: str) -> bool:
    """Forget the session `name` of the store at `path`, not its lines; return whether it was there.

    :raises InUse: A server is using it.
    :raises OSError: The file can't be written.
    :raises Unreadable: It is no store.
    """
    with (
        exclusive(path) as real,
        closing(sqlite3.connect(real, isolation_level=None)) as database,
    ):
        return remove(database, name)


def renew(path: str) -> str:
    """Give the store at `path` a new identity, by which senders know it; return that.

    :raises InUse: A server is using it.
    :raises OSError: The file can't be written.
    :raises Unreadable: It is no store.
    """
    identity = os.urandom(16)
    with (
        exclusive(path) as real,
        closing(sqlite3.connect(real, isolation_level=None)) as database,
    ):
        database.execute("UPDATE store SET id = ?", (identity,))
    return identity.hex()
