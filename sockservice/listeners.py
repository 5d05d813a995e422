"""PROTOCOL@ENDPOINT, or a host and a port: the listeners, of which all come up or none."""

import gc
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from twisted.application.service import MultiService
from twisted.internet.defer import inlineCallbacks
from twisted.logger import Logger

from sockservice.counters import Counters
from sockservice.endpoints import Foreign, Opened, opened
from sockservice.factories import LineFactory
from sockservice.journal import Journal
from sockservice.limits import Admission
from sockservice.lines import LINE_LIMIT
from sockservice.memory import Memory
from sockservice.names import Names
from sockservice.protocols import datagramProtocol, streamProtocol
from sockservice.serving import (
    DRAIN_TIMEOUT,
    BoundListener,
    DatagramListener,
    ForeignListener,
    FrameListener,
    HeldListener,
    Listener,
    StreamListener,
)
from sockservice.sockets import CannotListen, SocketOption, pairs
from sockservice.spread import Ask, asked
from sockservice.starting import CannotStart
from sockservice.store.commit import Store
from sockservice.turning import Turning

#: Connections the kernel may hold before accept: as many as Linux allows since
#: 5.4 (net.core.somaxconn). With Twisted's 50, a burst of 200 waits a second.
BACKLOG = 4096

# A name, module.Class or module:Class, then :KEY=VALUE as often as there are settings.
_PROTOCOL = re.compile(r"([A-Za-z_][\w.-]*(?::[A-Za-z_]\w*)?(?::[A-Za-z_]\w*=[^:@]*)*)@")

log = Logger()


class Shared(NamedTuple):
    """What all listeners of a process have in common."""

    reactor: Any
    counters: Counters
    #: UDP ports of the process: what one of them sends to another goes in circles.
    ownPorts: set[int]
    admission: Admission
    turning: Turning
    memory: Memory
    journal: Journal
    backlog: int = BACKLOG
    lineLimit: int = LINE_LIMIT
    verbose: bool = False
    #: Set on every listening socket, and so on its connections: (level, option, value).
    socketOptions: Sequence[SocketOption] = ()
    names: Names | None = None
    store: Store | None = None
    #: Watches connections in the reactor's place.
    descriptors: Any = None
    drainTimeout: float = DRAIN_TIMEOUT
    #: Gives listeners their sockets.
    ask: Ask = asked
    #: Whether other processes serve the sockets that are bound in this one.
    held: bool = False
    #: Whether this is one of these processes: another says where they listen.
    inherited: bool = False


class AllOrNone(MultiService):
    """Start every listener within, or tell on stderr why not and end the process.

    `store` is opened before any of them serves, and closed when all have drained; then
    `journal` sums up, and what `counters` say is the log's last word.
    """

    def __init__(
        self,
        store: Store | None = None,
        counters: Counters | None = None,
        journal: Journal | None = None,
    ) -> None:
        super().__init__()
        self._counters = counters
        self._store = store
        self._journal = journal

    def privilegedStartService(self) -> None:
        with self._told():
            super().privilegedStartService()

    def startService(self) -> None:
        with self._told():
            if self._store is not None:
                self._store.start()
            super().startService()
            # What is here now stays to the end, so the collector need not look through it
            # again and again: the longest pauses become half as long.
            gc.freeze()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Drain all listeners, close the store, and sum up in the log."""
        yield super().stopService()
        if self._store is not None:
            yield self._store.stop()
        if self._journal is not None:
            self._journal.close()
        if self._counters is not None:
            counters = self._counters
            log.info("ended: {counters}", counters=str(counters), counts=counters.counts())

    def change(self, lineLimit: int, drainTimeout: float) -> None:
        """Have every listener go by these from now on; see `Listener.change`."""
        for service in self:
            if isinstance(service, (_Listeners, Listener)):
                service.change(lineLimit, drainTimeout)

    def reload(self) -> list[CannotListen]:
        """Have every listener read its files again; give what is wrong with them."""
        problems = []
        for service in self:
            if isinstance(service, (_Listeners, Listener)):
                try:
                    service.reload()
                except CannotListen as problem:
                    problems.append(problem)
        return problems

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except CannotStart as problem:
            for service in self:
                if isinstance(service, (_Listeners, Listener)):
                    service.abandon()
            log.error("{problem}", problem=problem)
            # twistd has put its log in sys.stderr's place.
            print(f"sockservice: {problem}", file=sys.__stderr__)
            raise


class _Listeners(MultiService):
    """Listeners that come of one description, bound when privileges are still there."""

    _shared: Shared
    _bound = False

    def _add(self, protocol: str, found: Opened | Foreign) -> None:
        listener = _listener(self._shared, protocol, found)
        listener.drainTimeout = self._shared.drainTimeout
        listener.quiet = self._shared.inherited
        if isinstance(found, Opened):
            listener.tls = found.tls
        if self._shared.held:
            if not isinstance(listener, BoundListener):
                raise CannotListen(f"{found.scheme}: this endpoint can't be shared by workers")
            listener = HeldListener(listener)
        listener.setServiceParent(self)

    def privilegedStartService(self) -> None:
        """Remember that all is bound."""
        super().privilegedStartService()
        self._bound = True

    def startService(self) -> None:
        """Serve, binding first where that was not asked for (`twist` does not)."""
        if not self._bound:
            self.privilegedStartService()
        super().startService()

    def abandon(self) -> None:
        """Undo the binding, when another listener can't come up."""
        for listener in self:
            listener.abandon()

    def change(self, lineLimit: int, drainTimeout: float) -> None:
        """As a listener's."""
        for listener in self:
            listener.change(lineLimit, drainTimeout)

    def reload(self) -> None:
        """Read files again that may have changed.

        :raises CannotListen: Some are not what they should be; of these all stays as it is.
        """
        problems = []
        for listener in self:
            try:
                listener.reload()
            except CannotListen as problem:
                problems.append(problem)
        if problems:
            raise problems[0]


class HostPort(_Listeners):
    """Acknowledge lines over TCP and echo datagrams over UDP on one port number of a host.

    `host` is an address or a name, which stands for all its addresses; `port` 0
    takes a number that is free on all of them.
    """

    def __init__(self, shared: Shared, host: str, port: int) -> None:
        super().__init__()
        self._shared = shared
        self._host = host
        self._port = port

    def privilegedStartService(self) -> None:
        """Bind all sockets.

        :raises CannotListen: Nothing is bound then.
        """
        found = self._shared.ask(lambda: pairs(self._host, self._port))
        try:
            for bound in found:
                stream = bound.socket.type == socket.SOCK_STREAM
                self._add("", Opened(bound, "tcp" if stream else "udp"))
            super().privilegedStartService()
        except CannotListen:
            for bound in found:
                bound.close()
            raise


class Listen(_Listeners):
    """Serve what `text` says: `PROTOCOL@ENDPOINT`, or `ENDPOINT` alone."""

    def __init__(self, shared: Shared, text: str) -> None:
        super().__init__()
        self._shared = shared
        said = _PROTOCOL.match(text)
        self._protocol = said[1] if said else ""
        self._endpoint = text[said.end() :] if said else text

    def privilegedStartService(self) -> None:
        """Bind all sockets and find the protocol.

        :raises CannotListen: Nothing is bound then.
        """
        found = opened(self._endpoint, self._shared.reactor, self._shared.ask)
        try:
            for each in found:
                self._add(self._protocol, each)
            super().privilegedStartService()
        except CannotListen:
            for each in found:
                each.close()
            raise


def _listener(shared: Shared, protocol: str, found: Opened | Foreign) -> Listener:
    """Make the service that serves `protocol`, or the usual one, on what was opened.

    :raises CannotListen: There is no such protocol, or not for this.
    """
    if not isinstance(found, Foreign):
        found.bound.set(shared.socketOptions)
    at = found.scheme if isinstance(found, Foreign) else f"{found.scheme}:{found.bound.name}"
    name = f"{protocol or found.usual} listening on {at}"
    if not isinstance(found, Foreign) and found.scheme == "raw":
        if protocol not in ("", found.usual):
            raise CannotListen(f"{protocol} is no protocol for raw frames")
        return FrameListener(shared.reactor, found.bound, name)
    if not isinstance(found, Foreign) and not found.stream:
        made = datagramProtocol(protocol or found.usual)
        served = made(
            counters=shared.counters,
            verbose=shared.verbose,
            ownPorts=shared.ownPorts,
            clock=shared.reactor,
            store=shared.store,
            listener=at,
            admission=shared.admission,
            journal=shared.journal,
        )
        return DatagramListener(shared.reactor, found.bound, name, served)
    factory = LineFactory(
        shared.reactor,
        streamProtocol(protocol or found.usual),
        lineLimit=shared.lineLimit,
        verbose=shared.verbose,
        counters=shared.counters,
        names=shared.names,
        store=shared.store,
        listener=at,
        admission=shared.admission,
        turning=shared.turning,
        memory=shared.memory,
        journal=shared.journal,
    )
    wrapped = found.wrapped(factory)
    if isinstance(found, Foreign):
        return ForeignListener(shared.reactor, found.endpoint, found.text, name, factory, wrapped)
    backlog = found.backlog or shared.backlog
    return StreamListener(
        shared.reactor, found.bound, backlog, name, factory, wrapped, shared.descriptors
    )
