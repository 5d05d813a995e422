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
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from sockservice.errors import CannotStart, StoreError
from sockservice.store.engine import EVERYTHING, SESSIONS, Batch, Item, Outcome, Retention
from sockservice.store.inspection import Inspection
from sockservice.store.linetable import SCHEMA, SCHEMA_VERSION, insert, isOurs, last, rows
from sockservice.store.openable import openable
from sockservice.store.retention import LINE_SIZE, STEP_BYTES, Expiry
from sockservice.store.sessions import Decided
from sockservice.store.sessiontable import VERSION, SessionTable, moveOn, save
from sockservice.store.space import Space
from sockservice.store.sqliteerrors import LOCKED, reason, storeError
from sockservice.store.walguard import LOG_LIMIT, Guard, glance

#: Seconds to wait for another process that holds the write lock.
LOCK_TIMEOUT = 2.0

#: Bytes written between two checkpoints, about: SQLite's own thousand pages.
CHECKPOINT = 4 * 1024 * 1024
# Bytes of a page, SQLite's default.
_PAGE = 4096
# Bytes that a commit writes at least.
_COMMIT_SIZE = 8192


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
        self._connected = ExitStack()
        #: Bytes that have to stay free on the disk: below, lines are refused.
        self.reserve = 0
        self._space = Space(path, 0)
        self._clock = clock
        self._sessions: SessionTable | None = None

    def keepSessions(
        self, most: int = SESSIONS, age: float = 0, expired: Callable[[int], object] = int
    ) -> None:
        """Keep sessions as well, as SessionBackend says."""
        self._sessions = SessionTable(most, age, expired, self._clock)

    def check(self) -> str:
        """See whether it could be opened, without changing anything; return what is there.

        :raises CannotStart: It could not.
        """
        return openable(self._path)

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
            raise CannotStart(f"store {self._path}: {reason(problem)}") from problem

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
        self._connected.callback(self._database.close)
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
        if version > VERSION:
            raise CannotStart(
                f"store {self._path}: its schema has version {version}, this program knows "
                f"{VERSION}: use a newer one"
            )
        if (version or tables) and not (version and isOurs(self._database)):
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
            version = SCHEMA_VERSION
            self._database.executescript(
                f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version={version};COMMIT;"
            )
        else:
            glance(self._real)
            # Creates the log if there is none, and shows whether it can be written.
            ask("BEGIN IMMEDIATE")
            ask(f"PRAGMA user_version={version}")
            ask("COMMIT")
        if self._sessions is not None:
            self._sessions.open(self._database, version)

    def commit(self, batches: Sequence[Item]) -> Sequence[Outcome] | None:
        """Store all lines of `batches` in one transaction, but for those that are denied.

        :raises StoreError: It was rolled back whole; or, if it is not `certain`, a part of it
            that was written could not be made invalid, or is in files nobody will find.
        """
        sessions = self._sessions
        decided: Decided | None = None
        try:
            plain: Any = batches
            if sessions is not None and any(type(each) is not Batch for each in batches):
                decided = sessions.decide(batches)
                plain = decided.batches
            values = rows(plain)
            count = len(values) // 4
            self._expiry.added(count)
            sizes = sum(map(len, values[3::4]))  # type: ignore[arg-type]
            self._written += _COMMIT_SIZE + count * LINE_SIZE + sizes
            self._guard.before()
            self._space.check(self._lock, sizes)
            if decided is not None and decided.rows:
                self._database.execute("BEGIN IMMEDIATE")
                insert(self._database, values)
                changed, claimed = decided.rows.values(), decided.claimed
                save(self._database, [row for row in changed if row.name in claimed])
                moveOn(self._database, [row for row in changed if row.name not in claimed])
                self._database.execute("COMMIT")
            else:
                insert(self._database, values)
        except Exception as problem:
            if sessions is not None:
                sessions.failed()
            raise self._undone(problem) from problem
        if sessions is not None and decided is not None:
            sessions.committed(decided)
        try:
            self._guard.after()
            if self._guard.foreign:
                self._guard.foreign = False
                self._inspection.again()
        except (OSError, sqlite3.Error, StoreError) as problem:
            raise StoreError(reason(problem), retry=False, certain=False) from problem
        return None if decided is None or not any(decided.outcomes) else decided.outcomes

    def _undone(self, problem: Exception) -> StoreError:
        """Undo a commit that failed; return what is to be told of it."""
        self._rollback()
        if isinstance(problem, StoreError):
            return problem
        told = storeError(problem)
        if told.reason == LOCKED:
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
            return self._prune() or (self._sessions is not None and self._sessions.expire())
        except sqlite3.Error as problem:
            self._rollback()
            raise storeError(problem) from problem

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

    def figures(self) -> dict[str, float]:
        """Return the sizes of the file and of its log, and the last line's number."""
        found: dict[str, float] = {}
        for name, path in (("file", self._real), ("log", self._real + "-wal")):
            with suppress(OSError):
                found[name] = os.stat(path).st_size
        found["last"] = last(self._database)
        return found

    def close(self) -> None:
        """Write the log into the database, and close it."""
        self._inspection.stop()
        # If that fails, the lines are read back from the log at the next start.
        with suppress(sqlite3.Error, OSError, StoreError):
            self._checkpoint()
        with suppress(sqlite3.Error):
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._release()

    def _release(self) -> None:
        # Before the descriptors, which would take SQLite's locks away.
        self._connected.close()
        self._guard.close()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1
