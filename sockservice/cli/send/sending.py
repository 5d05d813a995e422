"""Stream lines to a server, over one connection or, retrying, over several."""

import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure

from sockservice.cli.connecting import NotConnected, connected
from sockservice.cli.progress import INTERVAL, drawn
from sockservice.cli.send import surplus
from sockservice.cli.send.display import SHOWN, Display
from sockservice.cli.send.flight import Burst, Flight, portion
from sockservice.cli.send.output import Interrupted, ReplyWriter
from sockservice.cli.send.retrying import Retrying
from sockservice.cli.send.source import LineSource
from sockservice.cli.send.summary import Summary, kept
from sockservice.cli.send.unacked import Unacked
from sockservice.cli.status import NOT_ALL, NOT_CONNECTED, SIGNALLED, SIGNALS, TIMED_OUT, USAGE
from sockservice.client.datagram import DatagramClient
from sockservice.client.farewell import rejected
from sockservice.client.line import LineClient
from sockservice.client.pacing import Pacing
from sockservice.client.parting import part
from sockservice.client.requests import TimedOut, Unanswered
from sockservice.net.tls.client import refusal
from sockservice.wire.plurals import counted

#: Sends lines, passes on the replies to them, and fires when all have come.
Send = Callable[[list[bytes], Callable[[list[bytes]], None]], Deferred[None]]


class Again(Exception):
    """All has to be sent once more, from the first line on; the text says why."""


class Sending:
    """Sends the lines of `source`, at most `most` of them in flight, and sums up their fate.

    A reply that begins with one of `refusals` is a refusal.
    """

    def __init__(
        self,
        reactor: Any,
        target: str,
        source: LineSource,
        display: Display,
        unacked: Unacked,
        *,
        timeout: float,
        rate: float | None,
        most: int,
        refusals: tuple[bytes, ...],
    ) -> None:
        self._reactor = reactor
        self._target = target
        self._source = source
        self._display = display
        self._mute = False  # nothing more can be written
        self._unacked = unacked
        self._timeout = timeout
        self._refusals = refusals
        self._client: LineClient | DatagramClient | None = None
        self._sender: Retrying | None = None
        self._flight, self._most = Flight(most), most
        self._summary = Summary()
        self._unsent: list[bytes] = []
        self._stopped = self._ended = False
        self._wake: Deferred[None] | None = None
        self._pause: Deferred[Any] | None = None
        self._begun = reactor.seconds()
        self._rate = rate
        self._pacing = Pacing(rate, self._begun)

    async def run(self, connecting: Callable[[], Deferred[Any]]) -> tuple[int, str]:
        """Connect, send all lines, wait for all replies; return exit status and a message or ""."""
        self._pause = connecting()
        try:
            client = await connected(self._target, self._pause)
        except NotConnected as problem:
            if self._stopped:
                self._summary.why += f" before there was a connection to {self._target}"
            else:
                self._summary.end(problem.why, problem.status)
            return self._summed()
        finally:
            self._pause = None
        self._client = client
        client.disconnected().addCallback(self._disconnected)
        if isinstance(client, LineClient):
            Deferred.fromCoroutine(self._listen(client))
            await self._stream(
                lambda lines, answered: client.askAll(lines, answered, self._timeout),
                lambda: self._ready(client),
            )
        else:
            self._most, client.refusals = 1, self._refusals
            await self._streamDatagrams(client)
        # After a timeout the server may not even read what was sent.
        self._ended = True
        if self._summary.why:
            await client.abort()
        elif isinstance(client, LineClient):
            await self._part(client)
        else:
            await client.close()
        return self._summed()

    async def retry(self, made: Callable[..., Retrying]) -> tuple[int, str]:
        """Send all lines, over as many connections as it takes; return what `run` does.

        `made` makes the sender.

        :raises Again: The sender has to begin once more, with the whole input.
        """
        try:
            sender = made(timeout=self._timeout, drainTimeout=0, rate=self._rate)
        except ValueError as problem:
            self._summary.end(f"{self._target}: {problem}", USAGE)
            return self._summed()
        sender.said, sender.heard = self._display.say, self._unasked
        sender.failed = partial(self._stop, abort=False)
        self._sender, self._pacing = sender, sender.pacing
        sender.startService()
        await sender.begun()
        self._summary.before = sender.skipped
        await self._stream(sender.sendAll, sender.ready)
        self._ended = True
        await sender.stopService()
        if sender.again:
            raise Again(sender.again)
        return self._summed()

    def signalled(self, number: signal.Signals) -> None:
        """Act on a signal: end, or at SIGQUIT say how far it is and go on.

        Called by Python's own handler, at any time.
        """
        if number == signal.SIGQUIT:
            self._reactor.callFromThread(self._tellProgress)
            return
        if self._display.writing:
            raise Interrupted(number)
        self._reactor.callFromThread(self._interrupt, number)

    def long(self, sizes: list[int], lines: list[bytes]) -> None:
        """Take note of lines that are not sent, for they are too long."""
        for size in sizes:
            self._summary.long += 1
            if self._summary.long <= SHOWN:
                self._display.say(f"not sent: a line of {counted(size, 'byte')}")
        self._unacked.add(lines)

    def left(self) -> None:
        """End, for Ctrl-C was typed at a prompt; if no reply is due, that is no interruption."""
        if self._flight.awaited:
            self._interrupt(signal.SIGINT)

    def _interrupt(self, number: signal.Signals) -> None:
        if number == signal.SIGINT:
            self._display.interrupted()
        self._stop(SIGNALS[number], SIGNALLED + number)

    def _tellProgress(self) -> None:
        self._display.interrupted()
        seconds = self._reactor.seconds() - self._begun
        self._display.sum(self._summary.progress(self._sent, seconds))

    async def _listen(self, client: LineClient) -> None:
        async for line in client.lines():
            self._unasked(line)

    async def _ready(self, client: LineClient) -> None:
        await client.ready()

    async def _part(self, client: LineClient) -> None:
        await part(client, self._reactor)

    async def _streamDatagrams(self, client: DatagramClient) -> None:
        Deferred.fromCoroutine(surplus.shown(client, self._display.say))
        await self._stream(partial(surplus.ask, client, self._timeout), None)
        if not self._stopped:
            await surplus.lingered(self._reactor)

    async def _stream(self, send: Send, ready: Callable[[], Awaitable[None]] | None) -> None:
        self._tick()
        while not self._stopped and (lines := await self._source.read()):
            self._unsent = lines
            while self._unsent and not self._stopped:
                count = await self._room()
                if ready is not None and not self._stopped:
                    await ready()
                if not self._stopped:
                    count = await self._turn(count)
                if self._stopped:
                    break
                lines, self._unsent = self._unsent[:count], self._unsent[count:]
                self._give(send, lines)
        if self._source.problem:
            self._stop(self._source.problem, NOT_ALL, abort=False)
        while self._flight.awaited:
            await self._woken()

    def _give(self, send: Send, lines: list[bytes]) -> None:
        burst = self._flight.add(self._summary.next, lines, self._reactor.seconds())
        self._summary.sent += len(lines)
        sending = maybeDeferred(send, lines, partial(self._answered, burst))
        sending.addErrback(self._unanswered, burst)

    async def _room(self) -> int:
        """Wait until more lines may be in flight; return how many."""
        count, bytes = portion(self._unsent, self._most)
        while not self._flight.admits(count, bytes):
            await self._woken()
        return count

    async def _turn(self, most: int) -> int:
        """Wait until the rate allows lines to be sent; return how many, 1 to `most`."""
        self._pause = turn = self._pacing.turn(self._reactor)
        with suppress(CancelledError):
            await turn
        self._pause = None
        count = max(1, self._pacing.allowed(most, self._reactor.seconds()))
        if self._sender is None:
            # A sender takes them itself, and again when it sends them again.
            self._pacing.take(count)
        return count

    def _disconnected(self, _: None) -> None:
        if not self._ended and not self._stopped:
            self._stopped = True
            if farewell := getattr(self._client, "refusal", ""):
                why = f"the server ended the connection: {farewell}"
                self._summary.end(why, NOT_CONNECTED if self._rejected else NOT_ALL)
            self._source.stop()
            self._reactor.callLater(0, self._stop, "", NOT_ALL)

    @property
    def _rejected(self) -> bool:
        """Whether the server rejected the connection."""
        return rejected(getattr(self._client, "refusal", "")) and not self._flight.answeredBytes

    @property
    def _sent(self) -> int:
        """Lines that have left at least once."""
        return self._summary.sent if self._sender is None else self._sender.sent

    def _stop(self, why: str, status: int, abort: bool = True) -> None:
        self._summary.end(why, status)
        self._stopped = True
        self._source.stop()
        if (pause := self._pause) is not None:
            pause.cancel()
        if abort and (client := self._client) is not None:
            client.abort()
        if abort and (sender := self._sender) is not None:
            sender.stopService()

    def _answered(self, burst: Burst, replies: list[bytes]) -> None:
        start = burst.count
        took = self._flight.answered(burst, len(replies), self._reactor.seconds())
        faulty, discarded = self._summary.tally(replies, self._refusals)
        for each in discarded:
            self._display.discarded(burst.first + start + each, replies[each])
        if faulty:
            self._unacked.add([burst.lines[start + each] for each in faulty])
        self._print(lambda output: output.replies(burst.first + start, replies, faulty, took))
        self._continue()

    def _unanswered(self, failure: Failure, burst: Burst) -> None:
        self._flight.unanswered(burst)
        status = TIMED_OUT if failure.check(TimedOut) else NOT_ALL
        cause = failure.value and failure.value.__cause__
        refused = cause and (refusal(cause) or isinstance(cause, ConnectionRefusedError))
        if (refused and not self._flight.answeredBytes) or self._rejected:
            # In TLS 1.3 a client is refused after the end of the handshake, as it sees it.
            status = NOT_CONNECTED
        if isinstance(self._client, LineClient):
            # At once: nothing sent from here on would leave.
            self._stop(failure.getErrorMessage(), status, abort=status == TIMED_OUT)
        elif self._sender is None or not failure.check(Unanswered):
            self._summary.end(failure.getErrorMessage(), status)
        self._continue()

    def _unasked(self, line: bytes) -> None:
        self._summary.doubt(line.startswith(self._refusals))
        self._display.unasked(line)

    async def _woken(self) -> None:
        self._wake = Deferred()  # fires at the next reply, or failure of one
        await self._wake

    def _continue(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    def _print(self, choose: Callable[[ReplyWriter], list[bytes]]) -> None:
        if self._mute:
            return
        try:
            self._display.write(choose)
        except Interrupted as interrupted:
            self._mute = True
            self._interrupt(interrupted.args[0])
        except OSError as problem:
            # The replies have no reader any more.
            self._mute = True
            self._stop(f"standard output: {problem.strerror}", NOT_ALL)

    def _tick(self) -> None:
        if not self._display.draws or self._ended:
            return
        taken = self._reactor.seconds() - self._begun
        if taken >= INTERVAL:
            summary = self._summary
            lines = summary.acknowledged + summary.refused
            size = self._flight.answeredBytes + getattr(self._sender, "skippedBytes", 0)
            left = summary.sent - summary.acknowledged
            self._display.draw(partial(drawn, lines, size, self._source.size, taken, left))
        self._reactor.callLater(INTERVAL, self._tick)

    def _summed(self) -> tuple[int, str]:
        """Keep what was not acknowledged; return the exit status and a message or ""."""
        summary = self._summary
        if self._stopped and not summary.why:
            summary.end("the server closed the connection before the end of the input", NOT_ALL)
        if faults := summary.faults(*self._flight.unfinished()):
            left = [burst.lines[burst.count :] for burst in self._flight.bursts]
            faults += kept(self._unacked, [*left, self._unsent], self._source)
        totals = summary.totals(self._sent, self._reactor.seconds() - self._begun, faults)
        totals |= surplus.counts(self._client) | self._source.counts
        self._print(lambda output: output.sum(**totals))
        self._display.close()
        if self._mute and summary.why not in faults:
            # Not even the totals could be written.
            faults.insert(0, summary.why)
        status, said = summary.outcome(faults, self._sent if self._client or self._sender else None)
        return status, surplus.told(said, self._client)
