"""Build a line protocol for each connection, and hold what its connections share."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.limits.admission import Admission, Limits, source
from sockservice.limits.counters import Counters
from sockservice.limits.lograte import Journal
from sockservice.limits.memory import NO_MEMORY, MemoryLimit
from sockservice.limits.rejection import Rejected, Rejector
from sockservice.net.addresses import named
from sockservice.net.tls.failing import failing
from sockservice.server.line import LineServer
from sockservice.server.reversedns import Names
from sockservice.server.storing import Storing
from sockservice.wire.framing import LINE_LIMIT

#: Seconds between looks for idle connections.
SWEEP_INTERVAL = 1.0

log = Logger()


class Expected(Protocol):
    """A connection that will be a LineServer's; it is asked what a LineServer is asked."""

    transport: Any

    def finish(self) -> None: ...

    def inspect(self, now: float, idle: int, unfinished: int) -> None: ...


class LineFactory(ServerFactory):
    """Build `protocol`, a LineServer, for each connection, and hold its settings.

    `reactor` tells the time that limits go by, `wall` that of what is stored. `lineLimit` is the
    longest line in bytes; `verbose` logs every line; `acceptHttp` takes HTTP requests as lines;
    with `skipSilent`, connections are logged when they go, and only those that brought something;
    `names` looks up the names of peers for the log; `store` keeps the lines of protocols that ask
    for it, under the name `listener`. `counters` may be shared by several factories, and so
    `admission` and `rejector`, which admit peers and reject others, `memory`, which bounds what
    connections hold, and `journal`, which bounds what is logged of them. The last four are public
    for what stands before the lines, as a :class:`~sockservice.server.proxy.ProxyFactory` does.
    """

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        protocol: Callable[[], LineServer],
        *,
        lineLimit: int = LINE_LIMIT,
        verbose: bool = False,
        acceptHttp: bool = False,
        skipSilent: bool = False,
        counters: Counters | None = None,
        names: Names | None = None,
        store: Storing | None = None,
        listener: str = "",
        admission: Admission | None = None,
        rejector: Rejector | None = None,
        memory: MemoryLimit | None = None,
        journal: Journal | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        # Without mypy-zope, a type checker finds no method in an interface of Twisted's.
        self.reactor: Any = reactor
        self._protocol = protocol
        #: Seconds since 1970, for what is stored; limits go by `reactor`.
        self.wall = wall
        self.lineLimit = lineLimit
        self.verbose = verbose
        self.acceptHttp = acceptHttp
        self._skipSilent = skipSilent
        self.counters = Counters() if counters is None else counters
        self.names = names
        self.store = store
        self.listener = listener
        self.memory = MemoryLimit() if memory is None else memory
        self.journal = Journal(reactor) if journal is None else journal
        self.admission = Admission(Limits()) if admission is None else admission
        self.rejector = Rejector(reactor, self.journal) if rejector is None else rejector
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = reactor
        self._connections: set[LineServer | Expected] = set()
        self._drained: Deferred[None] | None = None
        self._speaker: LineServer | None = None  # says for all how a peer is rejected

    @property
    def lineRate(self) -> int:
        """Lines a second that are taken from one connection; 0 is no limit."""
        return self.admission.limits.lineRate

    @property
    def connected(self) -> int:
        """How many connections there are, those included that are not ready for lines."""
        return len(self._connections)

    def lively(self) -> Iterator[tuple[LineServer, int, int]]:
        """Give each connection that has brought lines or holds bytes, and how many of each."""
        for connection in self._connections:
            if isinstance(connection, LineServer):
                lines, held = connection.lines, connection._weight
                if lines or held:
                    yield connection, lines, held

    def startFactory(self) -> None:
        self._sweeping.start(SWEEP_INTERVAL, now=False)

    def stopFactory(self) -> None:
        self._sweeping.stop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a LineServer for a peer that is admitted, or the protocol that rejects it."""
        peer = named(addr)
        turned = self.turned(addr, peer)
        if turned is not None:
            return turned
        try:
            connection = self._protocol()
            connection.source = source(addr)
            connection.factory = self
            if addr is not None:
                # The transport's own idea of it may be a proxy's.
                connection.peer = peer
                if self.names is not None and isinstance(addr, (IPv4Address, IPv6Address)):
                    self.names.look(connection.peer, addr.host)
        except BaseException:
            self.admission.left(source(addr))
            raise
        return connection

    def turned(self, addr: IAddress | None, peer: str) -> Rejected | None:
        """Admit a connection and return None, or return the protocol that rejects it."""
        if self.memory.scarce(self.reactor.seconds()):
            refusal: str | None = NO_MEMORY
            why = "memory"
        else:
            refusal = self.admission.refusal(addr, self.reactor.seconds())
            why = self.admission.met
        if refusal is None:
            return None
        self.counters.turnedAway += 1
        self.counters.reason("turnedAway", why)
        return self.rejector.reject(peer, refusal, self._said(refusal))

    def starved(self) -> bytes:
        """Count a connection that there is no memory for; return what it is told."""
        self.counters.starved += 1
        if self.journal.admits("connections without memory"):
            log.info("a connection refused: {reason}", reason=NO_MEMORY)
        self.memory.exhausted(self.reactor.seconds())
        return self._said(NO_MEMORY)

    def _said(self, refusal: str) -> bytes:
        """Return what the protocol says of a refusal, in its framing."""
        if self._speaker is None:
            self._speaker = self._protocol()
            self._speaker.factory = self
        return self._speaker.lastWord(refusal)

    def drain(self) -> Deferred[None]:
        """Answer what was received and close every connection; fires when all are closed.

        Call it once no more connections are accepted; `cut` hastens it.
        """
        drained: Deferred[None] = Deferred()
        self._drained = drained
        for connection in list(self._connections):
            connection.finish()
        self._emptied()
        return drained

    def expected(self, connection: Expected) -> None:
        """Register a connection whose header, or handshake, is still awaited."""
        self._connections.add(connection)

    def unexpected(self, connection: Expected) -> None:
        """Forget such a connection: it has joined by now, or has gone."""
        self._connections.discard(connection)
        self._emptied()

    def joined(self, connection: LineServer) -> None:
        """Register a new connection."""
        self._connections.add(connection)
        if self._drained is not None:
            # It was expected; what it has received comes now.
            self.reactor.callLater(0, self._finish, connection)
        self.counters.connections += 1
        if not self._skipSilent and self.journal.admits("connected"):
            log.info("{peer} connected", peer=connection.peer)

    def _finish(self, connection: LineServer) -> None:
        if connection in self._connections:
            connection.finish()

    def left(self, connection: LineServer, reason: Failure) -> None:
        """Forget a connection that has ended."""
        self._connections.discard(connection)
        self.admission.left(connection.source)
        if (connection.lines or not self._skipSilent) and self.journal.admits("closed"):
            self._logClosed(connection, reason)
        self._emptied()

    def _logClosed(self, connection: LineServer, reason: Failure) -> None:
        log.info(
            "{peer} closed: lines={lines} refused={refused} after {seconds:.1f} s: {reason}",
            peer=connection.peer,
            lines=connection.lines,
            refused=connection.refused,
            seconds=connection.lasted,
            reason=failing(reason.value, "the peer") or reason.getErrorMessage(),
        )

    def cut(self) -> None:
        """Close every connection now, whatever is unanswered or unsent."""
        for connection in list(self._connections):
            connection.transport.abortConnection()

    def _sweep(self) -> None:
        """Inspect all connections for idleness."""
        now = self.reactor.seconds()
        limits = self.admission.limits
        if not (limits.idle or limits.unfinished):
            return
        # An exception would be the end of all sweeping.
        with suppress(MemoryError):
            for connection in list(self._connections):
                connection.inspect(now, limits.idle, limits.unfinished)

    def _emptied(self) -> None:
        if self._drained is not None and not self._connections:
            drained, self._drained = self._drained, None
            drained.callback(None)
