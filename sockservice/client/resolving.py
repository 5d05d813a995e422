"""Look up the addresses of a host, in a thread, and nothing where it is an address itself."""

# Loaded now: where no descriptor is left, the thread could not load it.
import encodings.idna
import os
import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IReactorPluggableNameResolver,
    IStreamClientEndpoint,
)
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.client.hostport import ipVersion

assert encodings.idna

#: What the system calls the versions of IP; None is either.
FAMILIES = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}


def lookedUp(
    reactor: Any, host: str, port: int, kind: socket.SocketKind, version: int | None = None
) -> Deferred[list[Any]]:
    """Return a Deferred of the addresses of `host`, as `socket.getaddrinfo` gives them.

    An IP address, with a scope too, is not looked up. `version` is the version of IP. The
    Deferred fails with DNSLookupError if there are none, with ValueError if `host` is no name,
    and with ConnectError where the system can't look now.
    """
    family = FAMILIES[version]
    if ipVersion(host) is not None:
        try:
            return succeed(numeric(host, port, kind, family))
        except ValueError:
            return fail()
    looking: Deferred[list[Any]] = maybeDeferred(
        deferToThreadPool, reactor, reactor.getThreadPool(), _resolved, host, port, family, kind
    )
    return looking.addErrback(_put, host if version is None else f"{host} over IPv{version}")


def numeric(host: str, port: int, kind: socket.SocketKind, family: int = 0) -> list[Any]:
    """Return what `lookedUp` does for an IP address.

    :raises ValueError: It has an unknown scope, or is of the other version.
    """
    flags = socket.AI_NUMERICHOST
    try:
        return socket.getaddrinfo(host.encode(), port, family, kind, flags=flags)
    except socket.gaierror as error:
        raise ValueError(f"{host}: {error.strerror}") from error


def _resolved(host: str, port: int, family: int, kind: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, family, kind)
    except OSError:
        # It may have found no descriptor for its own files, of which it says nothing, or what
        # a module of nsswitch.conf(5) made of it.
        os.close(os.open(os.devnull, os.O_RDONLY))
        raise


def _put(failure: Failure, host: str) -> Any:
    """Raise what went wrong in a lookup as an error of a connection."""
    error = failure.value
    if isinstance(error, socket.gaierror):
        raise DNSLookupError(f"{host}: {error.strerror}") from error
    if isinstance(error, UnicodeError):
        raise ValueError(f"invalid hostname: {host}") from error
    if isinstance(error, OSError):
        raise ConnectError(error.errno, error.strerror or str(error)) from error
    if isinstance(error, RuntimeError):
        # Of `threading`.
        raise ConnectError(string=f"{host} can't be looked up: {error}") from error
    return failure


@implementer(IHostnameResolver)
class _Resolver:
    def __init__(self, reactor: Any, version: int | None) -> None:
        self._reactor = reactor
        self._version = version
        #: Why the latest lookup found nothing.
        self.failure: Failure | None = None

    def resolveHostName(
        self,
        receiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: object = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        receiver.resolutionBegan(None)
        self.failure = None
        looking = lookedUp(self._reactor, hostName, portNumber, socket.SOCK_STREAM, self._version)
        looking.addCallbacks(self._came, self._failed, callbackArgs=(receiver,))
        looking.addCallback(lambda _: receiver.resolutionComplete())

    def _came(self, found: list[Any], receiver: Any) -> None:
        for family, _, _, _, address in found:
            made = IPv6Address if family == socket.AF_INET6 else IPv4Address
            receiver.addressResolved(made("TCP", *address))

    def _failed(self, failure: Failure) -> None:
        self.failure = failure


@implementer(IReactorPluggableNameResolver)
class _Reactor:
    """A reactor with another resolver."""

    def __init__(self, reactor: Any, resolver: _Resolver) -> None:
        self._reactor = reactor
        self.nameResolver = resolver

    def installNameResolver(self, resolver: Any) -> Any:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@implementer(IStreamClientEndpoint)
class Resolving:
    """An endpoint that looks up names with `lookedUp`, and fails as that does.

    Twisted's resolver lets a connection wait to its end when the thread fails, and says of
    a name that can't be looked up that there is no such name. `make` gets the reactor for an
    endpoint of Twisted's and returns that.
    """

    def __init__(self, reactor: Any, make: Any, version: int | None = None) -> None:
        self._resolver = _Resolver(reactor, version)
        self._endpoint = make(_Reactor(reactor, self._resolver))

    def connect(self, factory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addErrback(self._why)

    def _why(self, failure: Failure) -> Failure:
        if failure.check(DNSLookupError) and self._resolver.failure is not None:
            return self._resolver.failure
        return failure
