"""The services on listening sockets, one class for each kind."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.daemon.backlog import Backlog
from sockservice.daemon.exit import giveUp
from sockservice.distribution import Distribution
from sockservice.errors import CannotListen
from sockservice.net.addresses import named
from sockservice.net.bind.bound import Bound
from sockservice.net.bind.raw import FramePort
from sockservice.net.stream import StreamPort
from sockservice.net.tls.server import Wrapping
from sockservice.net.udp.port import DatagramPort
from sockservice.server.datagram import DatagramServer
from sockservice.server.factory import LineFactory
from sockservice.server.line import LineServer

#: Seconds between looks at what the system has dropped: each is a system call.
LOOK = 1.0

log = Logger()


class Listener(Service):
    """The base class of services on listening sockets."""

    #: Seconds until what has not drained is cut; set before it may be stopped.
    drainTimeout: float

    #: The TLS files, which may change, or None.
    tls: Wrapping | None = None

    #: The factory of its connections, if this process serves any.
    _factory: LineFactory | None = None

    #: Whether another process logs where it listens.
    quiet = False

    #: Which protocol listens where.
    label = ""

    #: Where it listens, as counters and stores name it, and what it serves there.
    at = protocol = ""

    #: The sizes of its datagrams in bytes, if they are measured.
    sizes: Distribution | None = None

    #: The number of its socket, which duplicates have in common; None is no socket of ours.
    inode: int | None = None

    @property
    def connections(self) -> int:
        """How many connections it serves now."""
        return 0 if self._factory is None else self._factory.connected

    @property
    def lacking(self) -> bool:
        """Whether it could not accept a connection, for want of descriptors."""
        return False

    @property
    def expires(self) -> float | None:
        """When its certificate expires, in seconds since 1970; None if it has none."""
        return None if self.tls is None else self.tls.expires

    def lively(self) -> Iterable[tuple[LineServer, int, int]]:
        """Give each of its connections that has lines or holds bytes, and how many of each."""
        return () if self._factory is None else self._factory.lively()

    def retire(self) -> None:
        """Take nothing new from the socket, which another process serves as well."""

    def abandon(self) -> None:
        """Undo the binding, when another listener cannot start."""

    def limitLines(self, most: int) -> None:
        """Set the line limit of new connections, in bytes."""
        if self._factory is not None:
            self._factory.lineLimit = most

    def reread(self) -> Callable[[], object]:
        """Read files again that may have changed, in any thread; give what lets them hold.

        That is called in the reactor's.

        :raises CannotListen: One is missing or invalid.
        """
        return _nothing if self.tls is None else self.tls.reread()


class BoundListener(Listener):
    """A service on a bound socket, read by a port."""

    _port: Any

    def __init__(self, bound: Bound, name: str) -> None:
        self._bound = bound
        self.label = name
        self.inode = os.fstat(bound.socket.fileno()).st_ino

    def startService(self) -> None:
        super().startService()
        with self._bound.telling():
            self._port.startListening()
        if not self.quiet:
            self.announce()

    def hold(self) -> None:
        """Let the system take connections, which other processes accept."""

    def announce(self) -> None:
        """Log which protocol listens where."""
        log.info("{name}", name=self.label)

    def abandon(self) -> None:
        self._bound.close()


class HeldListener(Listener):
    """Holds a bound socket that other processes serve as `listener` would in this one.

    It is announced when they do.
    """

    def __init__(self, listener: BoundListener) -> None:
        self._listener = listener
        self.label, self.inode = listener.label, listener.inode
        self.at, self.protocol = listener.at, listener.protocol

    def startService(self) -> None:
        super().startService()
        self._listener.hold()

    def announce(self) -> None:
        """As a bound one's."""
        self._listener.announce()

    def stopService(self) -> None:
        """Close it in this process."""
        super().stopService()
        self.abandon()

    def abandon(self) -> None:
        self._listener.abandon()


class StreamListener(BoundListener):
    """Serves connections to a bound socket; `served`, if given, is `factory` wrapped."""

    def __init__(
        self,
        reactor: Any,
        bound: Bound,
        backlog: int,
        name: str,
        factory: LineFactory,
        served: Any = None,
        descriptors: Any = None,
    ) -> None:
        super().__init__(bound, name)
        self._reactor = reactor
        self._factory: LineFactory = factory
        # What stands before the lines, as TLS, could not pass it on.
        self._plain = served is None
        self._port = StreamPort(
            reactor, bound.socket, served or factory, backlog, descriptors, self._starved
        )

    @property
    def lacking(self) -> bool:
        return bool(self._port.lacking)

    def _starved(self) -> bytes:
        said = self._factory.starved()
        return said if self._plain else b""

    def hold(self) -> None:
        with self._bound.telling():
            self._port.hold()

    def retire(self) -> None:
        self._port.leaveListening()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop accepting; fires when all lines received are answered and all connections closed.

        Connections left after `drainTimeout` seconds are cut, those included for which there
        was no descriptor yet.
        """
        super().stopService()
        if self._port.stopListening():
            self._bound.close()
        else:
            rest = Backlog(self._reactor, self._port, self._factory, self._bound.close)
            self._factory.expected(rest)
        yield _drained(self._reactor, self._factory, self.drainTimeout)


class DatagramListener(BoundListener):
    """Serves datagrams to a bound socket.

    Unless the socket is `shared` with processes that do so as well, it counts what the system
    drops there.
    """

    def __init__(
        self,
        reactor: Any,
        bound: Bound,
        name: str,
        protocol: DatagramServer,
        shared: bool = False,
    ) -> None:
        super().__init__(bound, name)
        self._reactor = reactor
        self._protocol = protocol
        self._port = DatagramPort(reactor, bound.socket, protocol)
        self._dropped = self._port.dropped()
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._shared = shared

    def startService(self) -> None:
        super().startService()
        if not self._shared:
            self._looking.start(LOOK, now=False)

    def _look(self) -> None:
        """Count what the system has dropped meanwhile."""
        dropped = self._port.dropped()
        self._protocol.counters.dropped += (dropped - self._dropped) % 2**32
        self._dropped = dropped

    def retire(self) -> None:
        self._port.leaveListening()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop reading; fires when every awaited answer has been sent and the socket is closed."""
        super().stopService()
        self._port.pauseProducing()
        yield _drained(self._reactor, self._protocol, self.drainTimeout)
        if self._looking.running:
            self._looking.stop()
            self._look()
        self._port.stopListening()
        self._bound.close()


class FrameListener(BoundListener):
    """Logs the frames that a bound packet socket receives."""

    def __init__(self, reactor: Any, bound: Bound, name: str) -> None:
        super().__init__(bound, name)
        self._port = FramePort(reactor, bound.socket)

    def stopService(self) -> None:
        """Stop reading."""
        super().stopService()
        self._port.stopListening()
        self._bound.close()


class ForeignListener(Listener):
    """Serves connections to an endpoint of Twisted's or of a plugin.

    What it has not accepted when it stops is lost: an IListeningPort tells of no socket, nor
    of what waits there.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: Any,
        text: str,
        name: str,
        factory: LineFactory,
        served: Any,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._text = text
        self.label = name
        self._factory: LineFactory = factory
        self._served = served
        self._port: Any = None
        self._listening: Deferred[Any]
        self._problem = ""

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        # Those of plugins may raise what they like.
        self._listening = maybeDeferred(self._endpoint.listen, self._served)
        self._listening.addCallbacks(self._listens, self._cannot)
        if self._problem:
            raise CannotListen(self._problem)

    def _listens(self, port: Any) -> None:
        self._port = port
        log.info("{name}:{at}", name=self.label, at=named(port.getHost()))

    def _cannot(self, failure: Failure) -> None:
        self._problem = f"cannot listen on {self._text}: {failure.getErrorMessage()}"
        if self.running:
            # Too late to be raised from privilegedStartService.
            giveUp(self._reactor, self._problem)

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop as a StreamListener does."""
        super().stopService()
        if self._port is None:
            self._listening.cancel()
        else:
            yield self._port.stopListening()
        yield _drained(self._reactor, self._factory, self.drainTimeout)

    def abandon(self) -> None:
        """Stop listening, without a running reactor."""
        if self._port is not None:
            self._port.connectionLost(Failure(CONNECTION_DONE))


def _nothing() -> None:
    """Let nothing hold."""


def _drained(reactor: Any, serving: LineFactory | DatagramServer, seconds: float) -> Deferred[None]:
    drained = serving.drain()
    timeout = reactor.callLater(seconds, serving.cut)

    def done(result: None) -> None:
        if timeout.active():
            timeout.cancel()

    return drained.addCallback(done)
