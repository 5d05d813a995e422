"""The parent of `--workers`: starts them, starts another for one that dies, and ends them."""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, eventFromJSON, globalLogPublisher
from twisted.python.failure import Failure

from sockservice.counters import Counters
from sockservice.serving import Listener
from sockservice.sockets import SocketOption
from sockservice.spread import Sharing
from sockservice.store.commit import Store
from sockservice.store.remote import Keeping

#: Seconds until another worker takes the place of one that died, first and at most;
#: each time twice as many, until one has lived as long as the most.
RESTART_FIRST, RESTART_MOST = 0.1, 30.0
#: Workers that may die before the first one in their place was ready; then nothing serves.
STARTS = 3
#: Seconds that a worker gets beyond the drain timeout, to end.
GRACE = 5.0
#: Bytes of a line that a worker writes past the log; a longer one is cut.
LONGEST = 65536
#: Seconds that are waited for a dead worker's pipes, which its own children may hold open.
PIPES = 1.0

#: Descriptors of a worker, beside the standard ones: what it says to the parent, its lines
#: for the store, and what became of them. Its sockets follow.
REPORTS, LINES, STORED, SOCKETS = 3, 4, 5, 6

log = Logger()


class Worker(ProcessProtocol):
    """A process that serves, seen from its parent.

    `died` is called with the reason when it has ended and all it wrote has been read.
    """

    transport: Any

    def __init__(
        self,
        reactor: Any,
        number: int,
        counters: Counters,
        store: Store | None,
        ready: Callable[[], None],
        died: Callable[[str], None],
    ) -> None:
        self.number = number
        self.ready = False
        #: What it wrote on stderr last.
        self.said = ""
        self._reactor = reactor
        self._counters = counters
        self._known = Counters()
        self._isReady = ready
        self._died = died
        self._keeping = None if store is None else Keeping(store, self._stored)
        self._reload = False
        self._listens = True
        self._partial = dict.fromkeys((1, 2, REPORTS), b"")
        self._closing: IDelayedCall | None = None

    def end(self) -> None:
        """Tell it to answer what it has received, and to end."""
        self._signal("TERM")

    def kill(self) -> None:
        """End it now."""
        log.error("worker {number} did not end in time and is killed", number=self.number)
        self._signal("KILL")

    def reload(self) -> None:
        """Have it read its files again, as soon as it listens to signals."""
        if self.ready:
            self._signal("HUP")
        else:
            self._reload = True

    def _signal(self, name: str) -> None:
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)

    def _stored(self, answer: bytes) -> None:
        if self._listens:
            self.transport.writeToChild(STORED, answer)

    # What follows is called by the reactor.

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == LINES:
            if self._keeping is not None:
                self._keeping.received(data)
            return
        *lines, self._partial[childFD] = (self._partial[childFD] + data).split(b"\n")
        for line in lines:
            if childFD == REPORTS:
                self._reported(line)
            else:
                self._wrote(childFD, line)
        if childFD != REPORTS and len(self._partial[childFD]) > LONGEST:
            self.childConnectionLost(childFD)

    def childConnectionLost(self, childFD: int) -> None:
        if childFD == STORED:
            # It is dead; its end is told of later.
            self._listens = False
        elif childFD in (1, 2) and self._partial[childFD]:
            self._wrote(childFD, self._partial[childFD])
            self._partial[childFD] = b""

    def processExited(self, reason: Failure) -> None:
        self._listens = False
        self._closing = self._reactor.callLater(PIPES, self.transport.loseConnection)

    def processEnded(self, reason: Failure) -> None:
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        status: Any = reason.value
        if status.signal is not None:
            known = status.signal in list(signal.Signals)
            name = signal.Signals(status.signal).name if known else f"signal {status.signal}"
            self._died(f"died of {name}")
        else:
            self._died(f"ended with status {status.exitCode}")

    def _reported(self, line: bytes) -> None:
        kind, _, text = line.decode().partition(" ")
        if kind == "log":
            event = eventFromJSON(text)
            event["worker"] = self.number
            level = event.get("log_level")
            source = f"{event.get('log_namespace')}#{level.name if level else '-'}"
            event["log_system"] = f"worker {self.number}, {event.get('log_system', source)}"
            globalLogPublisher(event)
        elif kind == "counters":
            now = Counters(**json.loads(text))
            for name in (field.name for field in fields(Counters)):
                grown = getattr(now, name) - getattr(self._known, name)
                setattr(self._counters, name, getattr(self._counters, name) + grown)
            self._known = now
        else:
            self.ready = True
            if self._reload:
                self.reload()
            self._isReady()

    def _wrote(self, childFD: int, line: bytes) -> None:
        said = ascii(line.decode(errors="backslashreplace"))[1:-1]
        if childFD == 2:
            self.said = said.removeprefix("sockservice: ") or self.said
        log.info("worker {number} wrote: {said}", number=self.number, said=said)


class _Place:
    """What one worker after the other takes."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.worker: Worker | None = None
        self.pause = RESTART_FIRST
        self.since = 0.0  # the worker's start
        self.failed = 0  # workers that died before the first was ready
        self.served = False
        self.waiting: IDelayedCall | None = None


class Workers(Listener):
    """Run `count` processes that serve the sockets of `sharing`, as `arguments` say.

    The arguments are those of `twistd sockservice`. `counters` are the sums of theirs;
    `store` keeps their lines. `failed` is called with the reason when they cannot start.
    They have `drainTimeout` seconds to drain, and a little more to end.
    """

    def __init__(
        self,
        reactor: Any,
        count: int,
        arguments: Sequence[str],
        sharing: Sharing,
        counters: Counters,
        failed: Callable[[str], None],
        *,
        store: Store | None = None,
        socketOptions: Sequence[SocketOption] = (),
        steered: bool = False,
    ) -> None:
        self._reactor = reactor
        self._arguments = arguments
        self._sharing = sharing
        self._counters = counters
        self._failed = failed
        self._store = store
        self._socketOptions = socketOptions
        self._steered = steered
        self._bound = False
        self._hopeless = False
        self._places = [_Place(number) for number in range(1, count + 1)]
        self._stopped: Deferred[None] | None = None
        self._killing: IDelayedCall | None = None

    def privilegedStartService(self) -> None:
        """Bind what one process alone would not need; the listeners have bound the rest.

        :raises CannotListen: The system does not do that.
        """
        super().privilegedStartService()
        self._sharing.spread(self._socketOptions)
        if self._steered:
            self._sharing.steer()
        self._bound = True

    def startService(self) -> None:
        """Start the workers."""
        if not self._bound:
            self.privilegedStartService()
        super().startService()
        for place in self._places:
            self._start(place)

    def abandon(self) -> None:
        self._sharing.close()

    def reload(self) -> None:
        """Have all workers read their files again; each says in the log what came of it."""
        for place in self._places:
            if place.worker is not None:
                place.worker.reload()

    def stopService(self) -> Deferred[None]:
        """Have all workers drain; fires when all have ended."""
        super().stopService()
        # Or the system would go on accepting connections that nobody will serve.
        self._sharing.close()
        for place in self._places:
            if place.waiting is not None:
                place.waiting.cancel()
                place.waiting = None
            if place.worker is not None:
                place.worker.end()
        if not self._alive:
            return succeed(None)
        self._killing = self._reactor.callLater(self.drainTimeout + GRACE, self._kill)
        self._stopped = Deferred()
        return self._stopped

    @property
    def _alive(self) -> list[Worker]:
        return [place.worker for place in self._places if place.worker is not None]

    def _kill(self) -> None:
        for worker in self._alive:
            worker.kill()

    def _start(self, place: _Place) -> None:
        place.waiting = None
        place.since = self._reactor.seconds()
        place.worker = Worker(
            self._reactor,
            place.number,
            self._counters,
            self._store,
            lambda: self._ready(place),
            lambda reason: self._died(place, reason),
        )
        descriptors: dict[int, int | str] = {0: "w", 1: "r", 2: "r", REPORTS: "r"}
        descriptors |= {LINES: "r", STORED: "w"}
        sockets = self._sharing.of(place.number)
        inherited = []
        for group in sockets:
            inherited.append(list(range(len(descriptors), len(descriptors) + len(group))))
            descriptors |= zip(inherited[-1], group, strict=True)
        settings = {
            "number": place.number,
            "workers": len(self._places),
            "reactor": type(self._reactor).__module__,
            "sockets": inherited,
        }
        # Modules are found where this process finds them, whatever folder it is in by now.
        path = os.pathsep.join(map(os.path.abspath, sys.path))
        command = (sys.executable, "-P", "-m", "sockservice.worker", json.dumps(settings))
        try:
            self._reactor.spawnProcess(
                place.worker,
                command[0],
                [*command, *self._arguments],
                env={**os.environ, "PYTHONPATH": path},
                childFDs=descriptors,
            )
        except OSError as problem:
            place.worker.said = f"{command[0]}: {problem.strerror}"
            self._died(place, "could not be started")

    def _ready(self, place: _Place) -> None:
        first = not all(each.served for each in self._places)
        place.served = True
        if first and all(each.served for each in self._places):
            log.info("{count} workers are ready", count=len(self._places))

    def _died(self, place: _Place, reason: str) -> None:
        worker, place.worker = place.worker, None
        if not self.running:
            if self._stopped is not None and not self._alive:
                if self._killing is not None and self._killing.active():
                    self._killing.cancel()
                self._stopped.callback(None)
            return
        if self._hopeless:
            return
        said = f": {worker.said}" if worker is not None and worker.said else ""
        if not place.served:
            place.failed += 1
            if place.failed >= STARTS:
                self._hopeless = True
                self._failed(f"worker {place.number} {reason}{said}")
                return
        if self._reactor.seconds() - place.since >= RESTART_MOST:
            place.pause = RESTART_FIRST
        log.error(
            "worker {number} {reason}{said}; another takes its place in {pause:g} seconds",
            number=place.number,
            reason=reason,
            said=said,
            pause=place.pause,
        )
        place.waiting = self._reactor.callLater(place.pause, self._start, place)
        place.pause = min(2 * place.pause, RESTART_MOST)
