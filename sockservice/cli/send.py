"""`sockservice send`: lines to a server, its replies to stdout, the truth in the exit status."""

import math
import os
import sys
from typing import Any, NoReturn, Protocol

import click
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import react
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.cli import prompt
from sockservice.cli.completion import targets
from sockservice.cli.terminal import printable
from sockservice.client import DatagramClient, LineClient, TimedOut, connect
from sockservice.framing import Chunks, Framer, Lines

#: Most lines in flight: enough to fill a long round trip, few enough to hold.
WINDOW = 1000

NOT_ALL, USAGE, NOT_CONNECTED = 1, 2, 3


def _seconds(context: click.Context, option: click.Parameter, value: float) -> float:
    if not 0 < value < math.inf:
        raise click.BadParameter("not a number of seconds greater than 0")
    return value


@click.command()
@click.option(
    "--timeout",
    type=float,
    callback=_seconds,
    default=30.0,
    show_default=True,
    help="Seconds to wait for each reply.",
)
@click.option(
    "--framing",
    type=click.Choice(["lines", "chunks"]),
    default="lines",
    show_default=True,
    help="chunks: send without line endings and take what comes back at once for the reply, "
    "as naive servers do; one line in flight.",
)
@click.argument("target", shell_complete=targets)
@click.argument("lines", nargs=-1)
def send(target: str, lines: tuple[str, ...], timeout: float, framing: str) -> None:
    """Send LINES, or the lines of standard input, to TARGET and print each reply.

    On a terminal the lines are typed at a prompt: Ctrl-D sends the end and shows the
    replies still due, Ctrl-C leaves. A line nobody asked for is marked `*`.

    TARGET is tcp:HOST:PORT, udp:HOST:PORT (each line is a datagram) or a client
    endpoint string of Twisted's. A reply that begins with `error ` is a refusal.

    Exit status: 0 every line was acknowledged; 1 some were not, and stderr says
    how many and why; 2 usage; 3 could not connect. At the prompt also 4 no reply in
    time; 130 left with Ctrl-C, with something typed or unanswered.
    """
    given = [os.fsencode(line) for line in lines]
    if any(b"\n" in line for line in given):
        raise click.UsageError(
            "a line holds no line feed; give each line as an argument of its own"
        )

    if not given and sys.stdin is None:
        raise click.UsageError("standard input is closed; give lines as arguments")

    typing = not given and sys.stdin.isatty() and sys.stdout is not None and sys.stdout.isatty()
    if typing:
        prompt.install()

    async def run(reactor: Any) -> None:
        try:
            client = await connect(
                reactor, target, framing=Chunks if framing == "chunks" else Framer
            )
        except ValueError as problem:
            _end(USAGE, f"{target}: {problem}")
        except Exception as problem:
            # Twisted says the number and the words of an OSError twice.
            error = getattr(problem, "osError", None)
            reason = problem if error is None else os.strerror(error)
            _end(NOT_CONNECTED, f"could not connect to {target}: {reason}")
        if typing:
            _end(*await prompt.converse(reactor, client, timeout, window(client, framing)))
        if given:
            source: Source = Given(given)
        else:
            source = Input(reactor, sys.stdin.fileno())
        sending = Sending(reactor, client, source, timeout, window(client, framing))
        reactor.addSystemEventTrigger("before", "shutdown", sending.interrupt)
        _end(*await sending.run())

    react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


def window(client: LineClient | DatagramClient, framing: str) -> int:
    """Say how many lines may be in flight."""
    if framing == "chunks":
        # Chunks that follow each other at once could arrive as one.
        return 1
    if isinstance(client, DatagramClient):
        # Datagrams are lost where they find no room, and the longest fill it soon.
        return 4
    return WINDOW


def _end(status: int, said: str) -> NoReturn:
    if said:
        click.echo(said, err=True)
    raise SystemExit(status)


class Source(Protocol):
    """Lines to send."""

    async def read(self) -> list[bytes]:
        """Give the next lines; none at the end."""

    def stop(self) -> None:
        """Give no more."""


class Given:
    """Lines that are there already."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    async def read(self) -> list[bytes]:
        lines, self._lines = self._lines, []
        return lines

    def stop(self) -> None:
        self._lines = []


@implementer(IReadDescriptor)
class Input:
    """Lines from a file descriptor, read when they are asked for.

    The last one counts without an ending, too: whoever wrote it can see what
    becomes of it.
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._framer = Framer(sys.maxsize)
        self._ended = False
        self._asked: Deferred[None] | None = None

    async def read(self) -> list[bytes]:
        while True:
            item = self._framer.take(WINDOW)
            if isinstance(item, Lines):
                return item.lines
            if self._ended:
                return []
            self._asked = Deferred()
            self._reactor.addReader(self)
            await self._asked

    def stop(self) -> None:
        self._ended = True
        self._framer = Framer(sys.maxsize)
        self._continue()

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "input"

    def doRead(self) -> None:
        data = os.read(self._descriptor, 65536)
        if data:
            self._framer.receive(data)
            self._continue()
        else:
            self._end()

    def connectionLost(self, reason: Failure) -> None:
        # How the reactor tells that a pipe is empty and its writer has gone.
        self._end()

    def _end(self) -> None:
        self._ended = True
        if not self._framer.startsLine:
            self._framer.receive(b"\n")
        self._continue()

    def _continue(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            self._reactor.removeReader(self)
            asked.callback(None)


class Sending:
    """Lines on their way to a server, and what became of them."""

    def __init__(
        self,
        reactor: Any,
        client: LineClient | DatagramClient,
        source: Source,
        timeout: float,
        window: int,
    ) -> None:
        self._reactor = reactor
        self._client = client
        self._source = source
        self._timeout = timeout
        self._window = window
        self._sent = 0
        self._acknowledged = 0
        self._refused = 0
        self._why = ""
        self._lost = False
        self._done: Deferred[None] = Deferred()
        self._output: Any = sys.stdout
        self._awaited: tuple[int, Deferred[None]] | None = None
        self._flushing = False

    async def run(self) -> tuple[int, str]:
        """Send all lines and await all replies; give the exit status and what to say."""
        self._client.disconnected().addCallback(self._disconnected)
        while lines := await self._source.read():
            for line in lines:
                if self._client.outstanding >= self._window:
                    await self._until(self._window // 2)
                if self._lost:
                    break
                self._sent += 1
                asked = self._client.ask(line, self._timeout)
                asked.addCallbacks(self._answered, self._unanswered)
        await self._until(0)
        if self._lost and not self._why:
            self._why = "the server closed the connection before the end of the input"
        # What timed out may stand behind lines that the server doesn't even read.
        await (self._client.abort() if self._why else self._client.close())
        self._flush()
        self._done.callback(None)
        if self._acknowledged == self._sent and not self._why:
            return 0, ""
        why = self._why or f"{self._refused} refused"
        return NOT_ALL, f"sent {self._sent}, acknowledged {self._acknowledged}: {why}"

    def interrupt(self) -> Deferred[None]:
        """The reactor is stopping, before all is done or after; fires when it has been said."""
        if not self._done.called:
            self._stop("interrupted")
        return self._done

    def _disconnected(self, _: None) -> None:
        self._lost = True
        self._source.stop()

    def _stop(self, why: str) -> None:
        self._why = self._why or why
        self._client.abort()

    def _answered(self, reply: bytes) -> None:
        if reply.startswith(b"error "):
            self._refused += 1
        else:
            self._acknowledged += 1
        self._print(reply)
        if not self._flushing:
            self._flushing = True
            self._reactor.callLater(0, self._flush)
        self._settled()

    def _unanswered(self, failure: Failure) -> None:
        if failure.check(TimedOut) and isinstance(self._client, LineClient):
            # What is behind it in the same stream need not be waited for as long.
            self._stop(failure.getErrorMessage())
        self._why = self._why or failure.getErrorMessage()
        self._settled()

    async def _until(self, outstanding: int) -> None:
        """Wait until no more than `outstanding` replies are awaited."""
        if self._client.outstanding > outstanding:
            self._awaited = outstanding, Deferred()
            await self._awaited[1]

    def _settled(self) -> None:
        if self._awaited is not None and self._client.outstanding <= self._awaited[0]:
            awaited, self._awaited = self._awaited[1], None
            awaited.callback(None)

    def _print(self, reply: bytes) -> None:
        if self._output is None:
            self._stop("standard output is closed")
            return
        try:
            if self._output.isatty():
                reply = printable(reply)
            self._output.buffer.write(reply + b"\n")
        except OSError as problem:
            self._unwritable(problem)

    def _flush(self) -> None:
        self._flushing = False
        try:
            if self._output is not None:
                self._output.flush()
        except OSError as problem:
            self._unwritable(problem)

    def _unwritable(self, problem: OSError) -> None:
        """Nobody gets the replies any more."""
        # What Python still has of them must not fail again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        self._output = None
        self._stop(f"standard output: {problem.strerror}")
