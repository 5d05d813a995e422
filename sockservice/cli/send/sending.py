"""Lines streamed to a server, over one connection or as many as it takes."""

import math
import signal
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from sockservice.cli.progress import INTERVAL, Bar, drawn
from sockservice.cli.send.output import Interrupted, Output
from sockservice.cli.send.source import Source
from sockservice.cli.send.unacked import Unacked
from sockservice.cli.send.window import WINDOW, window
from sockservice.cli.status import NOT_ALL, NOT_CONNECTED, SIGNALLED, TIMED_OUT
from sockservice.cli.text import printable, tell
from sockservice.client.datagram import DatagramClient
from sockservice.client.explain import explained
from sockservice.client.farewell import turnedAway
from sockservice.client.line import LineClient
from sockservice.client.reliable import ReliableSender
from sockservice.client.requests import TimedOut
from sockservice.net.tls.client import refusal

#: Signals that end it in good order, in words.
SIGNALS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "hung up",
}
#: Datagrams in flight: they are lost where they find no room, and the longest fill it soon.
DATAGRAMS = 4

#: Lines nobody asked for that are shown.
SHOWN = 3
#: Seconds that lines behind schedule may catch up on.
SLACK = 0.05


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count} lines"


def _size(lines: list[bytes]) -> int:
    return sum(map(len, lines)) + len(lines)


class _Batch:
    """Lines sent at once, and how many have been answered."""

    __slots__ = ("before", "count", "first", "lines", "sent")

    def __init__(self, first: int, lines: list[bytes], sent: float, before: int) -> None:
        self.first = first  # its number, from 1
        self.lines = lines
        self.count = 0
        self.sent = sent
        self.before = before  # bytes answered when it was sent


class _Retrying(ReliableSender):
    """A sender that says on stderr what it does."""

    said: Callable[[str], None]
    heard: Callable[[bytes], None]

    def retrying(self, why: str, delay: float) -> None:
        kept = f"{_lines(self.outstanding)} unacknowledged"
        self.said(f"{why}; trying again in {delay:.1f} seconds, {kept}")

    def unasked(self, line: bytes) -> None:
        self.heard(line)


class Sending:
    """Lines on their way to a server, and what became of them.

    At most `most` of them are in flight.
    """

    def __init__(
        self,
        reactor: Any,
        target: str,
        source: Source,
        output: Output,
        unacked: Unacked,
        *,
        timeout: float,
        rate: float | None,
        most: int,
    ) -> None:
        self._reactor = reactor
        self._target = target
        self._source = source
        self._output: Output | None = output
        self._unacked = unacked
        self._timeout = timeout
        self._rate = rate
        self._most = most
        self._client: LineClient | DatagramClient | None = None
        self._sender: ReliableSender | None = None
        self._flying: deque[_Batch] = deque()
        self._awaited = 0  # lines whose reply may still come
        self._awaitedBytes = 0
        self._sent = self._acknowledged = self._refused = self._strange = 0
        self._answeredBytes = 0
        self._shortest = math.inf  # seconds of a round trip
        self._fastest = 0.0  # bytes a second
        self._unsent: list[bytes] = []
        self._status = 0
        self._why = ""
        self._stopped = False
        self._ended = False
        self._wake: Deferred[None] | None = None
        self._pause: Deferred[Any] | None = None
        self._begun = self._due = reactor.seconds()
        self._bar = Bar()

    async def run(self, connecting: Callable[[], Deferred[Any]]) -> tuple[int, str]:
        """Connect, send all lines and await all replies; give exit status and what to say.

        :raises ValueError: There is no such target.
        """
        self._pause = connected = connecting()
        try:
            client = await connected
        except ValueError:
            raise
        except Exception as problem:
            if self._stopped:
                self._why = f"{self._why} before there was a connection to {self._target}"
            else:
                self._status = NOT_CONNECTED
                self._why = f"could not connect to {self._target}: {explained(problem)}"
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
        # What timed out may stand behind lines that the server doesn't even read.
        self._ended = True
        await (client.abort() if self._why else client.close())
        return self._summed()

    async def retry(self, how: dict[str, Any]) -> tuple[int, str]:
        """Send all lines, over as many connections as it takes; give status and what to say."""
        how["connectTimeout"] = how.pop("timeout")
        sender = _Retrying(
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
        """A signal asks for the end. Called by Python's own handler, at any time."""
        if self._output is not None and self._output.writing:
            raise Interrupted(number)
        self._reactor.callFromThread(self._interrupt, number)

    def _interrupt(self, number: signal.Signals) -> None:
        self._stop(SIGNALS[number], SIGNALLED + number)

    async def _listen(self, client: LineClient) -> None:
        async for line in client.lines():
            self._unasked(line)

    async def _stream(
        self,
        give: Callable[[list[bytes], Callable[[list[bytes]], None]], Deferred[None]],
        ready: Callable[[], Deferred[None]] | None,
    ) -> None:
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
                self._give(give, lines)
        if self._source.problem:
            self._stop(self._source.problem, NOT_ALL, abort=False)
        while self._awaited:
            await self._woken()

    def _give(
        self,
        give: Callable[[list[bytes], Callable[[list[bytes]], None]], Deferred[None]],
        lines: list[bytes],
    ) -> None:
        batch = _Batch(self._sent + 1, lines, self._reactor.seconds(), self._answeredBytes)
        self._flying.append(batch)
        self._sent += len(lines)
        self._awaited += len(lines)
        self._awaitedBytes += _size(lines)
        give(lines, partial(self._answered, batch)).addErrback(self._unanswered, batch)

    def _ask(
        self, client: DatagramClient, lines: list[bytes], answered: Callable[[list[bytes]], None]
    ) -> Deferred[Any]:
        asked: Deferred[Any] = client.ask(lines[0], self._timeout)
        return asked.addCallback(lambda reply: answered([reply]))

    async def _allowed(self) -> int:
        """Wait until some of the next lines may be sent; say how many."""
        count = min(self._most, len(self._unsent))
        if isinstance(self._client, DatagramClient):
            count = 1
        while (size := _size(self._unsent[:count])) > WINDOW // 2 and count > 1:
            count //= 2
        while self._awaited and (
            self._awaited + count > self._most
            or self._awaitedBytes + size > window(self._shortest, self._fastest)
        ):
            await self._woken()
        if self._rate is None or self._stopped:
            return count
        now = self._reactor.seconds()
        self._due = max(self._due, now - SLACK)
        if self._due > now:
            self._pause = Deferred()
            later = self._reactor.callLater(self._due - now, self._pause.callback, None)
            with suppress(CancelledError):
                await self._pause
            if later.active():
                later.cancel()
            self._pause = None
            now = self._reactor.seconds()
        count = max(1, min(count, int((now - self._due) * self._rate) + 1))
        self._due += count / self._rate
        return count

    def _disconnected(self, _: None) -> None:
        if not self._ended and not self._stopped:
            self._stopped = True
            if self._farewell and not self._why:
                self._why = f"the server ended the connection: {self._farewell}"
                self._status = NOT_CONNECTED if self._turnedAway else NOT_ALL
            self._source.stop()
            self._reactor.callLater(0, self._stop, "", NOT_ALL)

    @property
    def _farewell(self) -> str:
        return self._client.refusal if isinstance(self._client, LineClient) else ""

    @property
    def _turnedAway(self) -> bool:
        """Whether the server did not let us in."""
        return turnedAway(self._farewell) and not self._answeredBytes

    def _stop(self, why: str, status: int, abort: bool = True) -> None:
        if not self._why:
            self._why = why
            self._status = status
        if status > SIGNALLED:
            self._why, self._status = why, status
        self._stopped = True
        self._source.stop()
        if self._pause is not None:
            self._pause.cancel()
        if abort and self._client is not None:
            self._client.abort()
        if abort and self._sender is not None:
            self._sender.stopService()

    def _answered(self, batch: _Batch, replies: list[bytes]) -> None:
        start, batch.count = batch.count, batch.count + len(replies)
        size = _size(batch.lines[start : batch.count])
        self._awaited -= len(replies)
        self._awaitedBytes -= size
        self._answeredBytes += size
        refused = [each for each, reply in enumerate(replies) if reply.startswith(b"error ")]
        self._refused += len(refused)
        self._acknowledged += len(replies) - len(refused)
        if refused:
            self._unacked.add([batch.lines[start + each] for each in refused])
        if batch.count == len(batch.lines):
            self._flying.remove(batch)
        took = self._reactor.seconds() - batch.sent
        if start == 0:
            self._shortest = min(self._shortest, took)
        if took > 0:
            self._fastest = max(self._fastest, (self._answeredBytes - batch.before) / took)
        if self._output is not None:
            self._print(lambda output: output.replies(batch.first + start, replies, refused, took))
        self._continue()

    def _unanswered(self, failure: Failure, batch: _Batch) -> None:
        left = batch.lines[batch.count :]
        self._awaited -= len(left)
        self._awaitedBytes -= _size(left)
        status = TIMED_OUT if failure.check(TimedOut) else NOT_ALL
        cause = failure.value and failure.value.__cause__
        refused = cause is not None and refusal(cause) and not self._answeredBytes
        if refused or self._turnedAway:
            # In TLS 1.3, too, a client is refused behind what it takes for the handshake's end.
            status = NOT_CONNECTED
        if isinstance(self._client, LineClient):
            # At once: what is sent from here on would not even leave.
            self._stop(failure.getErrorMessage(), status, abort=status == TIMED_OUT)
        elif not self._why:
            self._why = failure.getErrorMessage()
            self._status = status
        self._continue()

    def _unasked(self, line: bytes) -> None:
        # What comes before the first line greets; later, replies can't be told apart.
        if self._sent:
            self._strange += 1
        if self._strange <= SHOWN:
            self._say(f"unasked: {printable(line).decode()}")

    async def _woken(self) -> None:
        """Wait until a reply has come, or comes no more."""
        self._wake = Deferred()
        await self._wake

    def _continue(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    def _print(self, write: Callable[[Output], None]) -> None:
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
            # Nobody gets the replies any more.
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
            lines = self._acknowledged + self._refused
            size, total = self._answeredBytes, self._source.size
            left = self._sent - self._acknowledged
            self._bar.show(drawn(lines, size, total, taken, left, self._bar.width))
        self._reactor.callLater(INTERVAL, self._tick)

    def _summed(self) -> tuple[int, str]:
        """Keep what is to be kept; give the exit status and what to say."""
        self._bar.clear()
        left = sum(len(batch.lines) - batch.count for batch in self._flying)
        if not self._why and self._stopped:
            self._why = "the server closed the connection before the end of the input"
            self._status = NOT_ALL
        said = [self._why] if self._why else []
        if self._refused:
            said.append(f"{self._refused} refused")
        if self._strange:
            said.append(f"{_lines(self._strange)} came that nobody asked for")
        if left:
            first = self._flying[0].first + self._flying[0].count
            if left == self._sent - first + 1:
                which = f"lines {first} to {self._sent} are"
            else:
                which = f"{left} lines are"
            said.append(f"{f'line {first} is' if left == 1 else which} unacknowledged")
        if said or left:
            status = self._status or NOT_ALL
            said += self._kept()
        else:
            status = 0
        sent = self._sent if self._sender is None else self._sender.sent
        self._print(
            lambda output: output.sum(
                sent=sent,
                acknowledged=self._acknowledged,
                refused=self._refused,
                unacknowledged=left,
                seconds=round(self._reactor.seconds() - self._begun, 6),
                status=status,
                why="; ".join(said),
            )
        )
        if self._output is None and self._why not in said:
            # Not even that could be written.
            said.insert(0, self._why)
            status = self._status
        text = "; ".join(said)
        if self._client is not None or self._sender is not None:
            text = f"sent {sent}, acknowledged {self._acknowledged}: {text}"
        return status, text if status else ""

    def _kept(self) -> list[str]:
        """Keep the lines that were not acknowledged; say so."""
        for batch in self._flying:
            self._unacked.add(batch.lines[batch.count :])
        self._unacked.add(self._unsent)
        for lines in self._source.rest():
            self._unacked.add(lines)
        if self._unacked.keep():
            count = self._unacked.count
            return [f"{_lines(count)} {'is' if count == 1 else 'are'} in {self._unacked.path}"]
        if self._unacked.problem:
            return [f"{self._unacked.path}: {self._unacked.problem}"]
        return []
