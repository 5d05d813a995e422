"""`sockservice bench`: how many lines a server answers, and how long that takes."""

import ipaddress
import json
import math
import os
import signal
import socket
import sys
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from time import perf_counter, perf_counter_ns
from typing import Any, NamedTuple, NoReturn

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import react
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.attaching import longest
from sockservice.cli.completion import targets
from sockservice.cli.output import Output
from sockservice.cli.target import targeted
from sockservice.cli.terminal import printable
from sockservice.client import REPLY_LIMIT, DatagramClient, LineClient
from sockservice.loading import FAULTS, SECOND, Load, Tally
from sockservice.openfiles import allow
from sockservice.targets import connect, explained

NOT_ALL, USAGE, NOT_CONNECTED, INTERRUPTED = 1, 2, 3, 130

#: Bytes in flight on one connection.
IN_FLIGHT = 64 * 1024 * 1024
SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Seconds between reports of a process on how far it is.
PROGRESS = 0.2
#: Parts of the latencies that they are told for.
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
BARS = 16
WIDTH = 40


def _seconds(context: click.Context, option: click.Parameter, value: float) -> float:
    least = option.default == 0.0
    if not (0 < value < math.inf or (least and value == 0)):
        raise click.BadParameter("not a number of seconds greater than 0")
    return value


def _rate(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter("not a number of lines greater than 0")
    return value


class Settings(NamedTuple):
    """What is to be measured, by all processes together."""

    target: str
    connections: int
    pipeline: int
    size: int
    duration: float
    warmup: float
    rate: float | None
    timeout: float
    processes: int
    yes: bool
    how: dict[str, Any]

    def part(self, place: int) -> "Settings":
        """Give the share of one process."""
        connections = (self.connections + self.processes - place - 1) // self.processes
        rate = self.rate and self.rate * connections / self.connections
        return self._replace(connections=connections, rate=rate)


@click.command()
@click.option(
    "--connections",
    type=click.IntRange(1, 100_000),
    default=10,
    show_default=True,
    help="Connections, or sockets that send datagrams.",
)
@click.option(
    "--pipeline",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    help="Lines in flight on each connection.",
)
@click.option(
    "--size",
    type=click.IntRange(0, REPLY_LIMIT),
    default=56,
    show_default=True,
    help="Bytes of a line, without its ending, or of a datagram.",
)
@click.option(
    "--duration",
    type=float,
    callback=_seconds,
    default=10.0,
    show_default=True,
    help="Seconds to measure.",
)
@click.option(
    "--warmup",
    type=float,
    callback=_seconds,
    default=0.0,
    show_default=True,
    help="Seconds to load the server before.",
)
@click.option(
    "--rate",
    type=float,
    callback=_rate,
    metavar="LINES/S",
    help="So many lines a second on all connections together, each at its time, whatever the "
    "server does; latency counts from the time a line was due.",
)
@click.option(
    "--timeout",
    type=float,
    callback=_seconds,
    default=1.0,
    show_default=True,
    help="Seconds after which a datagram is lost, and to wait for replies at the end.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes that share the connections.",
)
@click.option("--json", "asJson", is_flag=True, help="Print one object.")
@click.option("--yes", is_flag=True, help="Load a target that is not on this machine.")
@targeted
@click.argument("target", shell_complete=targets)
def bench(asJson: bool, **given: Any) -> None:
    """Load TARGET, a line or echo server, and print its throughput and latencies.

    TARGET is what `sockservice send` takes. One that is neither a loopback address nor a UNIX
    socket is loaded with --yes only.

    Every reply is counted and checked. Ctrl-C prints what was measured so far.

    Exit status: 0 every line was answered as it should; 1 some were not; 2 usage; 3 could
    not connect, or nobody listens; 130 interrupted.
    """
    settings = Settings(**given)
    if settings.pipeline * (settings.size + 1) > IN_FLIGHT:
        raise click.UsageError(f"--pipeline times --size is more than {IN_FLIGHT} bytes")
    if settings.processes > settings.connections:
        raise click.UsageError("--processes: each needs one of the --connections")
    benching = Benching(settings)
    outcome = benching.run()
    if isinstance(outcome, Refusal):
        _end(*outcome)
    tally, elapsed = outcome
    output = Output()
    if asJson:
        output.write(json.dumps(summary(settings, tally, elapsed)))
    else:
        terminal = sys.stdout is not None and sys.stdout.isatty()
        for line in table(settings, tally, elapsed, bars=terminal):
            output.write(line)
    if output.broken:
        _end(NOT_ALL, output.broken)
    if benching.interrupted:
        _end(INTERRUPTED, "interrupted")
    _end(0 if tally.whole else NOT_ALL, "" if tally.answered else "nothing was answered")


def _end(status: int, said: str) -> NoReturn:
    if said:
        click.echo(said, err=True)
    raise SystemExit(status)


# What is printed


def summary(settings: Settings, tally: Tally, elapsed: float) -> dict[str, Any]:
    """Give all that was measured, in seconds and bytes."""
    found: dict[str, Any] = {
        "target": settings.target,
        "connections": settings.connections,
        "pipeline": settings.pipeline,
        "size": settings.size,
        "rate": settings.rate,
        "seconds": round(elapsed, 3),
        "answered": tally.answered,
        "perSecond": round(tally.inTime / elapsed, 3) if elapsed else 0.0,
    }
    found |= {name: getattr(tally, name) for name in FAULTS}
    found["reason"] = tally.reason
    found["latency"] = None
    if tally.latencies.total:
        found["latency"] = {
            name: tally.latencies.quantile(part) / SECOND for name, part in QUANTILES.items()
        }
    return found


def table(settings: Settings, tally: Tally, elapsed: float, bars: bool) -> list[str]:
    """Give the same for people, with a histogram of the latencies if `bars` asks for it."""
    perSecond = tally.inTime / elapsed if elapsed else 0.0
    faults = ((name, getattr(tally, name)) for name in FAULTS)
    lines = [
        f"bench {settings.target}: {settings.connections} connections, {settings.pipeline} in "
        f"flight on each, {settings.size} bytes",
        f"answered  {tally.answered:,} in {elapsed:.1f} s: {perSecond:,.0f} a second, "
        f"{perSecond * settings.size / 1e6:,.1f} MB/s",
        "faults    " + (", ".join(f"{name} {n:,}" for name, n in faults if n) or "none"),
    ]
    if tally.reason:
        lines.append(f"reason    {printable(tally.reason.encode()).decode()}")
    if tally.latencies.total:
        found = {name: tally.latencies.quantile(part) for name, part in QUANTILES.items()}
        lines.append(
            "latency   " + ", ".join(f"{name} {_ms(value)}" for name, value in found.items())
        )
        if bars:
            lines += histogram(tally)
    return lines


def histogram(tally: Tally) -> list[str]:
    """Draw the latencies: up to which, and what part of them."""
    bars = list(tally.latencies.bars(BARS))
    most = max(count for _, count in bars)
    total = tally.latencies.total
    return [
        f"{_ms(value):>13} {count / total:7.2%} {'#' * math.ceil(count * WIDTH / most)}"
        for value, count in bars
    ]


def _ms(value: int) -> str:
    return f"{value / 1e6:,.3f} ms"


# The process that shows


class Refusal(NamedTuple):
    """Nothing was measured."""

    status: int
    reason: str


class Benching:
    """The processes that load, seen from the one that started them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pids: list[int] = []
        self.interrupted = False

    def run(self) -> Refusal | tuple[Tally, float]:
        """Load; give what was counted and in how many seconds."""
        before = {each: signal.signal(each, self._interrupt) for each in SIGNALS}
        # Each process begins as this one is now: with no reactor yet.
        context = get_context("fork")
        ours: list[Connection] = []
        processes = []
        for place in range(self._settings.processes):
            here, there = context.Pipe()
            ours.append(here)
            settings = self._settings.part(place)
            process = context.Process(target=work, args=(settings, there, list(ours)))
            process.start()
            there.close()
            processes.append(process)
            self._pids.append(process.pid or 0)
        try:
            return self._gather(ours)
        finally:
            for each in ours:
                each.close()
            for process in processes:
                process.join()
            for number, way in before.items():
                signal.signal(number, way)

    def _interrupt(self, number: int, frame: object) -> None:
        self.interrupted = True
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _gather(self, ours: list[Connection]) -> Refusal | tuple[Tally, float]:
        for each in ours:
            refusal = received(each)
            if refusal is not True:
                return refusal or self._ended(f" before {self._settings.target} was connected")
        for each in ours:
            each.send(True)
        tally, elapsed = Tally(), 0.0
        bar = Bar(self._settings.warmup + self._settings.duration)
        answered: dict[int, int] = {}
        while ours:
            ready: Any = wait(ours)
            for each in ready:
                message = received(each)
                if isinstance(message, int):
                    answered[each.fileno()] = message
                    bar.show(sum(answered.values()))
                    continue
                ours.remove(each)
                each.close()
                if isinstance(message, tuple) and not isinstance(message, Refusal):
                    tally.add(message[0])
                    elapsed = max(elapsed, message[1])
                else:
                    bar.clear()
                    return message or self._ended()
        bar.clear()
        return tally, elapsed

    def _ended(self, when: str = "") -> Refusal:
        """Say why a process has ended without a word."""
        if self.interrupted:
            return Refusal(INTERRUPTED, f"interrupted{when}")
        return Refusal(NOT_ALL, "a process that loads has failed")


def received(connection: Connection) -> Any:
    """Give what a process sends; None at its end."""
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        return None


class Bar:
    """How far it is, on a terminal's stderr."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._begun = perf_counter()
        self._shown = sys.stderr is not None and sys.stderr.isatty()

    def show(self, answered: int) -> None:
        gone = min(perf_counter() - self._begun, self._seconds)
        if self._shown and gone:
            full = int(WIDTH * gone / self._seconds)
            self._write(
                f"\r[{'#' * full}{' ' * (WIDTH - full)}] {gone:.1f} of {self._seconds:g} s, "
                f"{answered:,} answered\033[K"
            )

    def clear(self) -> None:
        if self._shown:
            self._write("\r\033[K")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


# The processes that load


def work(settings: Settings, parent: Connection, others: list[Connection]) -> None:
    """Load, and send to `parent`: True when connected, how many were answered, the tally.

    `others` are the parent's own ends: while this process has them open, too, it would
    not notice that the parent has gone.
    """
    for each in others:
        each.close()
    # A terminal's Ctrl-C goes to a whole group; the parent passes it on.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    async def run(reactor: Any) -> None:
        working = Working(reactor, settings, parent)
        reactor.addSystemEventTrigger("before", "shutdown", working.stop)
        # The parent may have gone: nobody wants to know any more.
        with suppress(BrokenPipeError, ConnectionResetError):
            try:
                parent.send(await working.run())
            except CancelledError:
                said = f"interrupted before {settings.target} was connected"
                parent.send(Refusal(INTERRUPTED, said))

    react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


@implementer(IReadDescriptor)
class Told:
    """The parent's word that all are connected, as a Deferred."""

    def __init__(self, reactor: Any, parent: Connection) -> None:
        self._reactor = reactor
        self._parent = parent
        self.came: Deferred[None] = Deferred(lambda _: reactor.removeReader(self))
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._parent.fileno()

    def logPrefix(self) -> str:
        return "bench"

    def doRead(self) -> None:
        self._reactor.removeReader(self)
        if received(self._parent):
            self.came.callback(None)
        else:
            self.came.cancel()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops, or the parent has gone."""
        self._reactor.removeReader(self)
        if not self.came.called:
            self.came.cancel()


class Working:
    """One process: connects, waits for the others, loads, and counts."""

    def __init__(self, reactor: Any, settings: Settings, parent: Connection) -> None:
        self._reactor = reactor
        self._settings = settings
        self._parent = parent
        self._waiting: Deferred[Any] | None = None
        self._stopped = False
        self._done: Deferred[None] = Deferred()
        self._load = Load(
            reactor,
            perf_counter_ns,
            settings.size,
            settings.pipeline,
            settings.rate,
            settings.timeout,
        )

    async def run(self) -> Refusal | tuple[Tally, float]:
        try:
            return await self._run()
        finally:
            self._load.close()
            self._done.callback(None)

    def stop(self) -> Deferred[None]:
        """End now, with what was measured; fires when that is told."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()
        return self._done

    async def _run(self) -> Refusal | tuple[Tally, float]:
        settings, load = self._settings, self._load
        allow(settings.connections)
        for _ in range(settings.connections):
            client = await self._connected()
            if isinstance(client, Refusal):
                return client
            load.add(client)
        self._parent.send(True)
        await self._until(Told(self._reactor, self._parent).came)
        load.start()
        await self._sleep(settings.warmup)
        if not self._stopped:
            load.forget()
            await self._sleep(settings.duration)
        settled = load.finish()
        elapsed = (load.until or 0) - load.since
        if not self._stopped:
            timer = self._reactor.callLater(settings.timeout, settled.cancel)
            await self._quietly(settled)
            if timer.active():
                timer.cancel()
        load.close()
        if self._stopped:
            # Of what was under way nobody can say that it got no reply.
            load.tally.unanswered = 0
        if load.unheard and not load.tally.answered:
            return Refusal(NOT_CONNECTED, f"{settings.target}: nobody listens there")
        return load.tally, elapsed / SECOND

    async def _connected(self) -> LineClient | DatagramClient | Refusal:
        target = self._settings.target
        try:
            client: LineClient | DatagramClient = await self._until(
                connect(self._reactor, target, **self._settings.how)
            )
        except ValueError as problem:
            return Refusal(USAGE, f"{target}: {problem}")
        except (CancelledError, ConnectingCancelledError):
            raise CancelledError from None
        except Exception as problem:
            return Refusal(NOT_CONNECTED, f"could not connect to {target}: {explained(problem)}")
        if not (self._settings.yes or local(client)):
            client.abort()
            return Refusal(USAGE, f"{target} is not on this machine: --yes loads it all the same")
        if self._settings.size > (most := longest(client)):
            client.abort()
            return Refusal(USAGE, f"--size: {target} takes at most {most} bytes")
        return client

    async def _until(self, deferred: Deferred[Any]) -> Any:
        """Wait, until it comes or all is stopped."""
        self._waiting = deferred
        try:
            return await deferred
        finally:
            self._waiting = None

    async def _quietly(self, deferred: Deferred[Any]) -> None:
        with suppress(CancelledError):
            await self._until(deferred)

    async def _sleep(self, seconds: float) -> None:
        """Wait, and tell the parent now and then; less when stopped or when nobody is left."""
        end = self._reactor.seconds() + seconds
        while not self._stopped and self._load.alive:
            left = end - self._reactor.seconds()
            if left <= 0:
                break
            slept: Deferred[None] = Deferred(lambda _: timer.cancel())  # noqa: B023
            timer = self._reactor.callLater(min(left, PROGRESS), slept.callback, None)
            await self._quietly(slept)
            self._parent.send(self._load.tally.answered)


def local(client: LineClient | DatagramClient) -> bool:
    """Whether what a client is connected to is on this machine for sure."""
    if isinstance(client, DatagramClient):
        used = client.transport.socket
        host = "" if used.family == socket.AF_UNIX else used.getpeername()[0]
    else:
        host = getattr(client.transport.getPeer(), "host", "")
    if not host:
        return True
    address: Any = ipaddress.ip_address(host.partition("%")[0])
    return bool((getattr(address, "ipv4_mapped", None) or address).is_loopback)
