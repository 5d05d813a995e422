"""Stream lines to a server, over one connection or, retrying, over several."""

import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from sockservice.cli.connecting import NotConnected, connected
from sockservice.cli.progress import INTERVAL, Bar, drawn
from sockservice.cli.send.flight import Burst, Flight, size
from sockservice.cli.send.output import Interrupted, ReplyWriter
from sockservice.cli.send.pacing import Pacing
from sockservice.cli.send.retrying import Retrying
from sockservice.cli.send.source import LineSource
from sockservice.cli.send.summary import Summary, kept
from sockservice.cli.send.unacked import Unacked
from sockservice.cli.send.window import WINDOW
from sockservice.cli.status import NOT_ALL, NOT_CONNECTED, SIGNALLED, TIMED_OUT, USAGE
from sockservice.cli.text import printable, tell
from sockservice.client.datagram import DatagramClient
from sockservice.client.farewell import rejected
from sockservice.client.line import LineClient
from sockservice.client.reliable import ReliableSender
from sockservice.client.requests import TimedOut
from sockservice.net.tls.client import refusal

#: Signals that end sending in good order, in words.
SIGNALS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "hung up",
}
#: Datagrams in flight: they are lost where they find no room, and the longest fill it soon.
DATAGRAMS = 4

#: Unrequested lines that are shown.
SHOWN = 3


#: Sends lines and passes on the replies to them; fires when all have come.
Send = Callable[[list[bytes], Callable[[list[bytes]], None]], Deferred[None]]


class Sending:
    """Sends the lines of `source`, at most `most` of them in flight, and sums up their fate."""

    def __init__(
        self,
        reactor: Any,
        target: str,
        source: LineSource,
        output: ReplyWriter,
        unacked: Unacked,
        *,
        timeout: float,
        rate: float | None,
        most: int,
    ) -> None:
        self._reactor = reactor
        self._target = target
        self._source = source
        self._output: ReplyWriter | None = output
        self._unacked = unacked
        self._timeout = timeout
        self._client: LineClient | DatagramClient | None = None
        self._sender: ReliableSender | None = None
        self._flight = Flight(most)
        self._summary = Summary()
        self._unsent: list[bytes] = []
        self._stopped = False
        self._ended = False
        self._wake: Deferred[None] | None = None
        self._pause: Deferred[Any] | None = None
        self._begun = reactor.seconds()
        self._pacing = Pacing(rate, self._begun)
        self._bar = Bar()

    async def run(self, connecting: Callable[[], Deferred[Any]]) -> tuple[int, str]:
        """Connect, send all lines, wait for all replies; return exit status and a message or "".

        :raises NotConnected: There is no such target.
        """
        self._pause = connecting()
        try:
            client = await connected(self._target, self._pause)
        except NotConnected as problem:
            if problem.status == USAGE:
                raise
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
                lambda lines, answered: client.askAll(lines, answered, self._timeout), client.ready
            )
        else:
            await self._stream(partial(self._ask, client), None)
        # After a timeout the server may not even read what was sent.
        self._ended = True
        await (client.abort() if self._summary.why else client.close())
        return self._summed()

    async def retry(self, how: dict[str, Any]) -> tuple[int, str]:
        """Send all lines, over as many connections as it takes; return what `run` does.

        :raises ValueError: There is no such target.
        """
        how["connectTimeout"] = how.pop("timeout")
        sender = Retrying(
            self._reactor,
            self._target,
            timeout=self._timeout,
            drainTimeout=0,
            **how,
        )
        sender.said, sender.heard = self._say, self._unasked
        self._sender = sender
        sender.startService()
        await self._stream(sender.sendAll, sender.ready)
        self._ended = True
        await sender.stopService()
        return self._summed()

    def signalled(self, number: signal.Signals) -> None:
        """End, for a signal was received. Called by Python's own handler, at any time."""
        if self._output is not None and self._output.writing:
            raise Interrupted(number)
        self._reactor.callFromThread(self._interrupt, number)

    def _interrupt(self, number: signal.Signals) -> None:
        self._stop(SIGNALS[number], SIGNALLED + number)

    async def _listen(self, client: LineClient) -> None:
        async for line in client.lines():
            self._unasked(line)

    async def _stream(self, send: Send, ready: Callable[[], Deferred[None]] | None) -> None:
        self._tick()
        while not self._stopped and (lines := await self._source.read()):
            self._unsent = lines
            while self._unsent and not self._stopped:
                count = await self._allowed()
                if ready is not None and not self._stopped:
                    await ready()
                if self._stopped:
                    break
                lines, self._unsent = self._unsent[:count], self._unsent[count:]
                self._give(send, lines)
        if self._source.problem:
            self._stop(self._source.problem, NOT_ALL, abort=False)
        while self._flight.awaited:
            await self._woken()

    def _give(self, send: Send, lines: list[bytes]) -> None:
        burst = self._flight.add(self._summary.sent + 1, lines, self._reactor.seconds())
        self._summary.sent += len(lines)
        send(lines, partial(self._answered, burst)).addErrback(self._unanswered, burst)

    def _ask(
        self, client: DatagramClient, lines: list[bytes], answered: Callable[[list[bytes]], None]
    ) -> Deferred[Any]:
        asked: Deferred[Any] = client.ask(lines[0], self._timeout)
        return asked.addCallback(lambda reply: answered([reply]))

    async def _allowed(self) -> int:
        """Wait until more lines may be sent; return how many."""
        count = min(self._flight.most, len(self._unsent))
        if isinstance(self._client, DatagramClient):
            count = 1
        while (bytes := size(self._unsent[:count])) > WINDOW // 2 and count > 1:
            count //= 2
        while not self._flight.admits(count, bytes):
            await self._woken()
        if self._stopped:
            return count
        if pause := self._pacing.wait(self._reactor.seconds()):
            self._pause = Deferred()
            later = self._reactor.callLater(pause, self._pause.callback, None)
            with suppress(CancelledError):
                await self._pause
            if later.active():
                later.cancel()
            self._pause = None
        return self._pacing.take(count, self._reactor.seconds())

    def _disconnected(self, _: None) -> None:
        if not self._ended and not self._stopped:
            self._stopped = True
            if self._farewell:
                why = f"the server ended the connection: {self._farewell}"
                self._summary.end(why, NOT_CONNECTED if self._rejected else NOT_ALL)
            self._source.stop()
            self._reactor.callLater(0, self._stop, "", NOT_ALL)

    @property
    def _farewell(self) -> str:
        return self._client.refusal if isinstance(self._client, LineClient) else ""

    @property
    def _rejected(self) -> bool:
        """Whether the server rejected the connection."""
        return rejected(self._farewell) and not self._flight.answeredBytes

    def _stop(self, why: str, status: int, abort: bool = True) -> None:
        self._summary.end(why, status)
        self._stopped = True
        self._source.stop()
        if self._pause is not None:
            self._pause.cancel()
        if abort and self._client is not None:
            self._client.abort()
        if abort and self._sender is not None:
            self._sender.stopService()

    def _answered(self, burst: Burst, replies: list[bytes]) -> None:
        start = burst.count
        took = self._flight.answered(burst, len(replies), self._reactor.seconds())
        refused = [each for each, reply in enumerate(replies) if reply.startswith(b"error ")]
        self._summary.refused += len(refused)
        self._summary.unknown += sum(
            replies[each].startswith(b"error unknown: ") for each in refused
        )
        self._summary.acknowledged += len(replies) - len(refused)
        if refused:
            self._unacked.add([burst.lines[start + each] for each in refused])
        if self._output is not None:
            self._print(lambda output: output.replies(burst.first + start, replies, refused, took))
        self._continue()

    def _unanswered(self, failure: Failure, burst: Burst) -> None:
        self._flight.unanswered(burst)
        status = TIMED_OUT if failure.check(TimedOut) else NOT_ALL
        cause = failure.value and failure.value.__cause__
        refused = cause is not None and refusal(cause) and not self._flight.answeredBytes
        if refused or self._rejected:
            # In TLS 1.3 a client is refused after the end of the handshake, as it sees it.
            status = NOT_CONNECTED
        if isinstance(self._client, LineClient):
            # At once: nothing sent from here on would leave.
            self._stop(failure.getErrorMessage(), status, abort=status == TIMED_OUT)
        else:
            self._summary.end(failure.getErrorMessage(), status)
        self._continue()

    def _unasked(self, line: bytes) -> None:
        # A line before the first is a greeting; later it may shift the replies.
        if self._summary.sent:
            self._summary.unasked += 1
        if self._summary.unasked <= SHOWN:
            self._say(f"unasked: {printable(line).decode()}")

    async def _woken(self) -> None:
        """Wait for the next reply, or failure of one."""
        self._wake = Deferred()
        await self._wake

    def _continue(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    def _print(self, write: Callable[[ReplyWriter], None]) -> None:
        output = self._output
        if output is None:
            return
        if output.terminal:
            self._bar.clear()
        try:
            write(output)
        except Interrupted as interrupted:
            self._output = None
            self._interrupt(interrupted.args[0])
        except OSError as problem:
            # The replies have no reader any more.
            self._output = None
            self._stop(f"standard output: {problem.strerror}", NOT_ALL)

    def _say(self, text: str) -> None:
        self._bar.clear()
        tell(text)

    def _tick(self) -> None:
        if not self._bar.there or self._ended:
            return
        taken = self._reactor.seconds() - self._begun
        if taken >= INTERVAL:
            summary = self._summary
            lines = summary.acknowledged + summary.refused
            size, total = self._flight.answeredBytes, self._source.size
            left = summary.sent - summary.acknowledged
            self._bar.show(drawn(lines, size, total, taken, left, self._bar.width))
        self._reactor.callLater(INTERVAL, self._tick)

    def _summed(self) -> tuple[int, str]:
        """Keep what was not acknowledged; return the exit status and a message or ""."""
        self._bar.clear()
        summary = self._summary
        if self._stopped and not summary.why:
            summary.end("the server closed the connection before the end of the input", NOT_ALL)
        flying = self._flight.bursts
        left = sum(len(burst.lines) - burst.count for burst in flying)
        first = flying[0].first + flying[0].count if left else 0
        faults = summary.faults(first, left)
        if faults:
            faults += self._kept()
        sent = summary.sent if self._sender is None else self._sender.sent
        self._print(
            lambda output: output.sum(
                sent=sent,
                acknowledged=summary.acknowledged,
                refused=summary.refused,
                unacknowledged=left,
                seconds=round(self._reactor.seconds() - self._begun, 6),
                status=summary.exits(faults),
                why="; ".join(faults),
            )
        )
        if self._output is None and summary.why not in faults:
            # Not even the totals could be written.
            faults.insert(0, summary.why)
        connected = self._client is not None or self._sender is not None
        return summary.outcome(faults, sent if connected else None)

    def _kept(self) -> list[str]:
        """Keep the lines that were not acknowledged; return how that is told."""
        for burst in self._flight.bursts:
            self._unacked.add(burst.lines[burst.count :])
        self._unacked.add(self._unsent)
        for lines in self._source.rest():
            self._unacked.add(lines)
        return kept(self._unacked)
