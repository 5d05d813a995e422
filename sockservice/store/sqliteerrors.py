"""Say in words why SQLite has failed, and whether it may work again."""

import os
import sqlite3

from sockservice.errors import StoreError

#: The reason while somebody else writes.
LOCKED = "another process holds the write lock"
_RETRY = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_REASONS = {
    sqlite3.SQLITE_FULL: "disk full",
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_IOERR: "I/O error",
    sqlite3.SQLITE_CORRUPT: "the database is corrupt",
    sqlite3.SQLITE_NOTADB: "the file is no database",
    sqlite3.SQLITE_READONLY: "the database is read-only",
    sqlite3.SQLITE_CANTOPEN: "the database can't be opened",
}


def reason(problem: OSError | sqlite3.Error | StoreError) -> str:
    """Return why it failed, in a few words."""
    if isinstance(problem, StoreError):
        return problem.reason
    if isinstance(problem, OSError):
        return os.strerror(problem.errno or 0)
    code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return _REASONS.get(code, str(problem))


def storeError(problem: Exception) -> StoreError:
    """Return what is told of a commit that failed so, which was rolled back whole."""
    if isinstance(problem, MemoryError):
        return StoreError("out of memory", retry=True)
    if not isinstance(problem, (OSError, sqlite3.Error)):
        return StoreError(f"{type(problem).__name__}: {problem}", retry=False)
    code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return StoreError(reason(problem), retry=code in _RETRY)
