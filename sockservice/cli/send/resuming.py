"""The sender behind `sockservice send --session`: it passes over the lines that are stored."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from sockservice.cli.send.flight import size
from sockservice.cli.send.retrying import Retrying
from sockservice.cli.send.source import Fleeting, LineSource
from sockservice.cli.status import NOT_ALL
from sockservice.client.session import (
    Behind,
    Different,
    Forgotten,
    SessionError,
    SessionSender,
    TakenOver,
)
from sockservice.client.waiting import Gate
from sockservice.wire.plurals import counted, plural
from sockservice.wire.session import Opened, folded


def stored(position: int, session: str) -> str:
    """Say how many lines of a session are stored."""
    return (
        f"{counted(position, 'line')} of session {session} {plural(position, 'is', 'are')} stored"
    )


class Limited(LineSource, Protocol):
    """Lines of which none is longer than `limit`."""

    #: Longest line in bytes, once that is known.
    limit: int | None

    def back(self, lines: list[bytes]) -> None:
        """Return these lines first when next asked."""


class Sifted(Fleeting):
    """The lines of `source` that a session takes.

    `refused` gets the lengths of those that are too long, and the lines.
    """

    refused: Callable[[list[int], list[bytes]], object]

    def __init__(self, source: LineSource) -> None:
        self._source = source
        self._back: list[bytes] = []
        #: Longest line in bytes, once that is known.
        self.limit: int | None = None
        self.size = source.size

    @property
    def problem(self) -> str:
        """Why it ended early, or ""."""
        return self._source.problem

    async def read(self) -> list[bytes]:
        """Return the next lines; an empty list at the end."""
        lines, self._back = self._back, []
        while not lines and (lines := await self._source.read()) and self.limit is not None:
            if max(map(len, lines)) > self.limit:
                long = [line for line in lines if len(line) > self.limit]
                self.refused(list(map(len, long)), long)
                lines = [line for line in lines if len(line) <= self.limit]
        return lines

    def back(self, lines: list[bytes]) -> None:
        """Return these lines first when next asked."""
        self._back = lines

    def stop(self) -> None:
        """Return no more lines."""
        self._source.stop()

    def rest(self) -> Iterator[list[bytes]]:
        """Yield the lines not returned by `read`, as far as they can still be read."""
        yield self._back
        yield from self._source.rest()


class Resuming(Retrying, SessionSender):
    """A sender of the session `name` that first finds its place among the lines of `sifted`.

    These begin with the first line of the session or, if they are `continuing`, behind what is
    stored. If the store has lost lines and it is to `resend` them, `again` says so.
    """

    #: What to do, by the reason why a session can't go on.
    hints: ClassVar[dict[type[SessionError], str]] = {
        TakenOver: "; this sender stops",
        Forgotten: "; to store all lines once more, run it again",
        Behind: "; to send them again, run it again, or with --resend",
    }

    def __init__(
        self,
        reactor: Any,
        targets: list[str],
        name: str,
        sifted: Limited,
        *,
        continuing: bool,
        resend: bool,
        **how: Any,
    ) -> None:
        super().__init__(reactor, targets, name, **how)
        self._source = sifted
        self._continuing = continuing
        self._resend = resend
        self._crc = 0  # of the lines passed over
        self._placed = Gate(False)
        #: Lines that were passed over, and their bytes.
        self.skipped = self.skippedBytes = 0

    def begun(self) -> Deferred[None]:
        """Return a Deferred that fires when lines may be sent, or never will be."""
        return self._placed.wait()

    async def opened(self, opened: Opened) -> None:
        self._source.limit = opened.limit
        if self._placed.isOpen:
            return
        await self._place(opened)
        if opened.new:
            self.said(f"session {self.session} is new")
        else:
            self.said(f"session {self.session} goes on behind line {opened.position}")
        # Lines may be sent once this has returned.
        self._reactor.callLater(0, self._placed.open)

    async def _place(self, opened: Opened) -> None:
        """Find the place where the session stands, among the lines."""
        if not self._continuing:
            await self._skip(opened)
        elif opened.position:
            self.skipped = opened.position

    async def _skip(self, opened: Opened) -> None:
        """Pass over the lines that are stored.

        If the connection ends meanwhile, it goes on at the next.
        """
        while self.skipped < opened.position:
            left = opened.position - self.skipped
            lines = await self._source.read()
            if not lines:
                raise Different(
                    f"{stored(opened.position, self.session)}, and the input has "
                    f"{self.skipped}: is it the right one?"
                )
            if len(lines) > left:
                self._source.back(lines[left:])
                lines = lines[:left]
            self._crc = folded(lines, self._crc)
            self.skipped += len(lines)
            self.skippedBytes += size(lines)
            # Signals are heard, and the connection is kept.
            await deferLater(self._reactor, 0)
        if self._crc != opened.crc:
            raise Different(
                f"the first {counted(opened.position, 'line')} of the input "
                f"{plural(opened.position, 'is not the one that is', 'are not those that are')} "
                f"stored in session {self.session}: it is another, or was edited"
            )

    def gaveUp(self, why: str, cause: BaseException | None) -> None:
        if isinstance(cause, SessionError):
            if isinstance(cause, Behind) and self._resend:
                self.again = why
            hint = next((said for kind, said in self.hints.items() if isinstance(cause, kind)), "")
            self.failed(why + hint, NOT_ALL)
        else:
            super().gaveUp(why, cause)
        self._placed.open()

    def unasked(self, line: bytes) -> None:
        if line.startswith(b"error "):
            SessionSender.unasked(self, line)
        else:
            super().unasked(line)

    def stopService(self) -> Deferred[list[bytes]]:
        self._placed.open()
        return super().stopService()
