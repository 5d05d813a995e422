"""The embedded engine: one SQLite file, in WAL mode, synced at every commit.

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
from contextlib import closing, suppress
from itertools import chain, repeat

from sockservice.errors import CannotStart, StoreError
from sockservice.store.engine import EVERYTHING, Batch, Retention

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

#: Bytes written between two checkpoints, about: SQLite's own thousand pages.
CHECKPOINT = 4 * 1024 * 1024
#: Bytes of the log that are left to it when it has been longer and is begun again.
LOG_LIMIT = 64 * 1024 * 1024
# Bytes of the index's head, both copies (https://www.sqlite.org/walformat.html, 2.1).
_INDEX_HEAD = 96
# What a commit writes at least, and what a line takes up beside its bytes.
_COMMIT_SIZE, _LINE_SIZE = 8192, 64

# Lines in one statement. Executing a statement for each line would give up and take
# back the interpreter's lock each time, which halves the speed. Few sizes, so that
# each is prepared once; what is left of one is cut off by its LIMIT.
_MOST = 4096
_INSERT = {
    rows: "INSERT INTO lines(received, peer, listener, line) SELECT * FROM (VALUES "
    + ",".join(repeat("(?,?,?,?)", rows))
    + ") LIMIT ?"
    for rows in (1 << power for power in range(_MOST.bit_length()))
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
        self._real = path
        self._retention = retention
        self._clock = clock
        self._latest = 0  # lines in the latest commit
        self._written = 0  # bytes since the last checkpoint, about
        self._file: tuple[int, int, int, int] | None = None  # as we left it
        self._log = self._index = -1
        self._logLength = 0
        self._logNeeded = True  # it holds what the file doesn't
        self._logBegin = b""
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
        except (OSError, sqlite3.Error, StoreError) as problem:
            self._release()
            raise CannotStart(f"store {self._path}: {_reason(problem)}") from problem

    def _open(self) -> None:
        # SQLite keeps its log beside the file itself, not beside a link to it; and twistd
        # changes folders between the options and this.
        self._real = os.path.realpath(self._path)
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
        # Else the file itself might be gone after a power failure. Also if it was there:
        # who made it may have been killed before this.
        folder = os.open(os.path.dirname(self._real), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._file = self._state()
        self._log = os.open(f"{self._real}-wal", os.O_RDONLY)
        # As for the file, a descriptor that is closed takes locks away.
        self._index = os.open(f"{self._real}-shm", os.O_RDWR)
        self._logBegin = self._beginOfLog()

    def _prepare(self) -> None:
        """Make or check the schema, and the promise of durability."""
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
            self._check()
            # Makes the log if there is none, and shows whether it can be written.
            ask("BEGIN IMMEDIATE")
            ask(f"PRAGMA user_version={SCHEMA_VERSION}")
            ask("COMMIT")

    def _isOurs(self) -> bool:
        columns = self._database.execute("SELECT name FROM pragma_table_info('lines')")
        return {"id", "received", "peer", "listener", "line"} <= {name for (name,) in columns}

    def commit(self, batches: list[Batch]) -> None:
        """Store all lines of `batches` in one transaction.

        :raises StoreError: It was rolled back whole.
        """
        values: list[object] = []
        for received, peer, listener, lines in batches:
            same = repeat(received), repeat(peer), repeat(listener)
            values += chain.from_iterable(zip(*same, lines, strict=False))
        self._latest = len(values) // 4
        sizes = sum(map(len, values[3::4]))  # type: ignore[arg-type]
        self._written += _COMMIT_SIZE + self._latest * _LINE_SIZE + sizes
        try:
            self._verifyIndex()
            self._verifyLength()
            self._logNeeded = True
            self._insert(values)
            self._verify()
        except sqlite3.Error as problem:
            self._rollback()
            raise _storeError(problem) from problem
        except BaseException:
            self._rollback()
            raise

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
        # What made the commit fail may fail this, too; then it is rolled back when
        # the database is opened next.
        with suppress(sqlite3.Error):
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    def _verify(self) -> None:
        """See that what was just synced is what will be found by that name.

        SQLite goes on, without a word, with a file that was renamed, deleted or
        overwritten.

        :raises StoreError: It is not.
        """
        state = self._state()
        if state != self._file:
            # We write the file itself only in a checkpoint, so somebody else has.
            if self._file is not None and state[:2] != self._file[:2]:
                raise StoreError(f"{self._real} was replaced", retry=False)
            self._check()
            self._file = state
        # No stat() of this one: where files have fine timestamps (Linux 6.13), the next
        # write would have to change them, which makes a commit of one line a third slower.
        self._verifyName(self._log, f"{self._real}-wal")
        if self._beginOfLog() != self._logBegin:
            raise StoreError(f"{self._real}-wal was overwritten", retry=False)
        self._logLength = self._lengthOfLog()

    def _verifyName(self, descriptor: int, path: str) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") != path:
            how = "replaced" if os.path.exists(path) else "renamed or deleted"
            raise StoreError(f"{path} was {how}", retry=False)

    def _verifyIndex(self) -> None:
        """See that others use the same index of the log; else they may write it while we do.

        :raises StoreError: They don't.
        """
        try:
            self._verifyName(self._index, f"{self._real}-shm")
        except StoreError:
            self._dropIndex()
            raise

    def _dropIndex(self) -> None:
        """Have SQLite make its index anew, from the log, when it closes."""
        os.pwrite(self._index, bytes(_INDEX_HEAD), 0)

    def _verifyLength(self) -> None:
        """See that nobody has truncated the log, which the next commit would make long again.

        :raises StoreError: Somebody has.
        """
        truncated = self._lengthOfLog() < min(self._logLength, LOG_LIMIT)
        # Another program may do so when it has written it all into the file.
        if truncated and self._logNeeded and self._state() == self._file:
            raise StoreError(f"{self._real}-wal was truncated", retry=False)

    def _lengthOfLog(self) -> int:
        return os.lseek(self._log, 0, os.SEEK_END)

    def _state(self) -> tuple[int, int, int, int]:
        """Give what changes when the file is replaced or written to."""
        try:
            found = os.stat(self._real)
        except OSError as problem:
            raise StoreError(f"{self._real} was renamed or deleted", retry=False) from problem
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _beginOfLog(self) -> bytes:
        """Give what never changes of the log: magic number, version, size of a page."""
        return os.pread(self._log, 12, 0)

    def _check(self) -> None:
        """See that the file is a sound database; takes time in proportion to it.

        :raises StoreError: It is not.
        """
        # A connection of its own: this one has pages in memory, and would look there.
        with closing(sqlite3.connect(self._real, isolation_level=None)) as database:
            (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise StoreError("the database is corrupt", retry=False)

    def tidy(self) -> bool:
        """Checkpoint the log if it is long; remove some lines that need not be retained.

        :raises StoreError: The database failed.
        """
        try:
            if self._written >= CHECKPOINT:
                self._checkpoint()
            return self._retention != EVERYTHING and self._prune()
        except sqlite3.Error as problem:
            self._rollback()
            raise _storeError(problem) from problem

    def _checkpoint(self) -> None:
        """Write the log into the file, as far as no reader needs the file as it is."""
        self._written = 0
        self._verify()
        self._verifyIndex()
        checkpoint = self._database.execute("PRAGMA wal_checkpoint(PASSIVE)")
        _, length, done = checkpoint.fetchone()
        if not -1 <= done <= length:
            # SQLite would take all for done, and delete the log when it closes.
            self._dropIndex()
            raise StoreError(f"{self._real}-shm was overwritten", retry=False)
        self._logNeeded = length != done
        self._file = self._state()

    def _prune(self) -> bool:
        ask = self._database.execute
        oldest = ask("SELECT id, received FROM lines ORDER BY id LIMIT 1").fetchone()
        if oldest is None:
            return False
        first, received = oldest
        age, size = self._retention
        if size is not None and (excess := self._size() - size) > 0:
            # A little more, so that it need not be done again for each page.
            self._remove(first, None, excess + size // 32)
            return True
        before = None if age is None else int((self._clock() - age) * 1_000_000)
        if before is not None and received < before:
            self._remove(first, before, STEP_BYTES)
            return True
        return False

    def _remove(self, first: int, before: int | None, size: int) -> None:
        """Remove lines from the id `first` on, those received `before` some moment, if any.

        They are those that take up `size` bytes, or fewer.
        """
        ask = self._database.execute
        # Twice what came in, to get ahead of it, and no more than takes milliseconds.
        last = self._reach(first, max(STEP, 2 * self._latest), min(size, STEP_BYTES))
        self._latest = 0
        self._written += STEP_BYTES
        # Whoever holds the lock is waited for by commits only; this can be done later.
        ask("PRAGMA busy_timeout=0")
        try:
            if before is None:
                ask("DELETE FROM lines WHERE id < ?", (last,))
            else:
                ask("DELETE FROM lines WHERE id < ? AND received < ?", (last, before))
        finally:
            ask(f"PRAGMA busy_timeout={LOCK_TIMEOUT * 1000:.0f}")

    def _reach(self, first: int, most: int, size: int) -> int:
        """Give the id up to which lines are removed: `most` of them, or `size` bytes."""
        lengths = self._database.execute(
            "SELECT id, length(line) FROM lines WHERE id >= ? ORDER BY id LIMIT ?", (first, most)
        )
        removed = 0
        for number, length in lengths:
            first = number + 1
            removed += length + _LINE_SIZE
            if removed > size:
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
        with suppress(sqlite3.Error, OSError, StoreError):
            self._checkpoint()
        with suppress(sqlite3.Error):
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._database.close()
        self._release()

    def _release(self) -> None:
        for descriptor in (self._index, self._log, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._index = self._log = self._lock = -1


def _reason(problem: OSError | sqlite3.Error | StoreError) -> str:
    if isinstance(problem, StoreError):
        return problem.reason
    if isinstance(problem, OSError):
        return os.strerror(problem.errno or 0)
    code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return _REASONS.get(code, str(problem))


def _storeError(problem: sqlite3.Error) -> StoreError:
    code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return StoreError(_reason(problem), retry=code in _RETRY)
