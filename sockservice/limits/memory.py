"""Limit the bytes that all connections hold together."""

from typing import Protocol

#: Bytes for unfinished lines, unanswered lines and unread replies of all connections: room
#: for thousands of usual ones, and little enough for a small machine.
MEMORY_LIMIT = 256 * 1024 * 1024


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

    def hold(self, holder: Holder, size: int) -> None:
        """Note that `holder` holds `size` bytes now."""
        self.held += size - self._of.pop(holder, 0)
        if size:
            self._of[holder] = size
        if self.held > self.most > 0 and not self._relieving:
            self._relieve()

    def _relieve(self) -> None:
        reason = f"busy: {self.most} bytes held for all connections, the limit; try again later"
        self._relieving = True
        try:
            for holder in sorted(self._of, key=self._of.__getitem__, reverse=True):
                if self.held <= self.most * 3 // 4:
                    break
                holder.makeRoom(reason)
        finally:
            self._relieving = False
