"""Copy the lines of a store into another file, while a server goes on writing.

Lines are copied in the order of their ids, in short transactions of their own: the server's log
does not grow meanwhile, and what comes in during the copy is left to the next. A copy that was
interrupted goes on where it was. Sessions are copied as they were when it was begun: their
positions are those of the lines up to the last that it copies.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from itertools import chain
from typing import Any, NamedTuple, Protocol

from sockservice.store.linetable import SCHEMA, SCHEMA_VERSION
from sockservice.store.reader import LINE, PAGE, Query
from sockservice.store.sessiontable import VERSION, SessionRows, kept, replace
from sockservice.store.sqlite import LOCK_TIMEOUT
from sockservice.wire.plurals import counted

#: Lines in one transaction of the copy: what is done again, at most, after an interruption.
STEP = 50_000

_ALL = Query(columns=f"id, received, peer, listener, {LINE}")
_INSERT = "INSERT INTO lines VALUES(?, ?, ?, ?, ?)"
# The lines up to `since` are in another copy.
_COPIED = "CREATE TABLE copied(since INTEGER NOT NULL)"


class NoCopy(Exception):
    """There can be no copy, or it is not sound; the text is the reason, one line."""


class Copied(NamedTuple):
    """What a copy holds."""

    lines: int
    first: int
    #: The highest id that the store had when the copy was begun.
    last: int
    #: Ids that the store has not had any more, between those of the copy and its own.
    missing: int


class Copyable(Protocol):
    """What can be copied: as :class:`~sockservice.store.reader.Reader` says."""

    def page(self, query: Query, after: int, limit: int | None = None) -> tuple[list[Any], int]:
        """Return the next lines after an id."""

    def snapshot(self) -> tuple[int, int, SessionRows | None]:
        """Return the lowest id, the highest, and the sessions."""

    def since(self) -> int:
        """Return the id behind which it begins."""


def copy(
    store: Copyable, path: str, since: int, append: bool, said: Callable[[int, int], object]
) -> Copied:
    """Copy the lines with ids above `since` to a new file at `path`, or append what it lacks.

    The new file is there when it is whole, checked and synced; until then it is `path` with
    `.part` behind it. `said` is told how many ids of how many are done.

    :raises NoCopy: With the reason.
    :raises OSError: The file can't be written.
    :raises Unreadable: The store can't be read.
    """
    if append and not os.path.exists(path):
        raise NoCopy("there is no such copy to append to")
    if not append and os.path.exists(path):
        raise NoCopy("it exists already")
    written = path if append else f"{path}.part"
    with ExitStack() as opened:
        lock = os.open(written, os.O_RDWR | os.O_CREAT, 0o640)
        opened.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NoCopy("another process is writing it") from None
        try:
            copied = _copied(store, written, since, append, said)
        except sqlite3.Error as problem:
            raise NoCopy(str(problem)) from problem
        os.fsync(lock)
        if not append:
            os.rename(written, path)
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        opened.callback(os.close, folder)
        os.fsync(folder)
    return copied


def _copied(
    store: Copyable, path: str, since: int, append: bool, said: Callable[[int, int], object]
) -> Copied:
    first, last, sessions = store.snapshot()
    with closing(sqlite3.connect(path, timeout=LOCK_TIMEOUT, isolation_level=None)) as database:
        ask = database.execute
        _prepare(database, since, append)
        (after,) = ask("SELECT max(seq) FROM sqlite_sequence WHERE name = 'lines'").fetchone()
        _compare(store, database, after)
        before = kept(database)
        if before and sessions and before.identity != sessions.identity:
            raise NoCopy("it is the copy of another store: its sessions are not the same")
        lacking = store.since()
        if append and lacking > after:
            raise NoCopy(
                f"it ends at id {after}, and what is to be appended begins behind {lacking}"
            )
        begun = after
        given = 0
        while after < last:
            ask("BEGIN IMMEDIATE")
            upTo = after + STEP
            while after < min(last, upTo):
                rows, reached = store.page(_ALL, after)
                new = [row for row in rows if row[0] <= last]
                given += len(new)
                _insert(database, new)
                # There may be none any more.
                after = last if reached == after else min(reached, last)
                said(after - begun, last - begun)
            ask("UPDATE sqlite_sequence SET seq = ? WHERE name = 'lines'", (after,))
            ask("COMMIT")
        if sessions is not None:
            ask("BEGIN IMMEDIATE")
            replace(database, sessions)
            ask("COMMIT")
        return _checked(database, begun, given, first)


def _insert(database: sqlite3.Connection, rows: list[Any]) -> None:
    if len(rows) == PAGE:
        # In one statement, in half the time.
        database.execute(_INSERT + ",(?, ?, ?, ?, ?)" * (PAGE - 1), [*chain.from_iterable(rows)])
    else:
        database.executemany(_INSERT, rows)


def _prepare(database: sqlite3.Connection, since: int, append: bool) -> None:
    """Make a new copy, or see that the one there is of the same kind."""
    ask = database.execute
    (version,) = ask("PRAGMA user_version").fetchone()
    tables = {name for (name,) in ask("SELECT name FROM sqlite_master")}
    if append:
        if not SCHEMA_VERSION <= version <= VERSION or "lines" not in tables:
            raise NoCopy("it is no store")
        # What the log holds goes into the file, and there is one file.
        ask("PRAGMA journal_mode=DELETE")
        with suppress(sqlite3.IntegrityError):
            ask(
                "INSERT INTO sqlite_sequence SELECT 'lines', 0 WHERE NOT EXISTS "
                "(SELECT 1 FROM sqlite_sequence WHERE name = 'lines')"
            )
        return
    if not tables:
        database.executescript(
            f"BEGIN IMMEDIATE;{SCHEMA}{_COPIED};INSERT INTO copied VALUES({since});"
            f"INSERT INTO sqlite_sequence VALUES('lines', {since});"
            f"PRAGMA user_version={SCHEMA_VERSION};COMMIT;"
        )
    elif "copied" not in tables or ask("SELECT since FROM copied").fetchall() != [(since,)]:
        raise NoCopy("its .part is of another backup; remove that, or finish it first")


def _compare(store: Copyable, database: sqlite3.Connection, after: int) -> None:
    """See that the last line of the copy is the store's."""
    ours = database.execute(
        f"SELECT id, received, peer, listener, {LINE} FROM lines WHERE id = ?", (after,)
    ).fetchone()
    theirs: list[Any] = store.page(_ALL, after - 1, 1)[0] if after else []
    if ours and theirs and theirs[0][0] == after and theirs[0] != ours:
        raise NoCopy(f"it is the copy of another store: line {after} differs")


def _checked(database: sqlite3.Connection, begun: int, given: int, oldest: int) -> Copied:
    """Read the copy back.

    :raises NoCopy: It is not what was written.
    """
    (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if state != "ok":
        raise NoCopy(f"the copy is not sound: {state}")
    (added,) = database.execute("SELECT count(*) FROM lines WHERE id > ?", (begun,)).fetchone()
    if added != given:
        were, are = counted(given, "line was", "lines were"), counted(added, "is", "are")
        raise NoCopy(f"the copy is not sound: {were} written, {are} there")
    count, first = database.execute("SELECT count(*), ifnull(min(id), 0) FROM lines").fetchone()
    (last,) = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'lines'").fetchone()
    return Copied(count, first, last, max(0, oldest - begun - 1) if begun else 0)
