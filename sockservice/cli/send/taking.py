"""Take what arrives on descriptors into a spool, no more than it has room for."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from fcntl import F_SETPIPE_SZ, fcntl
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.client.spool.spool import NoRoom, Spool, SpoolError
from sockservice.wire.plurals import counted

#: Seconds until a full disk is tried again.
AGAIN = 1.0
#: Seconds in which it is said once that nothing is read, however often that is so.
TOLD = 60.0
#: Bytes that a pipe is asked to hold: as many as are made durable together.
PIPE = 1024 * 1024


@implementer(IReadDescriptor)
class Taking:
    """Takes all of `descriptors`, which come with names, into `spool`, one after the other.

    `came` is called when there is more in the spool, and at the end; `short` when there is no
    room; `said` is told, in one line, why nothing is read. `disk` runs what waits for the
    disk, one at a time.
    """

    def __init__(
        self,
        reactor: Any,
        spool: Spool,
        descriptors: list[tuple[str, int]],
        disk: Callable[..., Deferred[Any]],
        came: Callable[[], object],
        short: Callable[[], object],
        said: Callable[[str], object],
    ) -> None:
        self._reactor = reactor
        self._spool = spool
        self._descriptors = descriptors
        self._disk = disk
        self._came = came
        self._short = short
        self._said = said
        self._waiting: Deferred[Any] | None = None
        self._stopped = False
        self._told: float | None = None  # when it was last said that nothing is read
        #: Whether nothing more will come.
        self.ended = False
        #: Why it ended before the end, or "".
        self.problem = ""

    @property
    def full(self) -> bool:
        """Whether it waits for room in the spool."""
        return self._spool.full

    async def run(self) -> None:
        """Take all there is, until the end or `stop`."""
        name = ""
        try:
            for name, descriptor in self._descriptors:  # noqa: B007
                await self._take(descriptor)
                if self._stopped:
                    break
                if descriptor > 2:
                    os.close(descriptor)
        except SpoolError as problem:
            self.problem = str(problem)
        except OSError as problem:
            self.problem = f"{name}: {problem.strerror}"
        self.ended = True
        self._came()

    def wake(self) -> None:
        """Look again whether there is room."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    def stop(self) -> None:
        """Take nothing more: what was not read stays where it is."""
        self._stopped = True
        self.wake()

    async def _take(self, descriptor: int) -> None:
        file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        with suppress(OSError):
            fcntl(descriptor, F_SETPIPE_SZ, PIPE)
        self._descriptor = descriptor
        while not self._stopped:
            why = self._why() if self._spool.full else ""
            try:
                if not why:
                    if not file:
                        await self._readable()
                    if self._stopped:
                        return
                    if await self._disk(self._spool.take, descriptor):
                        self._came()
                        continue
                    await self._disk(self._spool.finish)
                    self._came()
                    return
            except BlockingIOError:
                continue
            except NoRoom:
                why = f"{self._spool.path}: no space left on the disk"
            self._tell(why)
            self._short()
            await self._woken()

    def _tell(self, why: str) -> None:
        now = self._reactor.seconds()
        if self._told is None or now - self._told >= TOLD:
            self._told = now
            self._said(f"{why}; nothing more is read until lines are acknowledged")

    def _why(self) -> str:
        return f"{self._spool.path} holds {counted(self._spool.size, 'byte')}, the limit"

    async def _woken(self) -> None:
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        again = self._reactor.callLater(AGAIN, self.wake)
        await waiting
        if again.active():
            again.cancel()

    async def _readable(self) -> None:
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        self._reactor.addReader(self)
        await waiting
        self._reactor.removeReader(self)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "intake"

    def doRead(self) -> None:
        self._reactor.removeReader(self)
        self.wake()

    def connectionLost(self, reason: Failure) -> None:
        # How the reactor reports that a pipe's writer has gone.
        self.wake()
