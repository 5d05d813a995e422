"""Check that a database file, its log (-wal) and its index (-shm) are still what they were.

SQLite goes on silently with files that were renamed, deleted or overwritten
(https://www.sqlite.org/howtocorrupt.html); nobody would find what it then stores.
"""

import errno
import os
import sqlite3
import sys
from contextlib import closing

from sockservice.errors import StoreError

#: Bytes of the log that are kept when it has been longer and is begun again.
LOG_LIMIT = 64 * 1024 * 1024

# Bytes of the index's header, both copies (https://www.sqlite.org/walformat.html, 2.1), and
# where the number of the log's last valid frame stands in it.
_INDEX_HEADER = 96
_LAST_FRAME = 16
# Bytes of the log's header, where the size of a page and the salts stand in it; of a frame's
# header, and where the salts stand in that.
_LOG_HEADER, _PAGE_SIZE, _LOG_SALTS = 32, 8, 16
_FRAME_HEADER, _FRAME_SALTS, _SALTS = 24, 8, 8


def glance(path: str) -> None:
    """Read the first and the last line; takes as long whatever the size of the file.

    :raises sqlite3.Error: They can't be read.
    """
    # A connection of its own: that of the engine would look at its cached pages.
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for order in ("ASC", "DESC"):
            database.execute(f"SELECT id, line FROM lines ORDER BY id {order} LIMIT 1").fetchone()


class Guard:
    """Remembers the files of the database at `path` as they were last written by us.

    `path` is the file's own, not that of a link to it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: tuple[int, int, int, int] | None = None  # as we left it
        self._log = self._index = -1
        self._logLength = 0
        self._logNeeded = True  # it holds what the file doesn't
        self._logBegin = b""
        self._lastFrame = 0  # of the log, before the commit
        #: Whether another program has written to the file.
        self.foreign = False

    def open(self) -> None:
        """Remember the files as they are now.

        :raises OSError: One of them can't be opened.
        :raises StoreError: The database file is gone.
        """
        self._file = self._state()
        self._log = os.open(f"{self._path}-wal", os.O_RDWR)
        # Kept open: closing any descriptor of it would drop SQLite's locks.
        self._index = os.open(f"{self._path}-shm", os.O_RDWR)
        self._logBegin = self._beginOfLog()

    def close(self) -> None:
        """Close the descriptors that `open` opened."""
        for descriptor in (self._index, self._log):
            if descriptor >= 0:
                os.close(descriptor)
        self._index = self._log = -1

    def before(self) -> None:
        """Check, before a commit, what the commit would hide or damage.

        :raises StoreError: The index or the log is not what it was.
        """
        self.checkIndex()
        truncated = self._lengthOfLog() < min(self._logLength, LOG_LIMIT)
        # Another program may do so after a full checkpoint.
        if truncated and self._logNeeded and self._state() == self._file:
            raise StoreError(f"{self._path}-wal was truncated", retry=False)
        self._logNeeded = True
        self._lastFrame = self._countedFrames()

    def after(self) -> None:
        """Check, after a commit, that the files synced are those which have the names.

        :raises StoreError: It is not.
        """
        state = self._state()
        if state != self._file:
            # We write the file itself only in a checkpoint, so somebody else has.
            if self._file is not None and state[:2] != self._file[:2]:
                raise StoreError(f"{self._path} was replaced", retry=False)
            glance(self._path)
            self._file = state
            self.foreign = True
        # No stat() of this one: where files have fine timestamps (Linux 6.13), the next
        # write would have to change them, which makes a commit of one line a third slower.
        self._checkName(self._log, f"{self._path}-wal")
        if self._beginOfLog() != self._logBegin:
            raise StoreError(f"{self._path}-wal was overwritten", retry=False)
        self._logLength = self._lengthOfLog()

    def checkIndex(self) -> None:
        """Check that others use the same index; otherwise they may write the log while we do.

        :raises StoreError: They don't.
        """
        try:
            self._checkName(self._index, f"{self._path}-shm")
        except StoreError:
            self._dropIndex()
            raise

    def spoil(self) -> None:
        """Make what a failed commit has left in the log invalid, durably.

        SQLite recovers all frames that are whole, also those whose sync failed, and which it
        therefore does not count. A frame makes those behind it invalid, too. The write lock
        has to be held, so that nothing else is written there meanwhile.

        :raises OSError: It may be recovered, or has been by another process.
        """
        last = self._countedFrames()
        # 0: the commit has begun the log again.
        if last not in (0, self._lastFrame):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        header = os.pread(self._log, _LOG_HEADER, 0)
        size = int.from_bytes(header[_PAGE_SIZE : _PAGE_SIZE + 4], "big")
        at = _LOG_HEADER + last * (_FRAME_HEADER + size)
        frame = os.pread(self._log, _FRAME_HEADER, at)
        salts = header[_LOG_SALTS : _LOG_SALTS + _SALTS]
        if frame[_FRAME_SALTS : _FRAME_SALTS + _SALTS] == salts:
            os.pwrite(self._log, bytes(_FRAME_HEADER), at)
            os.fdatasync(self._log)

    def checkpointed(self, length: int, done: int) -> None:
        """Note a checkpoint that wrote `done` of `length` pages of the log.

        :raises StoreError: There are not that many, so the index was overwritten.
        """
        if not -1 <= done <= length:
            # SQLite would take all to be done, and delete the log when it closes.
            self._dropIndex()
            raise StoreError(f"{self._path}-shm was overwritten", retry=False)
        self._logNeeded = length != done
        self._file = self._state()

    def _dropIndex(self) -> None:
        """Make SQLite rebuild its index from the log when it closes."""
        os.pwrite(self._index, bytes(_INDEX_HEADER), 0)

    def _checkName(self, descriptor: int, path: str) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") != path:
            how = "replaced" if os.path.exists(path) else "renamed or deleted"
            raise StoreError(f"{path} was {how}", retry=False)

    def _countedFrames(self) -> int:
        """Return how many frames of the log are valid, by the index."""
        return int.from_bytes(os.pread(self._index, 4, _LAST_FRAME), sys.byteorder)

    def _lengthOfLog(self) -> int:
        return os.lseek(self._log, 0, os.SEEK_END)

    def _beginOfLog(self) -> bytes:
        """Return the part of the log that never changes: magic number, version, page size."""
        return os.pread(self._log, 12, 0)

    def _state(self) -> tuple[int, int, int, int]:
        """Return what changes when the file is replaced or written to."""
        try:
            found = os.stat(self._path)
        except OSError as problem:
            raise StoreError(f"{self._path} was renamed or deleted", retry=False) from problem
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
