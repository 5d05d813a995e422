"""The parent's end of a worker process."""

import json
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, eventFromJSON, globalLogPublisher
from twisted.python.failure import Failure

from sockservice.limits.counters import CounterSet
from sockservice.status.process import Measurements
from sockservice.store.groupcommit import Store
from sockservice.store.pipe import Keeping

log = Logger()


#: Bytes of a line that a worker writes to stdout or stderr; a longer one is split.
LONGEST = 65536
#: Seconds to wait for the pipes of a dead worker, which its children may keep open.
PIPES = 1.0

#: What the parent has to say to a worker; SIGTERM is left to the operator. Drain and end; or,
#: to one that retires: another serves in your place.
DRAIN, RELIEVE = signal.SIGUSR2, signal.SIGUSR1

#: Descriptors of a worker: what its parent tells it, a line of JSON each, in place of stdin; its
#: reports to the parent, its lines for the store, and their outcome. Its sockets follow.
TOLD, REPORTS, LINES, STORED, SOCKETS = 0, 3, 4, 5, 6


class Worker(ProcessProtocol):
    """A worker process, seen from its parent.

    `ready` is called when it serves, `retires` when it was told to end from outside and wants
    another in its place first, `reloaded` when it goes by what it was told. `died` is called
    with the reason when it has ended and all its output has been read.
    """

    transport: Any

    def __init__(
        self,
        reactor: Any,
        number: int,
        counters: CounterSet,
        store: Store | None,
        ready: Callable[["Worker"], None],
        retires: Callable[["Worker"], None],
        died: Callable[["Worker", str], None],
        reloaded: Callable[["Worker"], None] = lambda _: None,
        measured: Measurements | None = None,
    ) -> None:
        #: What it has told of itself last, and when, or when it was started.
        self.figures: Mapping[str, Any] = {}
        self.told = float(reactor.seconds())
        self._measured = measured
        self.number = number
        self.ready = False
        #: Whether it serves on only until its connections end.
        self.retiring = False
        #: The last line it wrote to stderr.
        self.said = ""
        self._reactor = reactor
        self._counters = counters
        self._known = CounterSet()
        self._isReady = ready
        self._retires = retires
        self._died = died
        self._reloaded = reloaded
        #: When its reactor was last known to turn, by the clock of ours.
        self.heard = reactor.seconds()
        self._keeping = None if store is None else Keeping(store, self._stored)
        self._telling = False  # it has not done yet what it was told
        self._next: Mapping[str, Any] | None = None  # to be told when it has
        self._listens = True
        self._partial = dict.fromkeys((1, 2, REPORTS), b"")
        self._closing: IDelayedCall | None = None

    def end(self) -> None:
        """Tell it to answer what it has received, then end."""
        self._signal(DRAIN)

    def relieve(self) -> None:
        """Tell it that another serves in its place, so that it accepts nothing more."""
        self._signal(RELIEVE)

    def kill(self, reason: str) -> None:
        """Kill it."""
        log.error("worker {number} {reason} and is killed", number=self.number, reason=reason)
        self._signal("KILL")

    def tell(self, told: Mapping[str, Any]) -> None:
        """Tell it what to go by: its first words, and later on to read certificates again.

        It reads no option for itself: all workers go by one reading, whenever they hear of it. Of
        what is told while it does not listen, the last holds.
        """
        if self._telling:
            self._next = told
        elif self._listens:
            self._telling = True
            self.transport.writeToChild(TOLD, json.dumps(told).encode() + b"\n")

    def _heard(self) -> None:
        """It goes by what it was told last."""
        self._telling = False
        told, self._next = self._next, None
        if told is not None:
            self.tell(told)

    def _signal(self, name: str | int) -> None:
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
            # It is dead; processEnded follows.
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
            self._died(self, f"died of {name}")
        else:
            self._died(self, f"ended with status {status.exitCode}")

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
            now = CounterSet.read(json.loads(text))
            self._counters.grow(now, self._known)
            self._known = now
        elif kind == "figures":
            before, self.figures = self.figures, json.loads(text)
            self.told = self._reactor.seconds()
            if self._measured is not None:
                self._measured.heard(self.figures, before)
        elif kind == "retiring":
            self.retiring = True
            self._retires(self)
        elif kind == "reloaded":
            self._heard()
            if not self._telling:
                self._reloaded(self)
        elif kind == "alive":
            self.heard = self._reactor.seconds()
        else:
            self.heard = self._reactor.seconds()
            self.ready = True
            self._heard()
            self._isReady(self)

    def _wrote(self, childFD: int, line: bytes) -> None:
        said = ascii(line.decode(errors="backslashreplace"))[1:-1]
        if childFD == 2:
            self.said = said.removeprefix("sockservice: ") or self.said
        log.info("worker {number} wrote: {said}", number=self.number, said=said)
