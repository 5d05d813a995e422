"""`sockservice send --spool`: lines are read into a spool, and sent to a session from there."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, NamedTuple

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool

from sockservice.cli.send.resuming import Resuming, stored
from sockservice.cli.send.source import MOST
from sockservice.cli.send.taking import Taking
from sockservice.cli.status import USAGE, end
from sockservice.client.kept import Kept
from sockservice.client.session import (
    Behind,
    Different,
    Forgotten,
    SessionError,
    TakenOver,
)
from sockservice.client.ship.reading import LineReader
from sockservice.client.spool.spool import Spool, SpoolError
from sockservice.client.spool.system import sourceOf
from sockservice.wire.plurals import counted, plural, ranged
from sockservice.wire.session import Opened, folded


def spoolAt(
    path: str, limit: int, session: str | None, descriptors: list[tuple[str, int]]
) -> Spool:
    """Return the spool in the folder `path`, or end the command."""
    pipes = [sourceOf(each) for _, each in descriptors]
    try:
        return Spool(path, limit, session, next((each for each in pipes if each != "-"), "-"))
    except SpoolError as problem:
        end(USAGE, str(problem))
    except OSError as problem:
        end(USAGE, f"{problem.filename or path}: {problem.strerror}")


def inMemory(lines: list[bytes]) -> tuple[str, int]:
    """Return a file with these lines, as one that is to be read."""
    file = os.memfd_create("lines")
    with open(file, "wb", closefd=False) as writing:
        writing.writelines(line + b"\n" for line in lines)
    os.lseek(file, 0, os.SEEK_SET)
    return "the lines", file


class Milestone(NamedTuple):
    """A place between two lines: in the spool, and in the session."""

    offset: int
    position: int
    crc: int


class Spooled:
    """The lines of `spool`, into which those of `descriptors` are taken meanwhile.

    `refused` gets the lengths of lines that are too long. `inThread` calls a function in a
    thread, for the disk may be slow.
    """

    refused: Callable[[list[int], list[bytes]], object]
    size: int | None = None

    def __init__(
        self,
        reactor: Any,
        spool: Spool,
        descriptors: list[tuple[str, int]],
        said: Callable[[str], object],
        inThread: Callable[..., Deferred[Any]] | None = None,
    ) -> None:
        self.spool = spool
        self.limit: int | None = None
        self._inThread = inThread or partial(_inThread, reactor)
        self._lock = DeferredLock()
        self._input = Taking(reactor, spool, descriptors, self._disk, self._wake, self._room, said)
        self._reader: LineReader | None = None
        self._back: list[bytes] = []
        #: Up to where lines were returned, and to where they are acknowledged.
        self._read = self._at = Milestone(spool.begin, spool.position, spool.crc)
        self._marks: deque[Milestone] = deque()
        self._asked: Deferred[None] | None = None
        self._stopped = False
        self._wrong = ""
        #: Whether `read` returns at the end of the spool, rather than wait for more.
        self.hasty = False
        if spool.dropped:
            many, are = counted(spool.dropped, "byte"), plural(spool.dropped, "is", "are")
            said(f"{spool.path}: {many} of a line that had not ended {are} dropped")
        self._taking = Deferred.fromCoroutine(self._input.run())

    @property
    def problem(self) -> str:
        """Why it ended early, or ""."""
        return self._wrong or self._input.problem

    @property
    def left(self) -> int:
        """Bytes in the spool that are not acknowledged."""
        return self.spool.end - self._at.offset

    @property
    def kept(self) -> str:
        are = counted(self.left, "byte of lines is", "bytes of lines are")
        return f"{are} kept in {self.spool.path}" if self.left else ""

    @property
    def counts(self) -> dict[str, int]:
        return {"spooled": self.left}

    async def read(self) -> list[bytes]:
        while not self._stopped:
            lines, self._back = self._back, []
            if lines or (lines := self._next()):
                return lines
            if self.problem or self._input.ended or self.hasty:
                return []
            self._asked = Deferred()
            await self._asked
        return []

    def back(self, lines: list[bytes]) -> None:
        self._back = lines

    def stop(self) -> None:
        self._stopped = True
        self._input.stop()
        self._wake()

    def rest(self) -> Iterator[list[bytes]]:
        """Yield nothing: the spool keeps it."""
        yield from ()

    async def begin(self, position: int, crc: int) -> None:
        """Remember that the first line is behind so many of the session."""
        self._read = self._at = Milestone(self.spool.begin, position, crc)
        await self._disk(self.spool.settle, *self._at)

    def acknowledged(self, position: int) -> None:
        """Remove what is not needed, for so many lines of the session are stored."""
        while self._marks and self._marks[0].position <= position:
            self._at = self._marks.popleft()
        self._room()
        self._watch()

    async def close(self) -> None:
        """Stop, and leave the spool to others."""
        self.stop()
        await self._taking
        if self._at.position >= 0 and not self._wrong:
            await self._disk(self.spool.settle, *self._at)
        await self._disk(self.spool.close)

    def _next(self) -> list[bytes]:
        if self.limit is None:
            return []
        if self._reader is None:
            self._reader = LineReader(self.spool, self._read.offset, self.limit)
        try:
            lines = self._reader.take(MOST)
        except OSError as problem:
            self._wrong = f"{self.spool.path}: {problem.strerror}"
            return []
        if self._reader.long:
            self.refused(list(self._reader.long), [])
            self._reader.long.clear()
        if self._reader.offset > self._read.offset:
            _, position, crc = self._read
            self._read = Milestone(self._reader.offset, position + len(lines), folded(lines, crc))
            self._marks.append(self._read)
            if not lines and len(self._marks) == 1:
                # Nothing that is passed over is waited for.
                self._at = self._marks.popleft()
        if not lines:
            self._watch()
        return lines

    def _room(self) -> None:
        """Make room in the spool, if there is any to be made."""
        if self._at.position >= 0 and self.spool.settles(self._at.offset):
            self._disk(self.spool.settle, *self._at).addCallbacks(
                lambda _: self._input.wake(), self._broken
            )

    def _watch(self) -> None:
        """End if nothing can ever make room: the spool is full of a line that has not ended."""
        reader = self._reader
        if not self._input.full or reader is None or self._marks or self._wrong:
            return
        if reader.end >= self.spool.end and self._at.offset == reader.offset:
            self._wrong = (
                f"{self.spool.path}: a line is longer than {counted(self.spool.limit, 'byte')}, "
                "the limit of the spool; nothing was read behind it"
            )
            self._wake()

    def _disk(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return self._lock.run(self._inThread, function, *arguments)

    def _broken(self, failure: Any) -> None:
        self._wrong = failure.getErrorMessage()
        self._wake()

    def _wake(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.callback(None)


class Spooling(Resuming):
    """A sender of the lines of `spooled`, which is told how far they are acknowledged."""

    hints: ClassVar[dict[type[SessionError], str]] = {
        TakenOver: "; this sender stops",
        Forgotten: "; with --continue, what the spool still holds begins it anew",
        Behind: "; run it again: what the spool still holds is sent again",
    }

    def __init__(self, reactor: Any, targets: list[str], spooled: Spooled, **how: Any) -> None:
        super().__init__(
            reactor, targets, spooled.spool.session, spooled, resend=False, new=False, **how
        )
        self._spooled = spooled
        self._begun = False

    async def _place(self, opened: Opened) -> None:
        if not self._begun:
            await self._check(opened)
        self._spooled.hasty = True
        try:
            await self._skip(opened)
        finally:
            self._spooled.hasty = False
        self._spooled.acknowledged(opened.position)

    async def _check(self, opened: Opened) -> None:
        """Compare the place that the spool remembers with what is stored."""
        spool = self._spooled.spool
        if spool.position < 0 or (opened.position < spool.position and self._continuing):
            if opened.position and not self._continuing:
                raise Different(
                    f"{stored(opened.position, self.session)}, and none of "
                    f"them was in {spool.path}; with --continue, it goes on behind them"
                )
            await self._spooled.begin(opened.position, opened.crc)
        elif opened.position < spool.position:
            kind = Forgotten if opened.new else SessionError
            hint = "" if opened.new else "; with --continue, it goes on behind the others"
            lines = ranged(opened.position + 1, spool.position, "line")
            are = plural(spool.position - opened.position, "is", "are")
            raise kind(
                f"{lines} of session {self.session} {are} no longer in the store, "
                f"nor in {spool.path}{hint}"
            )
        self.skipped, self._crc = spool.position, spool.crc
        self._begun = True

    def _answered(self, kept: Kept, replies: list[bytes]) -> None:
        super()._answered(kept, replies)
        if self.position is not None:
            self._spooled.acknowledged(self.position)


def _inThread(reactor: Any, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)
