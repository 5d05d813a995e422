"""The interactive session of `sockservice send`: lines typed, sent and answered."""

from collections import deque
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from sockservice.cli.send.terminal import NOTICE, UNASKED, WINDOW, Left, Terminal
from sockservice.cli.status import DONE, INTERRUPTED, NOT_ALL, NOT_CONNECTED, TIMED_OUT
from sockservice.cli.text import printable
from sockservice.client.datagram import DatagramClient
from sockservice.client.farewell import rejected
from sockservice.client.line import LineClient
from sockservice.client.parting import GRACE, halfClose
from sockservice.client.requests import TimedOut, late


class Conversation:
    """A session: sends what is typed, shows the replies, and determines the outcome."""

    def __init__(
        self,
        reactor: Any,
        client: LineClient | DatagramClient,
        terminal: Terminal,
        timeout: float,
        window: int = WINDOW,
        refusals: tuple[bytes, ...] = (b"error ",),
    ) -> None:
        self._reactor = reactor
        self._client = client
        self._stream = isinstance(client, LineClient)
        self._terminal = terminal
        self._timeout = timeout
        self._window = window
        self._refusals = refusals
        if isinstance(client, DatagramClient):
            client.refusals = refusals
        self._entered: deque[bytes] = deque()  # and not sent yet
        self._sent = 0
        self._acknowledged = 0
        self._refused = 0
        self._due = 0  # replies that may still come in time
        self._told = False  # that replies are late; none has come since
        self._lost = False  # a datagram, or its reply
        self._sending: IDelayedCall | None = None
        self._left = False  # nothing more will be typed
        self._finishing = False  # but what was entered goes on
        self._halfClosed = False
        self._closed = False
        self._ending: tuple[int, str] | None = None  # status and word, if it was told to end
        self._why = ""
        self._settled: Deferred[None] = Deferred()  # all is sent, and no reply may come in time

    async def run(self) -> tuple[int, str]:
        """Run until either side ends it; return the exit status and a last message, or ""."""
        self._client.disconnected().addCallback(self._disconnected)
        listening = Deferred.fromCoroutine(self._listen())
        try:
            while (lines := await self._terminal.read()) is not None:
                self._entered += lines
                self._send()
        except Left:
            self._leave(INTERRUPTED, "interrupted")
        if not self._left:
            await self._finish()
        # Determined now, before closing the connection changes it.
        outcome = self._outcome()
        await (self._client.abort() if self._client.outstanding else self._client.close())
        await listening
        self._terminal.flush()
        return outcome

    def end(self, status: int, word: str) -> None:
        """End, for a signal has come: its exit status, and the word for it."""
        if status == INTERRUPTED:
            self._terminal.interrupted()
        self._leave(status, word)
        self._terminal.stop()
        self._client.abort()

    def tell(self) -> None:
        """Show the sum so far."""
        self._terminal.show(NOTICE + self._sum.encode())

    @property
    def _sum(self) -> str:
        return f"sent {self._sent}, acknowledged {self._acknowledged}"

    def _leave(self, status: int, word: str) -> None:
        self._left = True
        # Ctrl-C is how people leave a prompt where nothing is open.
        if status != INTERRUPTED or self._unsent or self._client.outstanding:
            self._ending = self._ending or (status, word)

    @property
    def _unsent(self) -> bool:
        return self._terminal.typed or bool(self._entered)

    def _outcome(self) -> tuple[int, str]:
        refusal = self._client.refusal if isinstance(self._client, LineClient) else ""
        if self._ending is not None:
            status, why = self._ending
        elif rejected(refusal) and not (self._acknowledged or self._refused):
            status, why = NOT_CONNECTED, self._why
        elif self._acknowledged == self._sent and not self._unsent:
            status, why = DONE, self._why
        elif self._why:
            status, why = NOT_ALL, self._why
        elif self._client.outstanding or self._lost:
            status, why = TIMED_OUT, late(self._timeout)
        else:
            status, why = NOT_ALL, f"{self._refused} refused"
        return status, f"{self._sum}: {why}" if why else ""

    async def _listen(self) -> None:
        client = self._client
        if isinstance(client, LineClient) and client.greeting is not None:
            self._terminal.show(UNASKED + printable(client.greeting))
        unasked = client.lines() if isinstance(client, LineClient) else client.datagrams()
        async for line in unasked:
            self._terminal.show(UNASKED + printable(line))

    async def _finish(self) -> None:
        """Nothing more is typed: send what was entered and wait for the replies."""
        self._left = self._finishing = True
        self._send()
        await self._settled
        if self._halfClosed:
            with suppress(TimeoutError):
                await self._client.disconnected().addTimeout(GRACE, self._reactor)

    def _halfClose(self) -> None:
        if isinstance(self._client, LineClient):
            self._halfClosed = halfClose(self._client)

    def _send(self) -> None:
        """Send as many lines as may be in flight, and then the end if it has come."""
        while self._entered and self._due < self._window and not self._closed:
            self._ask(self._entered.popleft())
        if not self._finishing or self._settled.called:
            return
        if not (self._entered or self._closed or self._halfClosed):
            self._halfClose()
        if self._closed or not (self._entered or self._due):
            self._settled.callback(None)

    def _sendSoon(self) -> None:
        # When a connection ends, the replies fail before it tells of its end.
        if self._sending is None or not self._sending.active():
            self._sending = self._reactor.callLater(0, self._send)

    def _ask(self, line: bytes) -> None:
        self._sent += 1
        self._due += 1
        # A late reply is worth showing; but a lost datagram never has one.
        late = self._reactor.callLater(self._timeout, self._expire) if self._stream else None
        reply = self._client.ask(line, None if self._stream else self._timeout)
        reply.addCallbacks(self._answered, self._unanswered).addBoth(self._answer, late)

    def _answered(self, reply: bytes) -> None:
        self._told = False
        if reply.startswith(self._refusals):
            self._refused += 1
        else:
            self._acknowledged += 1
        self._terminal.show(printable(reply))

    def _unanswered(self, failure: Failure) -> None:
        if failure.check(TimedOut):
            self._lost = True
            self._tellLate()
            return
        why = failure.getErrorMessage()
        if not self._stream:
            self._terminal.show(NOTICE + printable(why.encode()))
        self._why = self._why or why

    def _answer(self, _: None, late: IDelayedCall | None) -> None:
        if late is None:
            self._due -= 1
        elif late.active():
            late.cancel()
            self._due -= 1
        self._sendSoon()

    def _expire(self) -> None:
        self._due -= 1
        # On a stream all replies behind a late one are late.
        if not self._told:
            self._tellLate()
        self._told = True
        self._sendSoon()

    def _tellLate(self) -> None:
        if not self._left:
            self._terminal.show(NOTICE + late(self._timeout).encode())

    def _disconnected(self, _: None) -> None:
        self._closed = True
        if not self._left:
            why = "the server closed the connection"
            if isinstance(self._client, LineClient) and self._client.refusal:
                why = f"the server ended the connection: {self._client.refusal}"
            self._why = self._why or why
        self._terminal.stop()
        self._sendSoon()
