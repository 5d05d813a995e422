"""The parent's end of a worker process."""

import json
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from typing import Any

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, eventFromJSON, globalLogPublisher
from twisted.python.failure import Failure

from sockservice.limits.counters import Counters
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

#: Descriptors of a worker, besides the standard ones: its reports to the parent, its lines
#: for the store, and their outcome. Its sockets follow.
REPORTS, LINES, STORED, SOCKETS = 3, 4, 5, 6


class Worker(ProcessProtocol):
    """A worker process, seen from its parent.

    `ready` is called when it serves, `retires` when it was told to end from outside and wants
    another in its place first. `died` is called with the reason when it has ended and all its
    output has been read.
    """

    transport: Any

    def __init__(
        self,
        reactor: Any,
        number: int,
        counters: Counters,
        store: Store | None,
        ready: Callable[["Worker"], None],
        retires: Callable[["Worker"], None],
        died: Callable[["Worker", str], None],
    ) -> None:
        self.number = number
        self.ready = False
        #: Whether it serves on only until its connections end.
        self.retiring = False
        #: The last line it wrote to stderr.
        self.said = ""
        self._reactor = reactor
        self._counters = counters
        self._known = Counters()
        self._isReady = ready
        self._retires = retires
        self._died = died
        self._keeping = None if store is None else Keeping(store, self._stored)
        self._reload = False
        self._listens = True
        self._partial = dict.fromkeys((1, 2, REPORTS), b"")
        self._closing: IDelayedCall | None = None

    def end(self) -> None:
        """Tell it to answer what it has received, then end."""
        self._signal(DRAIN)

    def relieve(self) -> None:
        """Tell it that another serves in its place, so that it accepts nothing more."""
        self._signal(RELIEVE)

    def kill(self) -> None:
        """Kill it."""
        log.error("worker {number} did not end in time and is killed", number=self.number)
        self._signal("KILL")

    def reload(self) -> None:
        """Tell it to read its files again, as soon as it handles signals."""
        if self.ready:
            self._signal("HUP")
        else:
            self._reload = True

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
            now = Counters(**json.loads(text))
            for name in (field.name for field in fields(Counters)):
                grown = getattr(now, name) - getattr(self._known, name)
                setattr(self._counters, name, getattr(self._counters, name) + grown)
            self._known = now
        elif kind == "retiring":
            self.retiring = True
            self._retires(self)
        else:
            self.ready = True
            if self._reload:
                self.reload()
            self._isReady(self)

    def _wrote(self, childFD: int, line: bytes) -> None:
        said = ascii(line.decode(errors="backslashreplace"))[1:-1]
        if childFD == 2:
            self.said = said.removeprefix("sockservice: ") or self.said
        log.info("worker {number} wrote: {said}", number=self.number, said=said)
