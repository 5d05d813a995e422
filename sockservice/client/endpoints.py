"""Client endpoints: with a deadline, for full backlogs of UNIX sockets, for SOCK_SEQPACKET."""

import errno
import socket
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    TCPTimedOutError,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.client.described import described
from sockservice.net.seqpacket import PacketServer
from sockservice.wire.plurals import inSeconds

#: Seconds until another attempt at a UNIX socket whose backlog is full.
QUEUED = 0.05


@implementer(IStreamClientEndpoint)
class Timed:
    """An endpoint that gives up after `timeout` seconds, name lookup and TLS included."""

    def __init__(self, reactor: Any, endpoint: Any, timeout: float) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._timeout = timeout

    def connect(self, factory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addTimeout(self._timeout, self._reactor, timedOut)


def timedOut(result: Any, timeout: float) -> Any:
    if isinstance(result, Failure):
        raise TCPTimedOutError(errno.ETIMEDOUT, f"not connected within {inSeconds(timeout)}")
    return result


@implementer(IStreamClientEndpoint)
class Describing:
    """An endpoint that calls `told` with a description of each connection, in lines.

    `more` are lines behind the first, which says the address.
    """

    def __init__(
        self, endpoint: Any, told: Callable[[list[str]], object], more: Iterable[str] | None = None
    ) -> None:
        self._endpoint = endpoint
        self._told = told
        self._more = more or ()

    def connect(self, factory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(self._connected)

    def _connected(self, protocol: Any) -> Any:
        first, *rest = described(protocol.transport)
        self._told([first, *self._more, *rest])
        return protocol


@implementer(IStreamClientEndpoint)
class Queued:
    """The endpoint of a UNIX socket, tried again while its backlog is full."""

    def __init__(self, reactor: Any, endpoint: Any) -> None:
        self._reactor = reactor
        self._endpoint = endpoint

    def connect(self, factory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addErrback(self._again, factory)

    def _again(self, failure: Failure, factory: Any) -> Any:
        error = failure.check(ConnectError) and failure.value
        said = getattr(error, "args", None) or (None,)
        # Twisted mistakes it for the end of a connection.
        closed = isinstance(said[0], Failure) and said[0].check(ConnectionDone)
        if closed or getattr(error, "osError", None) == errno.EAGAIN:
            return deferLater(self._reactor, QUEUED, self.connect, factory)
        if isinstance(failure.value, OSError):
            # No socket was made.
            raise ConnectError(failure.value.errno, failure.value.strerror or "")
        return failure


@implementer(IStreamClientEndpoint)
class PacketEndpoint:
    """A UNIX socket of the type SOCK_SEQPACKET."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self._path = path

    def connect(self, factory: Any) -> Deferred[Any]:
        connected = None
        try:
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            connected.setblocking(False)
            connected.connect(self._path)
        except OSError as error:
            if connected is not None:
                connected.close()
            return fail(ConnectError(error.errno, error.strerror or str(error)))
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(
            PacketServer(connected, protocol, self._path, None, 0, self._reactor)
        )
        return succeed(protocol)
