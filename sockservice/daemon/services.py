"""One bound socket, served: a service for each kind."""

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
    """A service on a bound socket, or on what takes its place."""

    #: Seconds until what has not drained is cut; set before it may be stopped.
    drainTimeout: float

    #: What is read from files that may change: of TLS, or nothing.
    tls: Wrapping | None = None

    #: What builds the protocols of its connections, if it has any here.
    _factory: LineFactory | None = None

    #: Whether another process says where it listens.
    quiet = False

    def abandon(self) -> None:
        """Undo the binding, when another listener can't come up."""

    def limitLines(self, most: int) -> None:
        """Let the longest line be of `most` bytes for connections from now on."""
        if self._factory is not None:
            self._factory.lineLimit = most

    def reload(self) -> None:
        """Read files again that may have changed.

        :raises CannotListen: They are not what they should be; all stays as it is.
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
        """Say in the log which protocol listens where."""
        log.info("{name}", name=self._name)

    def abandon(self) -> None:
        self._bound.close()


class HeldListener(Listener):
    """A bound socket that other processes serve, as `listener` would in this one."""

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
    """Serve the connections that come to a bound socket; `served` may wrap `factory`."""

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

    @inlineCallbacks
    def stopService(self) -> Any:
        """Accept nothing more; fires when all received lines are answered and all is closed.

        What is left after `drainTimeout` seconds is cut.
        """
        super().stopService()
        self._port.stopListening()
        self._bound.close()
        yield _drained(self._reactor, self._factory, self.drainTimeout)


class DatagramListener(BoundListener):
    """Serve the datagrams that come to a bound socket."""

    def __init__(self, reactor: Any, bound: Bound, name: str, protocol: DatagramServer) -> None:
        super().__init__(bound, name)
        self._reactor = reactor
        self._protocol = protocol
        self._port = DatagramPort(reactor, bound.socket, protocol)

    @inlineCallbacks
    def stopService(self) -> Any:
        """Read nothing more; fires when every awaited answer is sent and the socket closed."""
        super().stopService()
        self._port.pauseProducing()
        yield _drained(self._reactor, self._protocol, self.drainTimeout)
        self._port.stopListening()
        self._bound.close()


class FrameListener(BoundListener):
    """Log the frames that come to a bound packet socket."""

    def __init__(self, reactor: Any, bound: Bound, name: str) -> None:
        super().__init__(bound, name)
        self._port = FramePort(reactor, bound.socket)

    def stopService(self) -> None:
        """Read nothing more."""
        super().stopService()
        self._port.stopListening()
        self._bound.close()


class ForeignListener(Listener):
    """Serve the connections that come to an endpoint of Twisted's or a plugin's."""

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
            # Too late to be raised where it was asked for.
            giveUp(self._reactor, self._problem)

    @inlineCallbacks
    def stopService(self) -> Any:
        """As a StreamListener's."""
        super().stopService()
        if self._port is None:
            self._listening.cancel()
        else:
            yield self._port.stopListening()
        yield _drained(self._reactor, self._factory, self.drainTimeout)

    def abandon(self) -> None:
        """Undo the listening, without a reactor to wait for."""
        if self._port is not None:
            self._port.connectionLost(Failure(CONNECTION_DONE))


def _drained(reactor: Any, serving: LineFactory | DatagramServer, seconds: float) -> Deferred[None]:
    drained = serving.drain()
    timeout = reactor.callLater(seconds, serving.cut)

    def done(result: None) -> None:
        if timeout.active():
            timeout.cancel()

    return drained.addCallback(done)
