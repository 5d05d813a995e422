"""The embedded engine: one SQLite file, in WAL mode, synced at every commit.

Why each commit is durable: https://www.sqlite.org/wal.html and
https://www.sqlite.org/pragma.html#pragma_synchronous (FULL syncs the WAL after each
transaction; NORMAL does not, and loses acknowledged lines when power fails).
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, repeat

from sockservice.starting import CannotStart
from sockservice.store import EVERYTHING, Batch, Retention, StoreError

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

#: Lines removed in one step, at least, unless they take up more bytes than this.
STEP, STEP_BYTES = 1000, 512 * 1024

# Rows in one statement: executing a statement for each row would give up and take
# back the interpreter's lock each time, which halves the speed. Few sizes, so that
# each is prepared once.
_ROWS = (4096, 1024, 256, 64, 16, 4, 1)
_INSERT = {
    rows: "INSERT INTO lines(received, peer, listener, line) VALUES "
    + ",".join(repeat("(?,?,?,?)", rows))
    for rows in _ROWS
}

_RETRY = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_REASONS = {
    sqlite3.SQLITE_FULL: "disk full",
    sqlite3.SQLITE_BUSY: "another process holds the write lock",
    sqlite3.SQLITE_LOCKED: "another process holds the write lock",
    sqlite3.SQLITE_IOERR: "I/O error",
    sqlite3.SQLITE_CORRUPT: "the database is corrupt",
    sqlite3.SQLITE_NOTADB: "the file is no database",
    sqlite3.SQLITE_READONLY: "the database is read-only",
    sqlite3.SQLITE_CANTOPEN: "the database can't be opened",
}


class SQLite:
    """Keep lines in the SQLite database at `path`, which is made if there is none.

    What `retention` does not cover is removed, the oldest first, in small steps.
    """

    def __init__(
        self,
        path: str,
        retention: Retention = EVERYTHING,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        # SQLite keeps its log beside the file itself, not beside a link to it.
        self._real = os.path.realpath(path)
        self._retention = retention
        self._clock = clock
        self._latest = 0  # lines in the latest commit
        self._longest = 0  # bytes of the file
        self._files: list[tuple[str, int, int]] = []  # path, device, inode
        self._lock = -1

    def open(self) -> None:
        """Open or make the database, and see that its commits will be durable.

        :raises CannotStart: With the reason.
        """
        try:
            self._open()
        except CannotStart:
            self._release()
            raise
        except (OSError, sqlite3.Error) as problem:
            self._release()
            raise CannotStart(f"store {self._path}: {_reason(problem)}") from problem

    def _open(self) -> None:
        new = not os.path.exists(self._path)
        # Held open to the end: closing any descriptor of the file would drop the
        # locks SQLite has on it (https://www.sqlite.org/howtocorrupt.html, 2.2).
        self._lock = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(f"store {self._path}: another server is using it") from None
        self._database = sqlite3.connect(
            self._path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        self._prepare()
        if new:
            # Else the file itself might be gone after a power failure.
            folder = os.open(os.path.dirname(self._real), os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        for path in (self._real, f"{self._real}-wal"):
            found = os.stat(path)
            self._files.append((path, found.st_dev, found.st_ino))

    def _prepare(self) -> None:
        """Make or check the schema, and the promise of durability."""
        ask = self._database.execute
        (version,) = ask("PRAGMA user_version").fetchone()
        tables = {name for (name,) in ask("SELECT name FROM sqlite_master")}
        if version > SCHEMA_VERSION:
            raise CannotStart(
                f"store {self._path}: its schema has version {version}, this program knows "
                f"{SCHEMA_VERSION}: use a newer one"
            )
        if (tables and "lines" not in tables) or (version == 0 and tables):
            raise CannotStart(f"store {self._path}: it is the database of another program")
        (mode,) = ask("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise CannotStart(
                f"store {self._path}: its file system allows no write-ahead log (journal mode "
                f"{mode}), without which lines can't be stored durably"
            )
        ask("PRAGMA synchronous=FULL")
        ask("PRAGMA journal_size_limit=67108864")
        (level,) = ask("PRAGMA synchronous").fetchone()
        if level != 2:
            raise CannotStart(f"store {self._path}: SQLite does not sync its commits")
        if version == 0:
            self._database.executescript(
                f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;"
            )
        else:
            (state,) = ask("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise CannotStart(f"store {self._path}: the database is corrupt")
            # Makes the log if there is none, and shows whether it can be written.
            ask("BEGIN IMMEDIATE")
            ask(f"PRAGMA user_version={SCHEMA_VERSION}")
            ask("COMMIT")

    def commit(self, batches: list[Batch]) -> None:
        """Store all lines of `batches` in one transaction.

        :raises StoreError: It was rolled back whole.
        """
        values: list[object] = []
        for received, peer, listener, lines in batches:
            same = repeat(received), repeat(peer), repeat(listener)
            values += chain.from_iterable(zip(*same, lines, strict=False))
        self._latest = len(values) // 4
        try:
            self._insert(values)
            self._present()
        except sqlite3.Error as problem:
            self._rollback()
            raise _storeError(problem) from problem
        except BaseException:
            self._rollback()
            raise

    def _insert(self, values: list[object]) -> None:
        execute = self._database.execute
        execute("BEGIN IMMEDIATE")
        at = 0
        for rows in _ROWS:
            while len(values) - at >= rows * 4:
                execute(_INSERT[rows], values[at : at + rows * 4])
                at += rows * 4
        execute("COMMIT")

    def _rollback(self) -> None:
        # What made the commit fail may fail this, too; then it is rolled back when
        # the database is opened next.
        with suppress(sqlite3.Error):
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    def _present(self) -> None:
        """See that what was just synced is what will be found by that name.

        SQLite goes on writing, without a word, to a file that was renamed or deleted.

        :raises StoreError: Another file, or none, is there.
        """
        for path, device, inode in self._files:
            try:
                found = os.stat(path)
            except OSError as problem:
                raise StoreError(f"{path} was renamed or deleted", retry=False) from problem
            if (found.st_dev, found.st_ino) != (device, inode):
                raise StoreError(f"{path} was replaced", retry=False)
            if path == self._real:
                # Lines are only ever overwritten by lines: the file never gets shorter.
                if found.st_size < self._longest:
                    raise StoreError(f"{path} was truncated", retry=False)
                self._longest = found.st_size

    def tidy(self) -> bool:
        """Remove some of the oldest lines, if there are any that need not be retained.

        :raises StoreError: The database failed.
        """
        if self._retention == EVERYTHING:
            return False
        try:
            return self._prune()
        except sqlite3.Error as problem:
            self._rollback()
            raise _storeError(problem) from problem

    def _prune(self) -> bool:
        ask = self._database.execute
        oldest = ask("SELECT id, received FROM lines ORDER BY id LIMIT 1").fetchone()
        if oldest is None:
            return False
        first, received = oldest
        # Twice what came in, to get ahead of it, and no more than takes milliseconds.
        last = self._reach(first, max(STEP, 2 * self._latest))
        self._latest = 0
        age, size = self._retention
        if size is not None and self._size() > size:
            ask("DELETE FROM lines WHERE id < ?", (last,))
            return True
        if age is not None:
            before = int((self._clock() - age) * 1_000_000)
            if received < before:
                ask("DELETE FROM lines WHERE id < ? AND received < ?", (last, before))
                return True
        return False

    def _reach(self, first: int, most: int) -> int:
        """Give the id up to which lines can be removed in one step of a few milliseconds."""
        lengths = self._database.execute(
            "SELECT id, length(line) FROM lines WHERE id >= ? ORDER BY id LIMIT ?", (first, most)
        )
        removed = 0
        for number, length in lengths:
            first = number + 1
            removed += length
            if removed > STEP_BYTES:
                break
        return first

    def _size(self) -> int:
        """Bytes of the database that are in use."""
        sizes = ("page_count", "freelist_count", "page_size")
        pages, free, size = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0] for name in sizes
        )
        return int((pages - free) * size)

    def close(self) -> None:
        """Write the log into the database, and close it."""
        # Where that fails the lines are read back from the log at the next start.
        with suppress(sqlite3.Error):
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._database.close()
        self._release()

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _reason(problem: OSError | sqlite3.Error) -> str:
    if isinstance(problem, OSError):
        return os.strerror(problem.errno or 0)
    code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return _REASONS.get(code, str(problem))


def _storeError(problem: sqlite3.Error) -> StoreError:
    code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return StoreError(_reason(problem), retry=code in _RETRY)
