"""Build a line protocol for each connection, and hold what its connections share."""

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.addresses import named
from sockservice.counters import Counters
from sockservice.limits import Admission, Limits
from sockservice.lines import LINE_LIMIT, LineServer
from sockservice.names import Names
from sockservice.store.commit import Store
from sockservice.turning import Turning

#: Seconds between looks for idle connections.
SWEEP_INTERVAL = 1.0

log = Logger()


class LineFactory(ServerFactory):
    """Build `protocol`, a LineServer, for each connection, and hold its settings.

    `reactor` tells the time. `lineLimit` is the longest line in bytes; `verbose`
    logs every line; `names` looks up the names of peers for the log; `store` keeps
    the lines of protocols that ask for it, under the name `listener`. `counters` may
    be shared by several factories, and so `admission` and `turning`, which say who is
    let in and tell the others.
    """

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        protocol: Callable[[], LineServer],
        *,
        lineLimit: int = LINE_LIMIT,
        verbose: bool = False,
        counters: Counters | None = None,
        names: Names | None = None,
        store: Store | None = None,
        listener: str = "",
        admission: Admission | None = None,
        turning: Turning | None = None,
    ) -> None:
        self.reactor = reactor
        self._protocol = protocol
        self.lineLimit = lineLimit
        self.verbose = verbose
        self.counters = Counters() if counters is None else counters
        self.names = names
        self.store = store
        self.listener = listener
        self._admission = Admission(Limits()) if admission is None else admission
        self._turning = Turning(reactor) if turning is None else turning
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = reactor
        self._connections: set[LineServer] = set()
        self._drained: Deferred[None] | None = None

    def startFactory(self) -> None:
        if self._admission.limits.idle or self._admission.limits.unfinished:
            self._sweeping.start(SWEEP_INTERVAL, now=False)

    def stopFactory(self) -> None:
        if self._sweeping.running:
            self._sweeping.stop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Give a LineServer for a peer that is let in, or what turns it away."""
        refusal = self._admission.refusal(addr, self.reactor.seconds())
        if refusal is not None:
            self.counters.turnedAway += 1
            return self._turning.away(named(addr), refusal)
        connection = self._protocol()
        connection.address = addr
        connection.factory = self
        if addr is not None:
            # The transport's own idea of it may be a proxy's.
            connection.peer = named(addr)
            if self.names is not None and isinstance(addr, (IPv4Address, IPv6Address)):
                self.names.look(connection.peer, addr.host)
        return connection

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

    def joined(self, connection: LineServer) -> None:
        """Take note of a new connection."""
        self._connections.add(connection)
        self.counters.connections += 1
        log.info("{peer} connected", peer=connection.peer)

    def left(self, connection: LineServer, reason: Failure) -> None:
        """Take note of a connection's end."""
        self._connections.discard(connection)
        self._admission.left(connection.address)
        log.info(
            "{peer} gone after {lines} lines, {refused} refused: {reason}",
            peer=connection.peer,
            lines=connection.lines,
            refused=connection.refused,
            reason=reason.getErrorMessage(),
        )
        self._emptied()

    def cut(self) -> None:
        """Close every connection now, whatever is unanswered or unsent."""
        for connection in list(self._connections):
            connection.transport.abortConnection()

    def _sweep(self) -> None:
        """Look for connections that only hold a place."""
        now = self.reactor.seconds()
        limits = self._admission.limits
        for connection in list(self._connections):
            connection.inspect(now, limits.idle, limits.unfinished)

    def _emptied(self) -> None:
        if self._drained is not None and not self._connections:
            drained, self._drained = self._drained, None
            drained.callback(None)
