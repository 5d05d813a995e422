"""Refuse lines while the disk still has room for all that has been acknowledged; warn before."""

import os
from collections.abc import Callable

from twisted.logger import Logger

from sockservice.errors import StoreError
from sockservice.wire.plurals import counted, plural

#: Bytes that have to stay free: what the log holds between two checkpoints, many times over, so
#: that everything acknowledged can be written into the file, lines be removed, and a copy of
#: the log be looked at, on a disk that is full for everybody else.
RESERVE = 64 * 1024 * 1024
#: The log warns when less than so many times the reserve is free, and says so again only after
#: there has been more.
WARNING = 4
#: Commits, and bytes of them, between two looks at what is free, while there is enough.
COMMITS, BYTES = 16, 1024 * 1024
#: Bytes of the write-ahead log at which a warning is due, and again at each doubling: readers
#: that are in time keep it far below that.
LONG_LOG = 256 * 1024 * 1024

log = Logger()


def free(descriptor: int) -> int:
    """Return the bytes that this user may still write to the file system of an open file."""
    found = os.fstatvfs(descriptor)
    return found.f_bavail * found.f_frsize


class Space:
    """Watches over the space for the store at `path`; `reserve` bytes of it stay free."""

    def __init__(self, path: str, reserve: int, free: Callable[[int], int] = free) -> None:
        self._path = path
        self._reserve = reserve
        self._free = free
        self._scarce = False
        self._commits = self._bytes = 0  # until the next look
        self._warnAt = LONG_LOG

    def check(self, descriptor: int, size: int) -> None:
        """Check, before a commit of `size` bytes, that enough is free where the open file is.

        :raises StoreError: It is not.
        """
        if not self._reserve:
            return
        self._commits -= 1
        self._bytes -= size
        if not self._scarce and self._commits > 0 and self._bytes > 0:
            return
        self._commits, self._bytes = COMMITS, BYTES
        there = self._free(descriptor)
        scarce = there < WARNING * self._reserve
        if scarce and not self._scarce:
            log.warn(
                "store {path}: the disk is nearly full, {free} {are} free; lines are refused "
                "below {reserve} (--store-reserve)",
                path=self._path,
                free=there,
                are=plural(there, "byte is", "bytes are"),
                reserve=self._reserve,
            )
        self._scarce = scarce
        if there < self._reserve:
            raise StoreError(
                f"less than {counted(self._reserve, 'byte')} free on the disk, the reserve",
                retry=True,
            )

    def grown(self, length: int) -> None:
        """Note how many bytes the log still holds after a checkpoint."""
        if length < self._warnAt:
            if length < LONG_LOG // 2:
                self._warnAt = LONG_LOG
            return
        while self._warnAt <= length:
            self._warnAt *= 2
        log.warn(
            "store {path}: the log has grown to {length} {bytes}, for another program has been "
            "reading in one transaction all the time; `fuser {path}-wal` names it",
            path=self._path,
            length=length,
            bytes=plural(length, "byte"),
        )
