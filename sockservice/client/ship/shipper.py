"""Ship a log file: each of its lines to one session of a server, exactly once."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.client.requests import Unanswered
from sockservice.client.session import SessionError, SessionSender
from sockservice.client.ship.following import AGAIN, Follower
from sockservice.client.ship.place import Gone, Note
from sockservice.wire.plurals import counted, plural
from sockservice.wire.session import LONGEST, Opened

#: Lines read at once.
MOST = 4096
#: Most lines, and most bytes of lines, that are read ahead of their acknowledgements: enough
#: for the server's largest commits, and little for a thousand files when it is away.
LINES, BYTES = 20_000, 2 * 1024 * 1024
#: Seconds between looks at a file that is written to.
INTERVAL = 0.2

log = Logger()


class FileGone(SessionError):
    """What the session stood in is there no more; lines behind its position may be missing."""


def sessionOf(name: str, path: str) -> str:
    """Return the name of the session of a file: NAME:PATH, percent-encoded where it has to be.

    :raises ValueError: It would be too long, or `path` names no file.
    """
    if os.path.basename(path) in ("", ".", ".."):
        raise ValueError(f"{path or repr(path)}: the path names no file")
    place = quote(os.fsencode(os.path.abspath(path)), safe="/:@+").replace("~", "%7E")
    session = f"{name}:{place}"
    if len(session) > LONGEST:
        long = counted(len(session), "character")
        why = f"its session's name would have {long}, at most {LONGEST} may be"
        raise ValueError(f"{path}: {why}")
    return session


class Shipper(SessionSender):
    """Sends the lines of the log file `path`, for ever, through rotation of all usual kinds.

    The session is `name`, a colon and the path; where it stands is kept in the session itself,
    so nothing is kept here. A new session begins with the `oldest` file that there is, or at
    the `begin` or `end` of the newest, as `where` says. If the file that the session stood in
    is gone, `failed` fails with :class:`FileGone`, unless `gone` is to `continue`.

    Call `look` every now and then, as :class:`Shipping` does. `rate` bounds the lines a
    second. `inThread` calls a function in a thread, for a file may be slow to read; the other
    keywords are those of :class:`SessionSender`.

    :raises ValueError: `path` is too long for the name of a session, or names no file.
    """

    durable = True

    def __init__(
        self,
        reactor: Any,
        target: Any,
        name: str,
        path: str,
        *,
        where: str = "oldest",
        gone: str = "stop",
        rate: float | None = None,
        inThread: Callable[..., Deferred[Any]] | None = None,
        lines: int = LINES,
        bytes: int = BYTES,
        **how: Any,
    ) -> None:
        super().__init__(
            reactor, target, sessionOf(name, path), lines=lines, bytes=bytes, rate=rate, **how
        )
        self.path = path
        #: Fails with a :class:`SessionError` when the session can't go on.
        self.failed: Deferred[None] = Deferred()
        #: When something last happened, in seconds of the reactor's clock.
        self.active = reactor.seconds()
        self._where = where
        self._gone = gone
        # At a rate no more is read ahead than goes out by the next look.
        self._ahead = lines if rate is None else int(rate * INTERVAL) + 1
        self._inThread = inThread or partial(_inThread, reactor)
        self._follower: Follower | None = None
        self._finding: Deferred[None] | None = None
        self._busy = False  # reading, or noting the place

    @property
    def file(self) -> tuple[str, int]:
        """The name of the file being read, when it was opened, and the bytes read of it."""
        return (self.path, 0) if self._follower is None else self._follower.where

    @property
    def found(self) -> bool:
        """Whether the server has said where the session is, and the place in the file is found."""
        return self._follower is not None

    @property
    def lag(self) -> int:
        """Bytes of the file being read that have not been."""
        return 0 if self._follower is None else self._follower.lag

    @property
    def long(self) -> int:
        """Lines that were passed over, since they are longer than the session's limit."""
        return 0 if self._follower is None else self._follower.long

    @property
    def finished(self) -> bool:
        """Whether the file is there no more, nor is what it was rotated to, and all is stored."""
        follower = self._follower
        if follower is None or self._busy or self.outstanding:
            return False
        return follower.ended

    def said(self, text: str) -> None:
        """Report what happens to the file.

        This implementation logs it. Meant to be overridden.
        """
        log.info("{text}", text=text)

    def gaveUp(self, why: str, cause: BaseException | None) -> None:
        if not self.failed.called:
            self.failed.errback(cause or SessionError(why))

    def look(self) -> None:
        """Send what has been written to the file since the last look."""
        follower = self._follower
        if follower is None or self._busy or self._stopped:
            return
        if follower.due:
            if not self.outstanding:
                self._note(follower)
            return
        if self.outstanding >= self._ahead or self._full() or follower.idle:
            return
        self._busy = True
        taking = self._inThread(follower.take, min(MOST, self._ahead))
        taking.addCallback(self._took).addErrback(self._broken)

    async def opened(self, opened: Opened) -> None:
        if self._finding is None:
            self._finding = Deferred.fromCoroutine(self._found(opened))
        found: Deferred[None] = Deferred()
        # The search goes on, even if the connection should end.
        self._finding.chainDeferred(found)
        await found

    def connected(self, client: Any) -> None:
        super().connected(client)
        self._reactor.callLater(0, self.look)

    def stopService(self) -> Deferred[list[bytes]]:
        if self._follower is not None:
            self._follower.stop()
        return super().stopService().addCallback(self._close)

    async def _found(self, opened: Opened) -> None:
        """Find the place where the session stands, and try again while a file can't be read."""
        told = ""
        while not self._stopped:
            try:
                await self._inThread(self._find, opened)
                return
            except OSError as problem:
                why = f"{os.fsdecode(problem.filename or self.path)}: {problem.strerror}"
                if why != told:
                    self.said(f"{why}; trying again")
                    told = why
            await deferLater(self._reactor, AGAIN)

    def _find(self, opened: Opened) -> None:
        """Find the place where the session stands.

        :raises OSError: A file can't be read that it may be in.
        """
        follower = Follower(
            self.path, opened.limit, seconds=self._reactor.seconds, said=self._tellLater
        )
        try:
            if opened.note is not None:
                count = opened.position - opened.noted
                try:
                    follower.resume(opened.note, count, opened.notedCrc, opened.crc)
                except Gone as why:
                    unless = f", unless it can't be read ({why})" if str(why) else ""
                    gone = (
                        f"the file that session {self.session} was in is gone{unless}: lines "
                        f"behind its position {opened.position} may be missing"
                    )
                    if self._gone != "continue":
                        raise FileGone(gone) from None
                    self._tellLater(gone)
                    follower.skip(opened.note)
            elif opened.position:
                raise SessionError(
                    f"the {counted(opened.position, 'line')} of session {self.session} "
                    f"{plural(opened.position, 'was', 'were')} not shipped from a file"
                )
            else:
                follower.start(self._where)
        except ValueError as problem:
            raise SessionError(f"{self.path}: {problem}") from problem
        self._follower = follower

    def _tellLater(self, text: str) -> None:
        """Report something from the thread that reads."""
        self._reactor.callFromThread(self.said, text)

    def _took(self, lines: list[bytes]) -> None:
        self._busy = False
        if self._stopped:
            self._close([])
            return
        assert self._follower is not None
        if lines:
            self.active = self._reactor.seconds()
            self.sendAll(lines, self._acknowledged).addErrback(lambda _: None)
        if lines or self._follower.due:
            self.look()

    def _acknowledged(self, replies: list[bytes]) -> None:
        self._reactor.callLater(0, self.look)

    def _note(self, follower: Follower) -> None:
        note = follower.note
        self.active = self._reactor.seconds()
        self._busy = True
        marked = maybeDeferred(self.mark, note.encode())
        marked.addCallback(self._noted, follower, note).addErrback(self._broken)

    def _noted(self, _: None, follower: Follower, note: Note) -> None:
        self._busy = False
        follower.noted(note)
        self._reactor.callLater(0, self.look)

    def _broken(self, failure: Failure) -> None:
        self._busy = False
        if failure.check(Unanswered):
            return  # Stopped meanwhile.
        if failure.check(OSError):
            failure = Failure(SessionError(f"{self.path}: {failure.getErrorMessage()}"))
        elif failure.check(SessionError):
            failure = Failure(SessionError(f"session {self.session}: {failure.value}"))
        else:
            log.failure("shipping of {path} failed", failure, path=self.path)
        self._fail(failure)

    def _close(self, left: list[bytes]) -> list[bytes]:
        if self._follower is not None and not self._busy:
            self._follower.close()
        return left


def _inThread(reactor: Any, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)
