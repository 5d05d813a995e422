"""Connect to a target, written as an endpoint is on the server."""

import re
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, TypedDict, TypeVar, Unpack, overload

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    clientFromString,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from sockservice.client.datagram import DatagramClient
from sockservice.client.endpoints import PacketEndpoint, Queued, Timed
from sockservice.client.hostport import hostAndPort, ipAddress, ipVersion, pathOf
from sockservice.client.line import LineClient
from sockservice.client.udp import connectDatagrams
from sockservice.net.tls import pem
from sockservice.net.tls.client import Secured
from sockservice.wire.chunks import Packets
from sockservice.wire.framer import Framer
from sockservice.wire.framing import LF, Framing

#: The class of a client.
Client = TypeVar("Client", bound=LineClient | DatagramClient)

#: Our schemes and those of Twisted's endpoints; any other word before a number is a host.
SCHEMES = (
    *("tcp", "tcp6", "tls", "ssl", "unix", "udp", "unix-datagram", "unix-seqpacket"),
    *("fd", "haproxy", "stdio", "systemd"),
)

# In a client endpoint string of Twisted's, where a backslash escapes special characters.
_PRIVATE_KEY = re.compile(r":privateKey=((?:\\.|[^:\\])+)")


class How(TypedDict, total=False):
    """The keywords of :func:`connect`, which says what they are."""

    timeout: float
    framing: Callable[[int], Framing]
    ending: bytes
    greeting: bool
    source: str | None
    verify: bool
    cafile: str | None
    cert: str | None
    key: str | None


@overload
def connect(
    reactor: Any, target: str, protocol: None = None, **how: Unpack[How]
) -> Deferred[LineClient | DatagramClient]: ...


@overload
def connect(
    reactor: Any, target: str, protocol: type[Client], **how: Unpack[How]
) -> Deferred[Client]: ...


def connect(
    reactor: Any,
    target: str,
    protocol: Any = None,
    *,
    timeout: float = 30.0,
    framing: Callable[[int], Framing] = Framer,
    ending: bytes = LF,
    greeting: bool = False,
    **how: Any,
) -> Deferred[Any]:
    """Connect to `target`; return a Deferred of a LineClient or, for datagrams, a DatagramClient.

    `tcp:HOST:PORT`, also written `HOST:PORT`, `tls:HOST:PORT` and `udp:HOST:PORT` take a
    name, an IPv4 address or an IPv6 address in brackets; `unix:PATH`,
    `unix-datagram:PATH` and `unix-seqpacket:PATH` a UNIX socket; anything else is one
    of Twisted's client endpoint strings.

    `protocol` is which of the two it has to be, or a subclass of one: then a type checker
    knows it as well. `framing` is the server's, where that is not lines; lines end in
    `ending`. With `greeting`, the first line that the server sends is no reply: the Deferred
    fires when it is there, at most `timeout` seconds after the connection. `how` may
    hold `source`, the address of ours to connect from, and for `tls:`

    - `verify`: False to accept any certificate, and so any server;
    - `cafile`: a PEM file of the certificates to trust instead of the system's;
    - `cert`, `key`: PEM files of the certificate to present, and of its key if separate.

    The Deferred fails with a ConnectError of Twisted's, whose `osError` is the number,
    if it has one; with TCPTimedOutError after `timeout` seconds; with :class:`TimedOut` or
    :class:`Unanswered` when no greeting comes; with ValueError when `target`, `protocol` or
    `how` is invalid. :func:`explained` describes each in one line.
    """
    try:
        if isDatagram(target):
            if greeting:
                raise ValueError("datagrams have no connection that begins with a greeting")
            made = _checked(target, protocol, DatagramClient)
            return connectDatagrams(reactor, target, timeout, made, **how)
        made = _checked(target, protocol, LineClient)
        endpoint = streamEndpoint(reactor, target, timeout=timeout, **how)
    except ValueError:
        return fail(Failure())
    if target.startswith("unix-seqpacket:"):
        framing = Packets
    connecting: Deferred[Any] = endpoint.connect(
        Factory.forProtocol(partial(made, reactor, framing, ending, greeting))
    )
    if greeting:
        connecting.addCallback(_greeted, timeout)
    return connecting


def _checked(target: str, protocol: Any, expected: type[Any]) -> Any:
    if protocol is None:
        return expected
    if not issubclass(protocol, expected):
        raise ValueError(f"{target} is for a {expected.__name__}, not a {protocol.__name__}")
    return protocol


def _greeted(client: LineClient, timeout: float) -> Deferred[LineClient]:
    def failed(failure: Failure) -> Failure:
        client.abort()
        return failure

    return client.greeted(timeout).addCallbacks(lambda _: client, failed)


def isDatagram(target: str) -> bool:
    """Return whether `target` is for datagrams, which have no connection."""
    return target.startswith(("udp:", "unix-datagram:"))


def streamEndpoint(
    reactor: Any,
    target: str,
    *,
    timeout: float = 30.0,
    source: str | None = None,
    verify: bool = True,
    cafile: str | None = None,
    cert: str | None = None,
    key: str | None = None,
) -> Any:
    """Return the client endpoint that `target` describes; see :func:`connect`.

    :raises ValueError: It describes none, or one to which the other arguments do not apply.
    """
    scheme, _, rest = target.partition(":")
    if re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*):[0-9]+", target) and scheme not in SCHEMES:
        scheme, rest = "tcp", target
    plain = re.search(r":[0-9]+$|^[^:=]*$", rest) and "=" not in rest
    if scheme == "tls" and plain:
        host, port = hostAndPort(rest)
        endpoint = _inet(reactor, host, port, timeout, source)
        secured = Secured(endpoint, host, verify=verify, cafile=cafile, cert=cert, key=key)
        return Timed(reactor, secured, timeout)
    if not verify or cafile or cert or key:
        raise ValueError("what is said of TLS applies to tls:HOST:PORT alone")
    if scheme == "tcp" and (plain or rest.count("=") == 0):
        return Timed(reactor, _inet(reactor, *hostAndPort(rest), timeout, source), timeout)
    if source is not None:
        raise ValueError("a source address applies to tcp:, tls: and udp:HOST:PORT alone")
    if scheme == "unix-seqpacket":
        packets = Queued(reactor, PacketEndpoint(reactor, pathOf(rest)))
        return Timed(reactor, packets, timeout)
    if scheme == "unix" and ":" not in rest and not rest.startswith(("path=", "address=")):
        queued = Queued(reactor, UNIXClientEndpoint(reactor, pathOf(rest), None))
        return Timed(reactor, queued, timeout)
    try:
        for path in _PRIVATE_KEY.findall(target):
            # Twisted would let OpenSSL ask for the passphrase on the terminal.
            pem.key(re.sub(r"\\(.)", r"\1", path))
        return Timed(reactor, clientFromString(reactor, target), timeout)
    except Exception as problem:
        # The constructors of endpoints raise what they like.
        if scheme == "unix" and isinstance(problem, TypeError):
            raise ValueError("a colon in a path is written \\:") from problem
        hint = "" if scheme in SCHEMES else "; a host is written HOST:PORT, IPv6 in brackets"
        raise ValueError(f"{problem}{hint}") from problem


def _inet(reactor: Any, host: str, port: int, timeout: float, source: str | None) -> Any:
    bound = None if source is None else (ipAddress(source), 0)
    if source is not None and ipVersion(host) not in (None, ipVersion(source)):
        raise ValueError(f"{host} is not of the family of the source address {source}")
    if "%" in host:
        # The resolver would drop the scope. It is no name, so nothing need be resolved.
        try:
            socket.getaddrinfo(ipAddress(host), port, flags=socket.AI_NUMERICHOST)
        except socket.gaierror as error:
            raise ValueError(f"{host}: {error.strerror}") from error
        return TCP6ClientEndpoint(reactor, host, port, timeout, bound)
    return HostnameEndpoint(reactor, host, port, timeout, bound)
