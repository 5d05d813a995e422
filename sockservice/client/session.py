"""Send the lines of a session, each stored exactly once: ask what is stored, send the rest."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.client.kept import Kept
from sockservice.client.line import LineClient
from sockservice.client.reliable import ReliableSender
from sockservice.client.requests import Unanswered
from sockservice.wire.plurals import counted, plural, ranged
from sockservice.wire.session import HIGHEST, Hello, Opened, folded

log = Logger()


class SessionError(Exception):
    """A session that can't go on; to try again would not help. The text says why."""


class SessionRefused(SessionError):
    """The server refused for good, in its own words, or knows no sessions."""


class TakenOver(SessionRefused):
    """A newer connection has opened the session; the two would fight for it."""


class Forgotten(SessionError):
    """The server has begun the session anew: its store was replaced, or it has expired."""


class Behind(SessionError):
    """The server has fewer lines than it acknowledged: its store was restored from a copy."""


class Different(SessionError):
    """The server's lines are not those of this sender."""


class SessionSender(ReliableSender):
    """A reliable sender whose lines are stored exactly once, in order, under the session `name`.

    At each connection the server says how many lines of the session it has stored, and
    their CRC-32; what it has is not sent again. `target` is a `session` listener; the
    keywords are those of :class:`ReliableSender`, less `framing`, `ending` and `greeting`.

    `position` is the number of lines that are known to be stored and `crc` their checksum,
    from an earlier sender; without it, this one begins where the server is. With `new` the
    session has to be empty. When it can't go on, `gaveUp` is called with a
    :class:`SessionError`. `note` is kept with the position at which it was given: up to
    512 printable bytes without a space.

    :raises ValueError: `name` or `note` is not as docs/sessions.md says.
    """

    #: Whether what is not acknowledged is kept elsewhere, so that `stopService` need not wait for
    #: it while there is no connection.
    durable = False

    def __init__(
        self,
        reactor: Any,
        target: Any,
        name: str,
        *,
        position: int | None = None,
        crc: int = 0,
        note: str | None = None,
        new: bool = False,
        **how: Any,
    ) -> None:
        super().__init__(reactor, target, **how)
        self.session = name
        #: Lines known to be stored; None before the first opening.
        self.position = position
        #: CRC-32 of these lines, each with an LF.
        self.crc = crc
        #: Longest line in bytes; None before the first opening.
        self.limit: int | None = None
        self._hello = Hello(name, 0 if new else None, note)
        self._hello.encode()  # checks it
        self._store = ""  # its identity, once it is known
        self._link: LineClient | None = None  # the present connection, open or opening
        self._opening: Deferred[None] | None = None
        self._refusal = ""  # with which the server ends the present connection
        self._marked: Deferred[None] | None = None
        self._reopening = False  # at once, for the connection was closed on purpose

    async def opened(self, opened: Opened) -> None:
        """Prepare for the lines behind `position`, before any is sent on a new connection.

        Called at each opening; `opened` is what the server said. Meant to be overridden, to
        find the place in a file: a :class:`SessionError` raised here ends the session.
        """

    def mark(self, note: str) -> Deferred[None]:
        """Have `note` kept with the present position; the Deferred fires once it is.

        The session is opened anew for that. Lines sent meanwhile go behind it. The Deferred
        fails with :class:`Unanswered` when the sender is stopped before.

        :raises ValueError: It is no note, or lines await their replies.
        :raises SessionRefused: The session's lines are too short for it.
        """
        hello = Hello(self.session, self.position, note)
        hello.encode()
        if self._kept or self._marked is not None or self.position is None:
            raise ValueError("a position is marked when all lines before it have their replies")
        # A hello is a line as any other; this one has to be taken again and again.
        longest = len(Hello(self.session, HIGHEST, note).encode())
        if self.limit is not None and longest > self.limit:
            raise SessionRefused(
                f"its lines of {counted(self.limit, 'byte')} are too short to keep the place"
            )
        self._hello = hello
        self._marked = Deferred()
        client, self._client = self._client, None
        self._outflow.stop()
        if client is not None:
            self._reopening = True
            client.close()
        return self._marked

    def sendAll(
        self, lines: list[bytes], answered: Callable[[list[bytes]], object]
    ) -> Deferred[None]:
        """Send `lines` as :class:`ReliableSender` does.

        :raises ValueError: A line holds an LF, or is longer than `limit`; while that is not
            known, the Deferred fails with it.
        """
        self._fit(lines)
        return super().sendAll(lines, answered)

    def stopService(self) -> Deferred[list[bytes]]:
        if self.durable and self._client is None:
            self._drainTimeout = 0.0
        return super().stopService().addCallback(self._unmark)

    def _disconnect(self, _: None) -> Deferred[list[bytes]]:
        if self._client is None:
            # It may still be opening the session.
            self._abort()
        return super()._disconnect(None)

    def connected(self, client: LineClient) -> None:
        self._link = client
        self._why = self._refusal = ""
        self._opening = opening = Deferred.fromCoroutine(self._open(client))
        opening.addErrback(self._notOpened)

    def disconnected(self, client: LineClient, why: str) -> None:
        super().disconnected(client, why)
        self._why = self._why or why
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()

    def unasked(self, line: bytes) -> None:
        if line.startswith(b"error "):
            self._refused(line)
        else:
            super().unasked(line)

    async def _open(self, client: LineClient) -> None:
        hello = self._hello
        reply = await client.ask(hello.encode(), self._timeout)
        if not reply.startswith(b"session/"):
            self._refused(reply)
            return
        try:
            opened = Opened.parse(reply)
        except ValueError as problem:
            raise SessionRefused(f"the server's reply can't be understood: {problem}") from None
        self._agree(opened)
        for kept in list(self._kept):
            try:
                self._fit(kept.lines)
            except ValueError as problem:
                self._drop(kept, problem)
        await self.opened(opened)
        self._opening = None
        if self._refusal:
            return
        if self._hello is not hello:
            # A note was given meanwhile, too late for this hello.
            self._reopening = True
            client.close()
            return
        self._hello = Hello(self.session)
        super().connected(client)
        marked, self._marked = self._marked, None
        if marked is not None:
            marked.callback(None)

    def _notOpened(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return  # The connection has ended meanwhile.
        if failure.check(Unanswered):
            self._why = failure.getErrorMessage()
            self._abort()
            return
        if not failure.check(SessionError):
            log.failure("session {name} was not opened", failure, name=self.session)
        self._fail(failure)

    def _agree(self, opened: Opened) -> None:
        """Compare what is stored with what is known; what is stored counts as acknowledged.

        :raises SessionError: They differ.
        """
        self.limit = opened.limit
        store, self._store = self._store, opened.store
        if self.position is None:
            self.position, self.crc = opened.position, opened.crc
            return
        lines, were = counted(self.position, "line"), plural(self.position, "was", "were")
        known = f"{lines} of session {self.session} {were} acknowledged"
        if self.position and (opened.new or store not in ("", opened.store)):
            raise Forgotten(f"{known}, and the server knows nothing of them")
        if opened.position < self.position:
            lost = ranged(opened.position + 1, self.position, "line")
            are = plural(self.position - opened.position, "is", "are")
            raise Behind(f"{known}; {lost} {are} no longer in the store")
        stored = self.unacknowledged[: opened.position - self.position]
        if folded(stored, self.crc) != opened.crc:
            lines = counted(opened.position, "line")
            those = plural(opened.position, "is not the one", "are not those")
            raise Different(f"the {lines} that the server has {those} sent")
        count = len(stored)
        while count:
            kept = self._kept[0]
            several = min(count, len(kept.lines) - kept.count)
            self._answered(kept, [b"ok"] * several)
            count -= several

    def _fit(self, lines: list[bytes]) -> None:
        if self.limit is not None and lines and max(map(len, lines)) > self.limit:
            most = counted(self.limit, "byte")
            raise ValueError(f"a line is longer than {most}, the limit of the session")

    def _answered(self, kept: Kept, replies: list[bytes]) -> None:
        if self._refusal or not self._kept or self._kept[0] is not kept:
            return
        good = next((n for n, reply in enumerate(replies) if reply != b"ok"), len(replies))
        if good:
            assert self.position is not None
            self.position += good
            self.crc = folded(kept.lines[kept.count : kept.count + good], self.crc)
            super()._answered(kept, replies[:good])
        if good < len(replies):
            self._refused(replies[good])

    def _refused(self, reply: bytes) -> None:
        """End the connection, and the session if the reply says so: it is no line's reply."""
        self._refusal = ascii(reply)[2:-1]
        if reply.startswith(b"error session: "):
            over = reply.startswith(b"error session: taken over ")
            self._fail(Failure((TakenOver if over else SessionRefused)(self._refusal)))
        elif reply.startswith(b"error "):
            self._why = self._refusal
            self._abort()
        else:
            why = f"the server knows no sessions: it answered {self._refusal} to the opening line"
            if reply == b"ok":
                why += ", which it may have stored"
            self._fail(Failure(SessionRefused(why)))

    def _abort(self) -> None:
        if self._link is not None:
            self._link.abort()

    def _fail(self, failure: Failure) -> None:
        """End the session for good."""
        self._why, self._cause = failure.getErrorMessage(), failure.value
        self._abort()
        self._giveUp("")
        self._unmark([])

    def _unmark(self, left: list[bytes]) -> list[bytes]:
        marked, self._marked = self._marked, None
        if marked is not None:
            marked.errback(Unanswered(self._stopped))
        return left

    def _delay(self, attempt: int) -> float:
        if self._reopening:
            self._reopening = False
            return 0.0
        return super()._delay(attempt)
