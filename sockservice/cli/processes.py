"""The processes that load a server, and the one that started them."""

import ipaddress
import os
import signal
import socket
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from time import perf_counter, perf_counter_ns
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import react
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.attaching import longest
from sockservice.cli.bar import Bar, timed
from sockservice.cli.status import INTERRUPTED, NOT_ALL, NOT_CONNECTED, USAGE
from sockservice.client import DatagramClient, LineClient
from sockservice.loading import SECOND, Load, Tally
from sockservice.openfiles import allow
from sockservice.targets import connect, explained

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Seconds between reports of a process on how far it is.
PROGRESS = 0.2


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
        bar, begun = Bar(), perf_counter()
        seconds = self._settings.warmup + self._settings.duration
        answered: dict[int, int] = {}
        while ours:
            ready: Any = wait(ours)
            for each in ready:
                message = received(each)
                if isinstance(message, int):
                    answered[each.fileno()] = message
                    gone = perf_counter() - begun
                    bar.show(timed(sum(answered.values()), gone, seconds, bar.width))
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
