"""Start the worker processes, replace those that die, and end them."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from sockservice.daemon.services import Listener
from sockservice.daemon.workers.process import LINES, REPORTS, STORED, Worker
from sockservice.limits.counters import Counters
from sockservice.net.bind.options import SocketOption
from sockservice.net.bind.reuseport import Sharing
from sockservice.store.groupcommit import Store

#: Seconds until a worker that died is replaced, at first and at most; doubled each time,
#: until a worker has lived for the maximum.
RESTART_FIRST, RESTART_MOST = 0.1, 30.0
#: The same where no other worker serves, so that one does within a second.
RESTART_ALONE = 0.2
#: Workers that may die in a place before any was ready there; then the service gives up.
STARTS = 3
#: Seconds that a worker has to end, in addition to the drain timeout.
GRACE = 5.0

log = Logger()


class _Place:
    """A place, which is taken by one worker after another."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.worker: Worker | None = None
        self.pause = RESTART_FIRST
        self.since = 0.0  # the worker's start
        self.failed = 0  # workers that died before the first was ready
        self.served = False
        self.waiting: IDelayedCall | None = None
        self.retiring: list[Worker] = []  # who were there before, and have connections yet

    @property
    def workers(self) -> list[Worker]:
        """All that live, the one that serves last."""
        return self.retiring + ([] if self.worker is None else [self.worker])


class Workers(Listener):
    """Runs `count` processes that serve the sockets of `sharing`.

    `arguments` are those of `twistd sockservice`. `counters` sums up theirs; `store`
    stores their lines. `ready` is called when all serve, `failed` with the reason if they
    cannot start. They have `drainTimeout` seconds to drain, and a little more to end.
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
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._arguments = arguments
        self._sharing = sharing
        self._counters = counters
        self._failed = failed
        self._store = store
        self._socketOptions = socketOptions
        self._steered = steered
        self._isReady = ready
        self._bound = False
        self._hopeless = False
        self._places = [_Place(number) for number in range(1, count + 1)]
        self._stopped: Deferred[None] | None = None
        self._killing: IDelayedCall | None = None
        self._deserted: float | None = None  # since when nobody serves

    def privilegedStartService(self) -> None:
        """Bind the sockets of the other processes; the listeners have bound the first ones.

        :raises CannotListen: The system does not allow it.
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
        """Tell all workers to read their files again; each logs the result."""
        for worker in self._alive:
            worker.reload()

    def stopService(self) -> Deferred[None]:
        """Let all workers drain; fires when all have ended."""
        super().stopService()
        # Otherwise the system would go on accepting connections that nobody serves.
        self._sharing.close()
        for place in self._places:
            if place.waiting is not None:
                place.waiting.cancel()
                place.waiting = None
        for worker in self._alive:
            worker.end()
        if not self._alive:
            return succeed(None)
        self._killing = self._reactor.callLater(self.drainTimeout + GRACE, self._kill)
        self._stopped = Deferred()
        return self._stopped

    @property
    def _alive(self) -> list[Worker]:
        return [worker for place in self._places for worker in place.workers]

    @property
    def _served(self) -> bool:
        """Whether any worker takes connections."""
        return any(worker.ready for worker in self._alive)

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
            lambda _: self._ready(place),
            lambda worker: self._retires(place, worker),
            lambda worker, reason: self._died(place, worker, reason),
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
        # Modules are found where this process finds them, whatever its current directory.
        path = os.pathsep.join(map(os.path.abspath, sys.path))
        command = (
            sys.executable,
            "-P",
            "-m",
            "sockservice.daemon.workers.main",
            json.dumps(settings),
        )
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
            self._died(place, place.worker, "could not be started")

    def _ready(self, place: _Place) -> None:
        first = not all(each.served for each in self._places)
        place.served = True
        if first and all(each.served for each in self._places):
            log.info("{count} workers are ready", count=len(self._places))
            self._isReady()
        if self._deserted is not None:
            log.info(
                "worker {number} serves; nobody did for {seconds:.1f} seconds",
                number=place.number,
                seconds=self._reactor.seconds() - self._deserted,
            )
            self._deserted = None
        for worker in place.retiring:
            worker.relieve()

    def _retires(self, place: _Place, worker: Worker) -> None:
        """Start another in the place of one that was told to end from outside."""
        if self.running and place.worker is worker:
            place.retiring.append(worker)
            self._start(place)

    def _died(self, place: _Place, worker: Worker, reason: str) -> None:
        retired = worker in place.retiring
        if retired:
            place.retiring.remove(worker)
        else:
            place.worker = None
        if not self.running:
            if self._stopped is not None and not self._alive:
                if self._killing is not None and self._killing.active():
                    self._killing.cancel()
                self._stopped.callback(None)
            return
        if self._hopeless:
            return
        said = f": {worker.said}" if worker.said else ""
        if retired:
            log.info("retired worker {number} {reason}", number=worker.number, reason=reason)
            return
        if not place.served:
            place.failed += 1
            if place.failed >= STARTS:
                self._hopeless = True
                self._failed(f"worker {place.number} {reason}{said}")
                return
        if self._reactor.seconds() - place.since >= RESTART_MOST:
            place.pause = RESTART_FIRST
        pause = place.pause if self._served else min(place.pause, RESTART_ALONE)
        log.error(
            "worker {number} {reason}{said}; another takes its place in {pause:g} seconds",
            number=place.number,
            reason=reason,
            said=said,
            pause=pause,
        )
        if place.served and not self._served and self._deserted is None:
            self._deserted = self._reactor.seconds()
            log.error("nobody serves: connections wait until a worker does")
        place.waiting = self._reactor.callLater(pause, self._start, place)
        place.pause = min(2 * place.pause, RESTART_MOST)
