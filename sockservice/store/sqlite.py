"""The SQLite engine: one database file in WAL mode, synced at every commit.

Why each commit is durable: https://www.sqlite.org/wal.html and
https://www.sqlite.org/pragma.html#pragma_synchronous (FULL syncs the WAL after each
transaction; NORMAL does not, and loses acknowledged lines when power fails).
"""

import fcntl
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, repeat

from sockservice.errors import CannotStart, StoreError
from sockservice.store.engine import EVERYTHING, Batch, Retention
from sockservice.store.inspection import Inspection
from sockservice.store.retention import LINE_SIZE, STEP_BYTES, Expiry
from sockservice.store.space import Space
from sockservice.store.walguard import LOG_LIMIT, Guard, glance

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE lines(
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- only grows, and is never used twice
    received INTEGER NOT NULL,            -- microseconds since 1970-01-01T00:00:00Z
    peer TEXT NOT NULL,
    listener TEXT NOT NULL,
    line BLOB NOT NULL                    -- the exact bytes, without line ending
);
CREATE VIEW readable AS SELECT
    id,
    strftime('%Y-%m-%dT%H:%M:%f', received / 1000000.0, 'unixepoch') || 'Z' AS received,
    peer, listener, CAST(line AS TEXT) AS line
FROM lines;
"""

#: Seconds to wait for another process that holds the write lock.
LOCK_TIMEOUT = 2.0

#: Bytes written between two checkpoints, about: SQLite's own thousand pages.
CHECKPOINT = 4 * 1024 * 1024
# Bytes of a page, SQLite's default.
_PAGE = 4096
# Bytes that a commit writes at least.
_COMMIT_SIZE = 8192

# Lines in one statement. Executing a statement for each line would release and acquire
# the interpreter's lock each time, which halves the speed. Few sizes, so that each is
# prepared once; surplus rows are cut off by LIMIT.
_MOST = 4096
_INSERT = {
    rows: "INSERT INTO lines(received, peer, listener, line) SELECT * FROM (VALUES "
    + ",".join(repeat("(?,?,?,?)", rows))
    + ") LIMIT ?"
    for rows in (1 << power for power in range(_MOST.bit_length()))
}

_LOCKED = "another process holds the write lock"
_RETRY = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_REASONS = {
    sqlite3.SQLITE_FULL: "disk full",
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_IOERR: "I/O error",
    sqlite3.SQLITE_CORRUPT: "the database is corrupt",
    sqlite3.SQLITE_NOTADB: "the file is no database",
    sqlite3.SQLITE_READONLY: "the database is read-only",
    sqlite3.SQLITE_CANTOPEN: "the database can't be opened",
}


class SQLite:
    """Keeps lines in the SQLite database at `path`, which is created if there is none.

    What `retention` does not cover is removed, the oldest first, in small steps.
    """

    def __init__(
        self,
        path: str,
        retention: Retention = EVERYTHING,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._real = path
        self._expiry = Expiry(retention, clock)
        self._written = 0  # bytes since the last checkpoint, about
        self._guard = Guard(path)
        self._lock = -1
        #: Bytes that have to stay free on the disk: below, lines are refused.
        self.reserve = 0
        self._space = Space(path, 0)

    def open(self) -> None:
        """Open or create the database, and check that its commits will be durable.

        :raises CannotStart: With the reason.
        """
        try:
            self._open()
        except CannotStart:
            self._release()
            raise
        except (OSError, sqlite3.Error, StoreError) as problem:
            self._release()
            raise CannotStart(f"store {self._path}: {_reason(problem)}") from problem

    def _open(self) -> None:
        # SQLite keeps its log beside the file itself, not beside a link to it; and twistd
        # changes folders between the options and this.
        self._real = os.path.realpath(self._path)
        self._guard = Guard(self._real)
        self._space = Space(self._path, self.reserve)
        if os.path.exists(self._real) and not stat.S_ISREG(os.stat(self._real).st_mode):
            raise CannotStart(f"store {self._path}: it is no file, but a folder or a device")
        # Held open to the end: closing any descriptor of the file would drop the
        # locks SQLite has on it (https://www.sqlite.org/howtocorrupt.html, 2.2).
        self._lock = os.open(self._real, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(f"store {self._path}: another server is using it") from None
        self._database = sqlite3.connect(
            self._real, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        self._prepare()
        # Otherwise the file itself might be gone after a power failure, even one that existed:
        # its creator may have been killed before this.
        folder = os.open(os.path.dirname(self._real), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._guard.open()
        self._expiry.begin(self._database)
        self._inspection = Inspection(self._real)
        self._inspection.start()

    def _prepare(self) -> None:
        """Create or check the schema, and check the settings that make commits durable."""
        ask = self._database.execute
        (version,) = ask("PRAGMA user_version").fetchone()
        (tables,) = ask("SELECT count(*) FROM sqlite_master").fetchone()
        if version > SCHEMA_VERSION:
            raise CannotStart(
                f"store {self._path}: its schema has version {version}, this program knows "
                f"{SCHEMA_VERSION}: use a newer one"
            )
        if (version or tables) and not (version == SCHEMA_VERSION and self._isOurs()):
            raise CannotStart(f"store {self._path}: it is the database of another program")
        (mode,) = ask("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise CannotStart(
                f"store {self._path}: its file system allows no write-ahead log (journal mode "
                f"{mode}), without which lines can't be stored durably"
            )
        ask("PRAGMA synchronous=FULL")
        ask("PRAGMA wal_autocheckpoint=0")  # it is done between commits
        ask(f"PRAGMA journal_size_limit={LOG_LIMIT}")
        (level,) = ask("PRAGMA synchronous").fetchone()
        if level != 2:
            raise CannotStart(f"store {self._path}: SQLite does not sync its commits")
        if version == 0:
            self._database.executescript(
                f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;"
            )
        else:
            glance(self._real)
            # Creates the log if there is none, and shows whether it can be written.
            ask("BEGIN IMMEDIATE")
            ask(f"PRAGMA user_version={SCHEMA_VERSION}")
            ask("COMMIT")

    def _isOurs(self) -> bool:
        columns = self._database.execute("SELECT name FROM pragma_table_info('lines')")
        return {"id", "received", "peer", "listener", "line"} <= {name for (name,) in columns}

    def commit(self, batches: list[Batch]) -> None:
        """Store all lines of `batches` in one transaction.

        :raises StoreError: It was rolled back whole; or, if it is not `certain`, a part of it
            that was written could not be made invalid, or is in files nobody will find.
        """
        try:
            values: list[object] = []
            for received, peer, listener, lines in batches:
                same = repeat(received), repeat(peer), repeat(listener)
                values += chain.from_iterable(zip(*same, lines, strict=False))
            count = len(values) // 4
            self._expiry.added(count)
            sizes = sum(map(len, values[3::4]))  # type: ignore[arg-type]
            self._written += _COMMIT_SIZE + count * LINE_SIZE + sizes
            self._guard.before()
            self._space.check(self._lock, sizes)
            self._insert(values)
        except Exception as problem:
            raise self._undone(problem) from problem
        try:
            self._guard.after()
            if self._guard.foreign:
                self._guard.foreign = False
                self._inspection.again()
        except (OSError, sqlite3.Error, StoreError) as problem:
            raise StoreError(_reason(problem), retry=False, certain=False) from problem

    def _undone(self, problem: Exception) -> StoreError:
        """Undo a commit that failed; return what is to be told of it."""
        self._rollback()
        if isinstance(problem, StoreError):
            return problem
        told = _storeError(problem)
        if told.reason == _LOCKED:
            return told
        # The sync may have failed, or what comes behind it: then it is in the log as a whole.
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                self._guard.spoil()
            finally:
                self._rollback()
        except (OSError, sqlite3.Error):
            return StoreError(told.reason, retry=told.retry, certain=False)
        return told

    def _insert(self, values: list[object]) -> None:
        execute = self._database.execute
        # A statement is a transaction of its own.
        alone = len(values) <= _MOST * 4
        if not alone:
            execute("BEGIN IMMEDIATE")
        for at in range(0, len(values), _MOST * 4):
            some = values[at : at + _MOST * 4]
            count = len(some) // 4
            rows = 1 << (count - 1).bit_length()
            some += repeat(None, (rows - count) * 4)
            some.append(count)
            execute(_INSERT[rows], some)
        if not alone:
            execute("COMMIT")

    def _rollback(self) -> None:
        # What made the commit fail may make this fail too; then it is rolled back when
        # the database is next opened.
        with suppress(sqlite3.Error):
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    def tidy(self) -> bool:
        """Checkpoint the log if it is long; remove some lines that need not be retained.

        :raises StoreError: The database failed.
        """
        try:
            if self._written >= CHECKPOINT:
                self._checkpoint()
            return self._prune()
        except sqlite3.Error as problem:
            self._rollback()
            raise _storeError(problem) from problem

    def _checkpoint(self) -> None:
        """Write the log into the file, as far as readers permit."""
        self._written = 0
        self._guard.after()
        self._guard.checkIndex()
        checkpoint = self._database.execute("PRAGMA wal_checkpoint(PASSIVE)")
        _, length, done = checkpoint.fetchone()
        self._guard.checkpointed(length, done)
        self._space.grown((length - done) * _PAGE)

    def _prune(self) -> bool:
        """Remove the lines of one step; False when all that is left is retained."""
        expired = self._expiry.step(self._database)
        if expired is None:
            return False
        self._written += STEP_BYTES
        # Only commits wait for another holder of the lock; this can be done later.
        self._database.execute("PRAGMA busy_timeout=0")
        try:
            expired.remove(self._database)
        finally:
            self._database.execute(f"PRAGMA busy_timeout={LOCK_TIMEOUT * 1000:.0f}")
        return True

    def close(self) -> None:
        """Write the log into the database, and close it."""
        self._inspection.stop()
        # If that fails, the lines are read back from the log at the next start.
        with suppress(sqlite3.Error, OSError, StoreError):
            self._checkpoint()
        with suppress(sqlite3.Error):
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._database.close()
        self._release()

    def _release(self) -> None:
        self._guard.close()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1


def _reason(problem: OSError | sqlite3.Error | StoreError) -> str:
    if isinstance(problem, StoreError):
        return problem.reason
    if isinstance(problem, OSError):
        return os.strerror(problem.errno or 0)
    code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return _REASONS.get(code, str(problem))


def _storeError(problem: Exception) -> StoreError:
    if isinstance(problem, MemoryError):
        return StoreError("out of memory", retry=True)
    if not isinstance(problem, (OSError, sqlite3.Error)):
        return StoreError(f"{type(problem).__name__}: {problem}", retry=False)
    code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return StoreError(_reason(problem), retry=code in _RETRY)
