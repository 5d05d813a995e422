"""The services on listening sockets, one class for each kind."""

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.main import CONNECTION_DONE
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.daemon.exit import giveUp
from sockservice.errors import CannotListen
from sockservice.net.addresses import named
from sockservice.net.bind.bound import Bound
from sockservice.net.bind.raw import FramePort
from sockservice.net.stream import StreamPort
from sockservice.net.tls.server import Wrapping
from sockservice.net.udp.port import DatagramPort
from sockservice.server.datagram import DatagramServer
from sockservice.server.factory import LineFactory

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

    @property
    def connections(self) -> int:
        """How many connections it serves now."""
        return 0 if self._factory is None else self._factory.connected

    def retire(self) -> None:
        """Take nothing new from the socket, which another process serves as well."""

    def abandon(self) -> None:
        """Undo the binding, when another listener cannot start."""

    def limitLines(self, most: int) -> None:
        """Set the line limit of new connections, in bytes."""
        if self._factory is not None:
            self._factory.lineLimit = most

    def reload(self) -> None:
        """Read files again that may have changed.

        :raises CannotListen: One is missing or invalid; the old contents stay in use.
        """
        if self.tls is not None:
            self.tls.reload()


class BoundListener(Listener):
    """A service on a bound socket, read by a port."""

    _port: Any

    def __init__(self, bound: Bound, name: str) -> None:
        self._bound = bound
        self._name = name  # which protocol listens where

    def startService(self) -> None:
        super().startService()
        self._port.startListening()
        if not self.quiet:
            self.announce()

    def announce(self) -> None:
        """Log which protocol listens where."""
        log.info("{name}", name=self._name)

    def abandon(self) -> None:
        self._bound.close()


class HeldListener(Listener):
    """Holds a bound socket that other processes serve as `listener` would in this one."""

    def __init__(self, listener: BoundListener) -> None:
        self._listener = listener

    def startService(self) -> None:
        super().startService()
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
        self._port = StreamPort(reactor, bound.socket, served or factory, backlog, descriptors)

    def retire(self) -> None:
        self._port.leaveListening()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop accepting; fires when all lines received are answered and all connections closed.

        Connections left after `drainTimeout` seconds are cut.
        """
        super().stopService()
        self._port.stopListening()
        self._bound.close()
        yield _drained(self._reactor, self._factory, self.drainTimeout)


class DatagramListener(BoundListener):
    """Serves datagrams to a bound socket."""

    def __init__(self, reactor: Any, bound: Bound, name: str, protocol: DatagramServer) -> None:
        super().__init__(bound, name)
        self._reactor = reactor
        self._protocol = protocol
        self._port = DatagramPort(reactor, bound.socket, protocol)

    def retire(self) -> None:
        self._port.pauseProducing()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop reading; fires when every awaited answer has been sent and the socket is closed."""
        super().stopService()
        self._port.pauseProducing()
        yield _drained(self._reactor, self._protocol, self.drainTimeout)
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
    """Serves connections to an endpoint of Twisted's or of a plugin."""

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
        self._name = name
        self._factory: LineFactory = factory
        self._served = served
        self._port: Any = None
        self._listening: Deferred[Any]
        self._problem = ""

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._listening = self._endpoint.listen(self._served)
        self._listening.addCallbacks(self._listens, self._cannot)
        if self._problem:
            raise CannotListen(self._problem)

    def _listens(self, port: Any) -> None:
        self._port = port
        log.info("{name}:{at}", name=self._name, at=named(port.getHost()))

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


def _drained(reactor: Any, serving: LineFactory | DatagramServer, seconds: float) -> Deferred[None]:
    drained = serving.drain()
    timeout = reactor.callLater(seconds, serving.cut)

    def done(result: None) -> None:
        if timeout.active():
            timeout.cancel()

    return drained.addCallback(done)
