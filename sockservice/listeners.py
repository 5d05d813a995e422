"""What listens and serves, as services: all of them come up, or none."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger

from sockservice.datagrams import DatagramServer
from sockservice.lines import LineFactory
from sockservice.ports import DatagramPort, StreamPort
from sockservice.sockets import Bound, CannotListen, pairs

#: Connections the kernel may hold before accept: as many as Linux allows since
#: 5.4 (net.core.somaxconn). With Twisted's 50, a burst of 200 waits a second.
BACKLOG = 4096

#: Seconds a stopping listener waits for its last replies to leave.
DRAIN_TIMEOUT = 10.0

log = Logger()


class AllOrNone(MultiService):
    """Start every service within, or tell on stderr why not and end the process."""

    def privilegedStartService(self) -> None:
        with self._told():
            super().privilegedStartService()

    def startService(self) -> None:
        with self._told():
            super().startService()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except CannotListen as problem:
            for listener in self:
                listener.abandon()
            log.critical("{problem}", problem=problem)
            # twistd has put its log in sys.stderr's place.
            print(f"sockservice: {problem}", file=sys.__stderr__)
            raise


class StreamListener(Service):
    """Serve the connections that come to a bound socket; `served` may wrap `factory`."""

    def __init__(
        self,
        reactor: Any,
        bound: Bound,
        backlog: int,
        name: str,
        factory: LineFactory,
        served: Any = None,
    ) -> None:
        self._reactor = reactor
        self._bound = bound
        self._name = name
        self._factory = factory
        self._port = StreamPort(reactor, bound.socket, served or factory, backlog)

    def startService(self) -> None:
        super().startService()
        self._port.startListening()
        log.info("{name}{at}", name=self._name, at=self._bound.name)

    @inlineCallbacks
    def stopService(self) -> Any:
        """Accept nothing more; fires when all received lines are answered and all is closed.

        What is left after DRAIN_TIMEOUT seconds is cut.
        """
        super().stopService()
        self._port.stopListening()
        self._bound.close()
        yield _drained(self._reactor, self._factory)

    def abandon(self) -> None:
        """Undo the binding."""
        self._bound.close()


class DatagramListener(Service):
    """Serve the datagrams that come to a bound socket."""

    def __init__(self, reactor: Any, bound: Bound, name: str, protocol: DatagramServer) -> None:
        self._reactor = reactor
        self._bound = bound
        self._name = name
        self._protocol = protocol
        self._port = DatagramPort(reactor, bound.socket, protocol)

    def startService(self) -> None:
        super().startService()
        self._port.startListening()
        log.info("{name}{at}", name=self._name, at=self._bound.name)

    @inlineCallbacks
    def stopService(self) -> Any:
        """Read nothing more; fires when every awaited answer is sent and the socket closed."""
        super().stopService()
        self._port.pauseProducing()
        yield _drained(self._reactor, self._protocol)
        self._port.stopListening()
        self._bound.close()

    def abandon(self) -> None:
        """Undo the binding."""
        self._bound.close()


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
        for stream, datagram in pairs(self._host, self._port):
            for listener in (
                StreamListener(
                    self._reactor, stream, self._backlog, "ack listening on tcp:", self._lines()
                ),
                DatagramListener(
                    self._reactor, datagram, "echo listening on udp:", self._datagrams()
                ),
            ):
                listener.setServiceParent(self)

    def startService(self) -> None:
        """Serve, binding first where that was not asked for (`twist` does not)."""
        if not self.services:
            self.privilegedStartService()
        super().startService()

    def abandon(self) -> None:
        """Undo the binding."""
        for listener in self:
            listener.abandon()
