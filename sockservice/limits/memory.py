"""Limit the bytes that all connections hold together."""

import mmap
from contextlib import suppress
from math import inf
from typing import Protocol

from sockservice.wire.plurals import counted

#: Bytes for unfinished lines, unanswered lines and unread replies of all connections: room
#: for thousands of usual ones, and little enough for a small machine.
MEMORY_LIMIT = 256 * 1024 * 1024


#: Bytes of address space that are kept for the time when the system gives no more, at most and
#: at least: enough to tell peers and to close their connections.
RESERVE, LEAST = 8 * 1024 * 1024, 4 * 1024 * 1024

#: Seconds for which no connection is accepted when it came to that.
PAUSE = 1.0

#: What a peer is told when the process gets no memory from the system.
NO_MEMORY = "busy: no memory; try again later"


class Holder(Protocol):
    """A connection that holds bytes."""

    def makeRoom(self, reason: str) -> None:
        """Release all that is held, and end; `reason` is fit for a reply."""


class MemoryLimit:
    """Counts what connections hold; beyond `most` bytes, ends those that hold most.

    0 is no limit. A quarter of the limit is freed, so that this is not needed again at once.
    """

    def __init__(self, most: int = MEMORY_LIMIT) -> None:
        self.most = most
        #: Bytes held now.
        self.held = 0
        self._of: dict[Holder, int] = {}
        self._relieving = False
        self._reserve: mmap.mmap | None = None
        self._scarceUntil = inf  # as long as there is no reserve

    @property
    def tight(self) -> bool:
        """Whether half of the limit is held: who can hold its peer back should do so."""
        return 0 < self.most <= 2 * self.held

    def scarce(self, now: float) -> bool:
        """Return whether no connection should be accepted, for the system gives no memory.

        When it has given none for PAUSE seconds, what was freed meanwhile may do.
        """
        size = RESERVE
        while self._reserve is None and size >= LEAST:
            with suppress(OSError, MemoryError):
                self._reserve = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            size //= 2
        return self._reserve is None and now < self._scarceUntil

    def hold(self, holder: Holder, size: int) -> None:
        """Note that `holder` holds `size` bytes now."""
        self.held += size - self._of.pop(holder, 0)
        if size:
            self._of[holder] = size
        if self.held > self.most > 0 and not self._relieving:
            self._relieve(
                f"busy: {counted(self.most, 'byte')} held for all connections, the limit; "
                "try again later",
                self.most * 3 // 4,
            )

    def exhausted(self, now: float) -> None:
        """Free the reserve, for the system gives no memory, and a quarter of what is held."""
        self._scarceUntil = now + PAUSE
        reserve, self._reserve = self._reserve, None
        if reserve is not None:
            reserve.close()
        if not self._relieving:
            self._relieve(NO_MEMORY, self.held * 3 // 4)

    def _relieve(self, reason: str, most: int) -> None:
        self._relieving = True
        try:
            for holder in sorted(self._of, key=self._of.__getitem__, reverse=True):
                if self.held <= most:
                    break
                holder.makeRoom(reason)
        finally:
            self._relieving = False
