"""Read what the SQLite engine has stored, whether or not it is running.

Reading needs no permission to write. SQLite requires it for a database with a write-ahead
log (https://www.sqlite.org/wal.html#read_only_databases), unless the log and its index
exist and are readable, as while a server runs. If the log is empty, everything is in the
database file, which is then read as immutable
(https://www.sqlite.org/uri.html#uriimmutable), and read again if it has changed.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from sockservice.store.linetable import SCHEMA_VERSION
from sockservice.store.sessiontable import VERSION, SessionRows, identified, kept
from sockservice.store.sqlite import LOCK_TIMEOUT

#: Lines looked at in one short transaction, so that the server's log can be checkpointed.
PAGE = 1000
#: Bytes of lines held at once, if no single line is longer.
PAGE_BYTES = 1 << 20
#: Seconds between tries, while another process starts, ends or recovers the database.
RETRY_INTERVAL = 0.02

#: Instructions of SQLite's between two signs of life of a check.
INSTRUCTIONS = 1_000_000
#: Faults of a file that a check tells, at most.
MOST_FAULTS = 20

Found = TypeVar("Found")

#: The column of the line, as bytes even if somebody has inserted text by hand.
LINE = "CAST(line AS BLOB)"

# Errors that another process causes, and that pass.
_PASSING = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
)


class Unreadable(Exception):
    """A store cannot be read; the text is the reason, one line."""


class Query(NamedTuple):
    """The lines to read: their columns, and an SQL condition with its values.

    The first column is the id, the last the line.
    """

    columns: str = f"id, {LINE}"
    condition: str = ""
    values: tuple[int | str | bytes, ...] = ()


class State(NamedTuple):
    """The state of the files; a connection to the database is good while it stays the same."""

    #: The database file.
    file: tuple[int, int]
    #: The log, unless it is empty; then SQLite itself notices changes.
    log: tuple[int, int] | None
    #: Size and time of the database file if the log is empty.
    content: tuple[int, int] | None


class Reader:
    """Reads the SQLite database at `path`; never writes.

    :raises Unreadable: It is no store, or can't be read.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        # SQLite keeps its log beside the file itself, not beside a link to it.
        self._real = os.path.realpath(path)
        self._database: sqlite3.Connection | None = None
        self._state = self._look()

    def page(self, query: Query, after: int, limit: int | None = None) -> tuple[list[Any], int]:
        """Return the next lines after the id `after`, and the id up to which there are no others.

        There may be none in that range. If the id is `after`, it is the last.

        :raises Unreadable: The store failed, or is not the one it was.
        """
        return self._read(lambda database: _page(database, query, after, limit))

    def ids(self) -> tuple[int, int]:
        """Return the lowest id there is, 0 if none, and the highest there has ever been.

        :raises Unreadable: As `page`.
        """
        return self._read(_ids)

    def sessions(self) -> SessionRows | None:
        """Return what the store holds of sessions; None if none has ever been served.

        :raises Unreadable: As `page`.
        """
        return self._read(kept)

    def identity(self) -> bytes | None:
        """Return the identity of the store; None if no sessions have been served.

        :raises Unreadable: As `page`.
        """
        return self._read(identified)

    def snapshot(self) -> tuple[int, int, SessionRows | None]:
        """Return what `ids` and `sessions` do, as of the same moment.

        :raises Unreadable: As `page`.
        """
        return self._read(_snapshot)

    def since(self) -> int:
        """Return the id behind which a copy of another store begins; 0 for all that is whole.

        :raises Unreadable: As `page`.
        """
        return self._read(_since)

    def check(self, said: Callable[[], None]) -> list[str]:
        """Look through the whole file; return what is wrong with it.

        It takes time in proportion to the size of the file, in one transaction. `said` is
        called now and then.

        :raises Unreadable: As `page`.
        """

        def checked(database: sqlite3.Connection) -> list[str]:
            found: list[str] = []
            try:
                with telling(database, said):
                    for (text,) in database.execute(f"PRAGMA quick_check({MOST_FAULTS})"):
                        found.append(text)
            except sqlite3.DatabaseError as problem:
                if getattr(problem, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_CORRUPT:
                    raise
                found.append(str(problem))
            return [] if found == ["ok"] else found

        return self._read(checked)

    def _read(self, ask: Callable[[sqlite3.Connection], Found]) -> Found:
        """Return what `ask` finds in the database as it is."""
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                if self._database is None:
                    self._database = self._opened()
                found = ask(self._database)
            except (sqlite3.Error, Unreadable) as problem:
                self.close()
                if not self._changed():
                    if isinstance(problem, Unreadable):
                        raise
                    code = getattr(problem, "sqlite_errorcode", 0) & 0xFF
                    if code not in _PASSING or time.monotonic() > deadline:
                        raise Unreadable(self._reason(problem, code)) from problem
                    time.sleep(RETRY_INTERVAL)
            else:
                if not self._changed():
                    return found

    def _look(self) -> State:
        """Return the state of the files now."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            if self._database is None:
                raise Unreadable("there is no such store") from None
            raise Unreadable("it was renamed or deleted") from None
        except OSError as problem:
            raise Unreadable(os.strerror(problem.errno or 0)) from problem
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable("it is no file, but a folder or a device")
        file = found.st_dev, found.st_ino
        try:
            log = os.stat(f"{self._real}-wal")
        except FileNotFoundError:
            log = None
        if log is None or not log.st_size:
            return State(file, None, (found.st_size, found.st_mtime_ns))
        return State(file, (log.st_dev, log.st_ino), None)

    def _changed(self) -> bool:
        """Return whether what was read may be wrong, and needs another connection.

        :raises Unreadable: There is another file by that name, or none.
        """
        state, self._state = self._state, self._look()
        if self._state.file != state.file:
            raise Unreadable("it was replaced by another file")
        if self._state != state:
            self.close()
            return True
        return False

    def _opened(self) -> sqlite3.Connection:
        if self._logLost():
            raise Unreadable(
                f"{self._real}-wal, which may hold lines, is missing; put it back, or remove "
                f"{self._real}-shm to do without them"
            )
        how = "mode=ro" if self._state.log else "immutable=1"
        database = sqlite3.connect(
            f"file:{quote(os.fsencode(self._real))}?{how}",
            timeout=LOCK_TIMEOUT,
            isolation_level=None,
            uri=True,
        )
        try:
            self._check(database)
        except BaseException:
            database.close()
            raise
        return database

    def _check(self, database: sqlite3.Connection) -> None:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        if SCHEMA_VERSION <= version <= VERSION and "lines" in tables:
            return
        if version > VERSION and "lines" in tables:
            raise Unreadable(
                f"its schema has version {version}, this program knows {VERSION}: use a newer one"
            )
        if tables:
            raise Unreadable("it is the database of another program")
        raise Unreadable("it is empty, and no store")

    def _logLost(self) -> bool:
        log, index = f"{self._real}-wal", f"{self._real}-shm"
        # Checked twice: a server creates the log first and removes it last.
        return not os.path.exists(log) and os.path.exists(index) and not os.path.exists(log)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _reason(self, problem: sqlite3.Error, code: int) -> str:
        for path in (self._real, f"{self._real}-wal", f"{self._real}-shm"):
            if os.path.exists(path) and not os.access(path, os.R_OK, effective_ids=True):
                return f"no permission to read {path}: run this as the user of the service"
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) and self._state.log:
            return (
                f"{self._real}-wal holds lines, and without {self._real}-shm reading them needs "
                "the right to write in the folder: run this as the user of the service"
            )
        return str(problem)


def _ids(database: sqlite3.Connection) -> tuple[int, int]:
    # SQLite finds one of min() and max() at once, but reads all rows for both.
    first, last = database.execute(
        "SELECT ifnull((SELECT min(id) FROM lines), 0), max("
        "ifnull((SELECT max(id) FROM lines), 0), "
        "ifnull((SELECT max(seq) FROM sqlite_sequence WHERE name = 'lines'), 0))"
    ).fetchone()
    return first, last


@contextmanager
def telling(database: sqlite3.Connection, said: Callable[[], None]) -> Iterator[None]:
    """Meanwhile have `said` called now and then; if it raises something, it has to do so again.

    For that ends what SQLite does, with an error of SQLite's in its place.
    """
    database.set_progress_handler(said, INSTRUCTIONS)
    try:
        yield
    except sqlite3.OperationalError as problem:
        if problem.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            said()
        raise
    finally:
        database.set_progress_handler(None, 0)


def _snapshot(database: sqlite3.Connection) -> tuple[int, int, SessionRows | None]:
    database.execute("BEGIN")
    try:
        return *_ids(database), kept(database)
    finally:
        database.execute("ROLLBACK")


def _since(database: sqlite3.Connection) -> int:
    (copied,) = database.execute(
        "SELECT count(*) FROM sqlite_master WHERE name = 'copied'"
    ).fetchone()
    if not copied:
        return 0
    (since,) = database.execute("SELECT ifnull(max(since), 0) FROM copied").fetchone()
    return int(since)


def _page(
    database: sqlite3.Connection, query: Query, after: int, limit: int | None
) -> tuple[list[Any], int]:
    # By ranges of ids, so that a page is short even if few lines match. No id below the
    # highest is still to come: one writer assigns them in order.
    first, last = database.execute(
        "SELECT (SELECT min(id) FROM lines WHERE id > ?), (SELECT max(id) FROM lines)", (after,)
    ).fetchone()
    if first is None:
        return [], after
    last = min(last, first + PAGE - 1)
    select = (
        f"SELECT {query.columns} FROM lines WHERE id BETWEEN ? AND ?{query.condition} "
        "ORDER BY id LIMIT ?"
    )
    most = PAGE if limit is None else min(limit, PAGE)
    rows = []
    size = 0
    found = database.execute(select, (first, last, *query.values, most))
    for row in found:
        rows.append(row)
        size += len(row[-1])
        if size > PAGE_BYTES:
            last = row[0]
            break
    # Ends the transaction.
    found.close()
    return rows, last
