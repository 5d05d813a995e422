"""Start the worker processes, replace those that die, and end them."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from sockservice.daemon.services import Listener
from sockservice.daemon.workers.process import LINES, REPORTS, STORED, Worker
from sockservice.daemon.workers.rereading import Rereading
from sockservice.limits.counters import CounterSet
from sockservice.limits.settings import START_TIMEOUT
from sockservice.net.bind.options import SocketOption
from sockservice.net.bind.reuseport import Sharing
from sockservice.status.overview import WorkerReport
from sockservice.status.process import Measurements
from sockservice.store.groupcommit import Store
from sockservice.wire.plurals import counted, inSeconds

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
        self.starting: IDelayedCall | None = None  # until its worker has to be ready
        self.retiring: list[Worker] = []  # who were there before, and have connections yet

    def cancel(self) -> None:
        """Start no other worker, and wait for none to be ready."""
        for call in (self.waiting, self.starting):
            if call is not None and call.active():
                call.cancel()
        self.waiting = self.starting = None

    @property
    def workers(self) -> list[Worker]:
        """All that live, the one that serves last."""
        return self.retiring + ([] if self.worker is None else [self.worker])


class Workers(Listener):
    """Runs `count` processes that serve the sockets of `sharing`.

    `arguments` are those of `twistd sockservice`. `counters` sums up theirs; `store`
    stores their lines. `ready` is called when all serve, `failed` with the reason if they
    cannot start. Each has `starting` seconds to become ready, where many start at once after the
    one before; 0 is no limit. They have `drainTimeout` seconds to drain, and a little more to end.
    One whose reactor has not turned for `watchdog` seconds, if it is not 0, is killed. `telling`
    gives what a worker is told when it starts, and when it is to go by something else.
    """

    def __init__(
        self,
        reactor: Any,
        count: int,
        arguments: Sequence[str],
        sharing: Sharing,
        counters: CounterSet,
        failed: Callable[[str], None],
        *,
        store: Store | None = None,
        socketOptions: Sequence[SocketOption] = (),
        steered: bool = False,
        starting: float = START_TIMEOUT,
        ready: Callable[[], None] = lambda: None,
        watchdog: float = 0,
        telling: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        #: What workers have measured, if the status page is to tell it.
        self.measured: Measurements | None = None
        self._reactor = reactor
        self._arguments = arguments
        self._sharing = sharing
        self._counters = counters
        self._failed = failed
        self._store = store
        self._socketOptions = socketOptions
        self._steered = steered
        self._starting = starting
        self._isReady = ready
        self._bound = False
        self._hopeless = False
        self._progress = 0.0  # when a worker was last started or became ready
        self._places = [_Place(number) for number in range(1, count + 1)]
        self._stopped: Deferred[None] | None = None
        self._killing: IDelayedCall | None = None
        self._deserted: float | None = None  # since when nobody serves
        self._watchdog = watchdog
        self._telling = telling
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._looked = 0.0
        self._rereading = Rereading(reactor)

    def privilegedStartService(self) -> None:
        """Bind the sockets of the other processes; the listeners have bound the first ones.

        :raises CannotListen: The system does not allow it.
        """
        super().privilegedStartService()
        self._sharing.spread(self._socketOptions)
        self._bound = True

    def startService(self) -> None:
        """Start the workers.

        :raises CannotListen: As privilegedStartService.
        """
        if not self._bound:
            self.privilegedStartService()
        super().startService()
        self._sharing.hold()
        if self._steered:
            self._sharing.steer()
        for place in self._places:
            self._start(place)
        if self._watchdog:
            self._looked = self._reactor.seconds()
            self._looking.start(self._watchdog / 2, now=False)

    def abandon(self) -> None:
        self._sharing.close()

    def reread(self) -> Callable[[], object]:
        """Give what tells the workers to do so."""
        return self.reload

    def reload(self) -> None:
        """Tell all workers what is in force, and to read certificates again; each logs that."""
        self._rereading.begin(self._alive)
        told = self._telling()
        for worker in self._alive:
            worker.tell(told)

    def reloaded(self) -> Deferred[None]:
        """Return a Deferred that fires as soon as none of them has yet to do so.

        It also fires when they stop, and after RELOADING seconds. Ask for one at a time.
        """
        return self._rereading.done()

    def stopService(self) -> Deferred[None]:
        """Let all workers drain; fires when all have ended."""
        super().stopService()
        # Otherwise the system would go on accepting connections that nobody serves.
        self._sharing.close()
        if self._looking.running:
            self._looking.stop()
        self._rereading.close()
        for place in self._places:
            place.cancel()
        for worker in self._alive:
            worker.end()
        if not self._alive:
            return succeed(None)
        self._killing = self._reactor.callLater(self.drainTimeout + GRACE, self._kill)
        self._stopped = Deferred()
        return self._stopped

    def told(self) -> list[WorkerReport]:
        """Return what each worker has told of itself."""
        now = self._reactor.seconds()
        return [
            WorkerReport(each.number, each.ready, each.retiring, each.figures, now - each.told)
            for each in self._alive
        ]

    @property
    def _alive(self) -> list[Worker]:
        return [worker for place in self._places for worker in place.workers]

    @property
    def _served(self) -> bool:
        """Whether any worker takes connections."""
        return any(worker.ready for worker in self._alive)

    def _look(self) -> None:
        """Kill workers whose reactors do not turn."""
        now = self._reactor.seconds()
        late, self._looked = now - self._looked > self._watchdog, now
        for worker in self._alive:
            if late:
                # This process did not turn either, and has not heard what they said.
                worker.heard = now
            elif worker.ready and now - worker.heard > self._watchdog:
                worker.kill(f"has not answered for {inSeconds(round(now - worker.heard, 1))}")

    def _kill(self) -> None:
        for worker in self._alive:
            worker.kill("did not end in time")

    def _start(self, place: _Place) -> None:
        place.cancel()
        place.since = self._progress = self._reactor.seconds()
        if self._starting:
            place.starting = self._reactor.callLater(self._starting, self._late, place)
        place.worker = Worker(
            self._reactor,
            place.number,
            self._counters,
            self._store,
            lambda _: self._ready(place),
            lambda worker: self._retires(place, worker),
            lambda worker, reason: self._died(place, worker, reason),
            self._rereading.leave,
            self.measured,
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
            "watchdog": self._watchdog,
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
            place.worker.tell(self._telling())
        except OSError as problem:
            place.worker.said = f"{command[0]}: {problem.strerror}"
            self._died(place, place.worker, "could not be started")

    def _late(self, place: _Place) -> None:
        """Give up a worker that is not ready, unless others still become so one by one."""
        left = self._progress + self._starting - self._reactor.seconds()
        if left > 0:
            place.starting = self._reactor.callLater(left, self._late, place)
            return
        self._counters[""].unready += 1
        reason = f"was not ready within {inSeconds(self._starting)} (--start-timeout)"
        assert place.worker is not None, "the call is cancelled when a worker dies"
        place.worker.kill(reason)
        if not place.served:
            self._giveUp(f"worker {place.number} {reason}")

    def _giveUp(self, reason: str) -> None:
        if not self._hopeless:
            self._hopeless = True
            self._failed(reason)

    def _ready(self, place: _Place) -> None:
        place.cancel()
        self._progress = self._reactor.seconds()
        first = not all(each.served for each in self._places)
        place.served = True
        if first and all(each.served for each in self._places):
            log.info("{are} ready", are=counted(len(self._places), "worker is", "workers are"))
            self._isReady()
        if self._deserted is not None:
            log.info(
                "worker {number} serves; nobody did for {wait}",
                number=place.number,
                wait=inSeconds(round(self._reactor.seconds() - self._deserted, 1)),
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
        self._rereading.leave(worker)
        retired = worker in place.retiring
        if retired:
            place.retiring.remove(worker)
        else:
            place.worker = None
            place.cancel()
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
                self._giveUp(f"worker {place.number} {reason}{said}")
                return
        if self._reactor.seconds() - place.since >= RESTART_MOST:
            place.pause = RESTART_FIRST
        pause = place.pause if self._served else min(place.pause, RESTART_ALONE)
        log.error(
            "worker {number} {reason}{said}; another takes its place in {wait}",
            number=place.number,
            reason=reason,
            said=said,
            wait=inSeconds(pause),
        )
        if place.served and not self._served and self._deserted is None:
            self._deserted = self._reactor.seconds()
            log.error("nobody serves: connections wait until a worker does")
        place.waiting = self._reactor.callLater(pause, self._start, place)
        place.pause = min(2 * place.pause, RESTART_MOST)
