"""The client endpoint of a host behind a proxy."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.client.explain import explained
from sockservice.client.proxy import Asking, Declined, Proxy
from sockservice.net.tls import client as tls


class ProxyError(ConnectError):
    """There is no connection, and it is the proxy that says so, or that can't be reached."""

    def __str__(self) -> str:
        return str(self.args[0])


def lasting(problem: BaseException) -> bool:
    """Return whether to try again is of no use: for TLS, or since a proxy refuses us."""
    cause = problem.__cause__
    return tls.lasting(problem) or (isinstance(cause, Declined) and cause.lasting)


@implementer(IStreamClientEndpoint)
class Proxied:
    """Connects to `host` and `port` through `proxy`, to which `endpoint` leads.

    Fails with :class:`ProxyError`.

    :raises ValueError: `host` can't be said to a proxy.
    """

    def __init__(self, endpoint: Any, proxy: Proxy, host: str, port: int) -> None:
        self._endpoint = endpoint
        self._proxy = proxy
        self._asking: Callable[[], Asking] = lambda: proxy.asking(host, port)
        self._asking()

    def connect(self, factory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(
            Factory.forProtocol(lambda: _Tunnel(self._asking(), factory))
        )
        connecting.addCallback(lambda tunnel: tunnel.made)
        return connecting.addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        assert failure.value is not None
        if failure.check(Declined):
            why = str(failure.value)
        elif failure.check(ConnectError):
            why = explained(failure.value)
        else:
            return failure
        raise ProxyError(string=f"the proxy {self._proxy}: {why}") from failure.value


class _Tunnel(Protocol):
    """Takes the place of the protocol until the proxy has made the connection."""

    transport: Any

    def __init__(self, asking: Asking, factory: Any) -> None:
        self._asking = asking
        self._factory = factory
        self.made: Deferred[Any] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:
        self.transport.write(self._asking.begin())

    def dataReceived(self, data: bytes) -> None:
        if self.made.called:
            return
        try:
            answer = self._asking.receive(data)
        except Declined:
            self.made.errback()
            self.transport.abortConnection()
            return
        if answer:
            self.transport.write(answer)
        if self._asking.done:
            self._connected()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.made.called:
            self.made.errback(Declined("it closed the connection before it had made another"))

    def _connected(self) -> None:
        transport = self.transport
        protocol = self._factory.buildProtocol(transport.getPeer())
        transport.protocol = protocol
        protocol.makeConnection(transport)
        self.made.callback(protocol)
        if rest := self._asking.rest():
            protocol.dataReceived(rest)
