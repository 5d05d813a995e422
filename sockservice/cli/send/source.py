"""The lines to send: arguments, or read on demand from files and pipes."""

import os
import stat
import sys
from collections.abc import Iterator
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.wire.framer import Framer
from sockservice.wire.framing import Lines

#: Longest line in bytes; a line has to fit into memory.
LINE_LIMIT = 16 * 1024 * 1024
#: Most lines returned at once.
MOST = 10_000
#: Bytes read at once.
READ = 32 * 1024


class LineSource(Protocol):
    """Lines to send."""

    #: Bytes of all lines with an ending of one byte each, if known.
    size: int | None

    @property
    def problem(self) -> str:
        """Why it ended early, or ""."""

    async def read(self) -> list[bytes]:
        """Return the next lines; an empty list at the end."""

    def stop(self) -> None:
        """Return no more lines."""

    def rest(self) -> Iterator[list[bytes]]:
        """Yield the lines not returned by `read`, as far as they can still be read."""

    @property
    def kept(self) -> str:
        """Where what is not acknowledged is kept, in a phrase, or ""."""

    @property
    def counts(self) -> dict[str, int]:
        """What goes into the sum of --json."""


class Fleeting:
    """A source that keeps nothing."""

    kept = ""

    @property
    def counts(self) -> dict[str, int]:
        return {}


class Given(Fleeting):
    """Lines that are in memory."""

    problem = ""

    def __init__(self, lines: list[bytes]) -> None:
        self.size: int | None = sum(len(line) + 1 for line in lines)
        self._lines = lines
        self._stopped = False

    async def read(self) -> list[bytes]:
        if self._stopped:
            return []
        lines, self._lines = self._lines, []
        return lines

    def stop(self) -> None:
        self._stopped = True

    def rest(self) -> Iterator[list[bytes]]:
        yield self._lines


@implementer(IReadDescriptor)
class Input(Fleeting):
    """Lines from file descriptors, one after the other.

    The last line of each counts even without an ending: whoever wrote it sees the reply.
    `descriptors` come with names, for messages.
    """

    def __init__(self, reactor: Any, descriptors: list[tuple[str, int]]) -> None:
        self._reactor = reactor
        self._descriptors = descriptors
        self._framer = Framer(sys.maxsize)
        self._open = 0  # bytes read of a line that has not ended
        self._stopped = False
        self._asked: Deferred[None] | None = None
        self.problem = ""
        self.size: int | None = 0
        self._ends: dict[int, int] = {}  # of files, as they were at the beginning
        for _, descriptor in descriptors:
            if not self._isFile(descriptor):
                self.size = None
                continue
            end = self._ends[descriptor] = os.fstat(descriptor).st_size
            if self.size is not None:
                self.size += max(0, end - os.lseek(descriptor, 0, os.SEEK_CUR))

    async def read(self) -> list[bytes]:
        while not self._stopped:
            if lines := self._whole():
                return lines
            if self.problem or not self._descriptors:
                return []
            if self._isFile(self.fileno()):
                self.doRead()
            else:
                self._asked = Deferred()
                self._reactor.addReader(self)
                await self._asked
        return []

    def stop(self) -> None:
        self._stopped = True
        self._continue()

    def rest(self) -> Iterator[list[bytes]]:
        while lines := self._whole():
            yield lines
        while self._descriptors and not self.problem:
            # Nobody knows when a pipe ends.
            if self._isFile(self.fileno()):
                self.doRead()
            else:
                self._next()
            while lines := self._whole():
                yield lines

    def fileno(self) -> int:
        return self._descriptors[0][1]

    def logPrefix(self) -> str:
        return "input"

    def doRead(self) -> None:
        try:
            data = os.read(self.fileno(), READ)
        except BlockingIOError:
            return
        except OSError as problem:
            self._giveUp(problem.strerror or str(problem))
            return
        if not data:
            if self._isCut(self.fileno()):
                self._giveUp("it was cut short while it was read")
            else:
                self._next()
            return
        end = data.rfind(b"\n") + 1
        self._open = len(data) - end if end else self._open + len(data)
        if self._open > LINE_LIMIT:
            self._giveUp(f"a line is longer than {LINE_LIMIT} bytes; nothing was read behind it")
            return
        self._framer.receive(data)
        self._continue()

    def connectionLost(self, reason: Failure) -> None:
        # How the reactor reports that a pipe is empty and its writer has gone.
        self._next()

    def _whole(self) -> list[bytes]:
        item = self._framer.take(MOST)
        return item.lines if isinstance(item, Lines) else []

    def _isFile(self, descriptor: int) -> bool:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)

    def _isCut(self, descriptor: int) -> bool:
        """Return whether a file has lost lines since it was opened."""
        end = self._ends.get(descriptor, 0)
        if os.fstat(descriptor).st_size >= end:
            return False
        return os.lseek(descriptor, 0, os.SEEK_CUR) < end

    def _next(self) -> None:
        """Go on to the next descriptor."""
        asked = self._released()
        _, descriptor = self._descriptors.pop(0)
        if descriptor > 2:
            os.close(descriptor)
        self._open = 0
        if not self._framer.startsLine:
            self._framer.receive(b"\n")
        if asked is not None:
            asked.callback(None)

    def _giveUp(self, why: str) -> None:
        self.problem = f"{self._descriptors[0][0]}: {why}"
        self._continue()

    def _continue(self) -> None:
        if (asked := self._released()) is not None:
            asked.callback(None)

    def _released(self) -> Deferred[None] | None:
        """Stop watching the descriptor; return the Deferred to fire, if any."""
        asked, self._asked = self._asked, None
        if asked is not None:
            self._reactor.removeReader(self)
        return asked
