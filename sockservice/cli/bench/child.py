"""A process of `sockservice bench`: it connects, waits for the others, loads and counts."""

import ipaddress
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from time import perf_counter_ns
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.cli.bench.settings import Settings, Unmeasured, received
from sockservice.cli.connecting import NotConnected, connected
from sockservice.cli.react import cramped, react
from sockservice.cli.status import NOT_CONNECTED, SIGNALS, USAGE
from sockservice.client.datagram import DatagramClient
from sockservice.client.farewell import rejected
from sockservice.client.line import LineClient
from sockservice.client.takeover import longest
from sockservice.client.targets import connect, framingOf
from sockservice.limits.openfiles import allow
from sockservice.measure.load import Load
from sockservice.measure.schedule import SECOND
from sockservice.measure.tally import Tally
from sockservice.wire.framer import Framer
from sockservice.wire.framing import Framing
from sockservice.wire.plurals import counted

#: Seconds between reports of a process on how far it is.
PROGRESS = 0.2


def work(settings: Settings, parent: Connection, others: list[Connection]) -> None:
    """Load, and send to `parent`: True when connected, how many were answered, the tally.

    `others` are the parent's own ends: while this process has them open, too, it would
    not notice that the parent has gone.
    """
    for other in others:
        other.close()
    # A terminal's Ctrl-C goes to a whole group; the parent passes it on.
    os.setpgid(0, 0)
    for each in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(each, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*SIGNALS, signal.SIGQUIT))
    if why := cramped():
        parent.send(Unmeasured(NOT_CONNECTED, why))
        return

    async def run(reactor: Any) -> None:
        working = Working(reactor, settings, parent)
        reactor.addSystemEventTrigger("before", "shutdown", working.stop)
        # The parent may have gone.
        with suppress(BrokenPipeError, ConnectionResetError):
            try:
                parent.send(await working.run())
            except NotConnected as problem:
                parent.send(Unmeasured(problem.status, problem.why))

    react(run)


@implementer(IReadDescriptor)
class StartSignal:
    """The parent's signal that all processes are connected, as a Deferred."""

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
        self._used = False  # all lines that were counted
        self._done: Deferred[None] = Deferred()
        self._load = Load(
            reactor,
            perf_counter_ns,
            settings.size,
            settings.pipeline,
            settings.rate,
            settings.timeout,
            count=settings.lines,
            payload=settings.payload,
            refusals=settings.refusals,
            framing=_unusual(framingOf(settings.target) or settings.how["framing"]),
        )
        self._load.exhausted.addCallback(lambda _: self._exhausted())

    async def run(self) -> Unmeasured | tuple[Tally, float]:
        try:
            return await self._run()
        finally:
            self._load.close()
            self._done.callback(None)

    def stop(self) -> Deferred[None]:
        """End now, with what was measured; fires when the parent has been told."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()
        return self._done

    def _exhausted(self) -> None:
        """End what is waited for: no line is left."""
        self._used = True
        if self._waiting is not None and self._load.until is None:
            self._waiting.cancel()

    async def _run(self) -> Unmeasured | tuple[Tally, float]:
        settings, load = self._settings, self._load
        allow(settings.connections)
        for _ in range(settings.connections):
            load.add(await self._connected())
        self._parent.send(True)
        await self._connecting(StartSignal(self._reactor, self._parent).came)
        load.start()
        if settings.warmup:
            await self._sleep(settings.warmup)
            load.forget()
        if not self._stopped:
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
            # Lines in flight when it was stopped cannot be said to have no reply.
            load.tally.unanswered = 0
        tally = load.tally
        # When all lines that are counted have been used, nobody waits for the end of connections.
        away = tally.turnedAway or (self._used and rejected(tally.reason))
        if away and tally.answered == tally.refused - tally.farewells:
            return Unmeasured(NOT_CONNECTED, tally.reason)
        if load.unheard and not load.tally.answered:
            return Unmeasured(NOT_CONNECTED, f"{settings.target}: nobody listens there")
        return load.tally, elapsed / SECOND

    async def _connected(self) -> LineClient | DatagramClient:
        """Return a client of the target, if that is one to load."""
        target = self._settings.target
        client: LineClient | DatagramClient = await self._connecting(
            connect(self._reactor, target, **self._settings.how)
        )
        if not (self._settings.yes or local(client)):
            client.abort()
            raise NotConnected(
                USAGE, f"{target} is not on this machine: --yes loads it all the same"
            )
        if self._settings.size > (most := longest(client)):
            client.abort()
            raise NotConnected(USAGE, f"--size: {target} takes at most {counted(most, 'byte')}")
        return client

    async def _connecting(self, deferred: Deferred[Any]) -> Any:
        """Wait for a connection.

        :raises NotConnected: It failed, or all is stopped.
        """
        self._waiting = deferred
        try:
            return await connected(self._settings.target, deferred)
        finally:
            self._waiting = None

    async def _quietly(self, deferred: Deferred[Any]) -> None:
        """Wait until it fires, or all is stopped."""
        self._waiting = deferred
        try:
            with suppress(CancelledError):
                await deferred
        finally:
            self._waiting = None

    async def _sleep(self, seconds: float) -> None:
        """Wait, telling the parent now and then; less if stopped or no connection is left."""
        end = self._reactor.seconds() + seconds
        while not (self._stopped or self._used) and self._load.alive:
            left = end - self._reactor.seconds()
            if left <= 0:
                break
            slept: Deferred[None] = Deferred(lambda _: timer.cancel())  # noqa: B023
            timer = self._reactor.callLater(min(left, PROGRESS), slept.callback, None)
            await self._quietly(slept)
            self._parent.send(self._load.tally.answered)


def _unusual(framing: Callable[[int], Framing]) -> Callable[[int], Framing] | None:
    """Return a framing, but None for that of lines, for which a load has a shorter way."""
    return None if framing is Framer else framing


def local(client: LineClient | DatagramClient) -> bool:
    """Return whether the far end of a client is certainly on this machine."""
    if isinstance(client, DatagramClient):
        used = client.transport.socket
        host = "" if used.family == socket.AF_UNIX else used.getpeername()[0]
    else:
        host = getattr(client.transport.getPeer(), "host", "")
    if not host:
        return True
    address: Any = ipaddress.ip_address(host.partition("%")[0])
    return bool((getattr(address, "ipv4_mapped", None) or address).is_loopback)
