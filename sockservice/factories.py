"""Build a line protocol for each connection, and hold what its connections share."""

from collections.abc import Callable

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.addresses import named
from sockservice.counters import Counters
from sockservice.lines import LINE_LIMIT, LineServer
from sockservice.names import Names
from sockservice.store.commit import Store

log = Logger()


class LineFactory(ServerFactory):
    """Build `protocol`, a LineServer, for each connection, and hold its settings.

    `reactor` tells the time. `lineLimit` is the longest line in bytes; `verbose`
    logs every line; `names` looks up the names of peers for the log; `store` keeps
    the lines of protocols that ask for it, under the name `listener`. `counters` may
    be shared by several factories.
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
    ) -> None:
        self.reactor = reactor
        self._protocol = protocol
        self.lineLimit = lineLimit
        self.verbose = verbose
        self.counters = Counters() if counters is None else counters
        self.names = names
        self.store = store
        self.listener = listener
        self._connections: set[LineServer] = set()
        self._drained: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> LineServer:
        connection = self._protocol()
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

    def _emptied(self) -> None:
        if self._drained is not None and not self._connections:
            drained, self._drained = self._drained, None
            drained.callback(None)
