"""Where the service listens: sockets bound before privileges go, all of them or none."""

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger

from sockservice.addresses import hostPort
from sockservice.datagrams import DatagramServer
from sockservice.lines import LineFactory
from sockservice.transports import DatagramPort

#: Connections the kernel may hold before accept: as many as Linux allows since
#: 5.4 (net.core.somaxconn). With Twisted's 50, a burst of 200 waits a second.
BACKLOG = 4096

#: Bytes of datagrams the kernel may hold, as far as net.core.rmem_max lets it:
#: 64 of the longest.
RECEIVE_BUFFER = 4 * 1024 * 1024

#: Seconds a stopping listener waits for its last replies to leave.
DRAIN_TIMEOUT = 10.0

_TRIES = 100  # to find a number that is free for TCP and for UDP

log = Logger()


class CannotListen(SystemExit, Exception):
    """The service cannot start; the text is one line for whoever started it.

    As a SystemExit it ends the process with status 1 and no traceback. As an
    Exception it lets twistd remove its pidfile, or report from a daemon, first.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = 1


class AllOrNone(MultiService):
    """Start every service within, or tell on stderr why not and end the process."""

    def privilegedStartService(self) -> None:
        with _told():
            super().privilegedStartService()

    def startService(self) -> None:
        with _told():
            super().startService()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except CannotListen as problem:
        log.critical("{problem}", problem=problem)
        # twistd has put its log in sys.stderr's place.
        print(f"sockservice: {problem}", file=sys.__stderr__)
        raise


class StreamListener(Service):
    """Serve the connections that come to a bound TCP socket, which it then owns."""

    def __init__(
        self, reactor: Any, bound: socket.socket, backlog: int, name: str, factory: LineFactory
    ) -> None:
        self._reactor = reactor
        self._bound = bound
        self._backlog = backlog
        self._protocol = name
        self._factory = factory
        self._port: Any = None

    def startService(self) -> None:
        super().startService()
        address = hostPort(*self._bound.getsockname()[:2])
        self._bound.listen(self._backlog)
        self._port = self._reactor.adoptStreamPort(
            self._bound.fileno(), self._bound.family, self._factory
        )
        self._bound.close()
        log.info("{protocol} listening on tcp:{address}", protocol=self._protocol, address=address)

    @inlineCallbacks
    def stopService(self) -> Any:
        """Accept nothing more; fires when all received lines are answered and all is closed.

        What is left after DRAIN_TIMEOUT seconds is cut.
        """
        super().stopService()
        yield self._port.stopListening()
        yield _drained(self._reactor, self._factory)


class DatagramListener(Service):
    """Serve the datagrams that come to a bound UDP socket, which it then owns."""

    def __init__(
        self, reactor: Any, bound: socket.socket, name: str, protocol: DatagramServer
    ) -> None:
        self._reactor = reactor
        self._protocol = protocol
        self._name = name
        self._port = DatagramPort(reactor, bound, protocol)

    def startService(self) -> None:
        super().startService()
        self._port.startListening()
        address = hostPort(*self._port.socket.getsockname()[:2])
        log.info("{protocol} listening on udp:{address}", protocol=self._name, address=address)

    @inlineCallbacks
    def stopService(self) -> Any:
        """Read nothing more; fires when every awaited answer is sent and the socket closed."""
        super().stopService()
        self._port.pauseProducing()
        yield _drained(self._reactor, self._protocol)
        self._port.stopListening()


def _drained(reactor: Any, serving: LineFactory | DatagramServer) -> Deferred[None]:
    drained = serving.drain()
    timeout = reactor.callLater(DRAIN_TIMEOUT, serving.cut)

    def done(result: None) -> None:
        if timeout.active():
            timeout.cancel()

    return drained.addCallback(done)


class HostPort(MultiService):
    """Serve lines over TCP and datagrams over UDP on one port number of a host.

    `host` is an address or a name, which stands for all its addresses; `port` 0
    takes a number that is free on all of them. `lines` and `datagrams` are called
    for each address.
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        backlog: int,
        lines: Callable[[], LineFactory],
        datagrams: Callable[[], DatagramServer],
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._host = host
        self._port = port
        self._backlog = backlog
        self._lines = lines
        self._datagrams = datagrams

    def privilegedStartService(self) -> None:
        """Bind all sockets, while that is still allowed.

        :raises CannotListen: Nothing is bound then.
        """
        super().privilegedStartService()
        for stream, datagram in _pairs(_resolved(self._host), self._port):
            listeners = (
                StreamListener(self._reactor, stream, self._backlog, "ack", self._lines()),
                DatagramListener(self._reactor, datagram, "echo", self._datagrams()),
            )
            for listener in listeners:
                listener.setServiceParent(self)

    def startService(self) -> None:
        """Serve, binding first where that was not asked for (`twist` does not)."""
        if not self.services:
            self.privilegedStartService()
        super().startService()


def _resolved(host: str) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    """Give the families and socket addresses that `host` stands for."""
    hints = socket.AI_PASSIVE
    try:
        socket.getaddrinfo(host, 0, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        # A name may have addresses of a family that this host does not have.
        hints |= socket.AI_ADDRCONFIG
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=hints)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise CannotListen(f"--host {ascii(host)[1:-1]}: {reason}") from error
    return [(family, address) for family, _, _, _, address in found]


def _pairs(
    addresses: list[tuple[socket.AddressFamily, tuple[Any, ...]]], port: int
) -> list[tuple[socket.socket, socket.socket]]:
    """Bind a TCP and a UDP socket at each address, all on the same port number."""
    for attempt in range(_TRIES):
        number = port
        pairs = []
        with ExitStack() as undo:
            try:
                for family, address in addresses:
                    pair = []
                    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                        made = undo.enter_context(socket.socket(family, kind))
                        _bind(made, (address[0], number, *address[2:]))
                        number = made.getsockname()[1]
                        pair.append(made)
                    pairs.append((pair[0], pair[1]))
            except CannotListen as problem:
                cause = problem.__cause__
                clash = isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE
                if port or not clash or attempt == _TRIES - 1:
                    raise
                continue
            undo.pop_all()
            return pairs
    raise AssertionError("the last try returns or raises")


def _bind(made: socket.socket, address: tuple[Any, ...]) -> None:
    made.setblocking(False)
    stream = made.type == socket.SOCK_STREAM
    if stream:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    else:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    if made.family == socket.AF_INET6:
        # "::" is every address of both families, whatever net.ipv6.bindv6only says.
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        made.bind(address)
    except OSError as error:
        where = f"{'tcp' if stream else 'udp'}:{hostPort(*address[:2])}"
        raise CannotListen(f"cannot listen on {where}: {_cause(error, address[1])}") from error


def _cause(error: OSError, port: int) -> str:
    """Say why binding failed, and what to do about it."""
    if error.errno == errno.EADDRINUSE:
        return (
            "the port is taken; choose another --port, or stop the program that "
            f"`ss -lntup 'sport = :{port}'` shows"
        )
    if error.errno in (errno.EACCES, errno.EPERM) and port < 1024:
        return (
            "not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE; "
            "or choose --port 5555"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return "this host has no such address; choose another --host"
    return os.strerror(error.errno or 0)
