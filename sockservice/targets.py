"""Where to connect to, and how: targets, written as on the server, to connections."""

import errno
import ipaddress
import os
import re
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    clientFromString,
)
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    DNSLookupError,
    TCPTimedOutError,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice import pem
from sockservice.client import DatagramClient, LineClient
from sockservice.framing import LF, Framer, Framing, Packets
from sockservice.packets import PacketServer
from sockservice.ports import DatagramPort
from sockservice.sockets import RECEIVE_BUFFER
from sockservice.trust import Secured, refusal

#: Schemes of ours, or of Twisted's endpoints; any other word before a number is a host.
SCHEMES = (
    *("tcp", "tcp6", "tls", "ssl", "unix", "udp", "unix-datagram", "unix-seqpacket"),
    *("fd", "haproxy", "stdio", "systemd"),
)
#: Seconds until a UNIX socket is tried again that had no room for one more to wait.
QUEUED = 0.05

# In a client endpoint string of Twisted's, where a backslash stands before what means something.
_PRIVATE_KEY = re.compile(r":privateKey=((?:\\.|[^:\\])+)")


def connect(
    reactor: Any,
    target: str,
    *,
    timeout: float = 30.0,
    framing: Callable[[int], Framing] = Framer,
    ending: bytes = LF,
    **how: Any,
) -> Deferred[Any]:
    """Connect to `target`; gives a Deferred of a LineClient or, for datagrams, a DatagramClient.

    `tcp:HOST:PORT`, also written `HOST:PORT`, `tls:HOST:PORT` and `udp:HOST:PORT` take a
    name, an IPv4 address or an IPv6 address in brackets; `unix:PATH`,
    `unix-datagram:PATH` and `unix-seqpacket:PATH` a UNIX socket; anything else is one
    of Twisted's client endpoint strings.

    `framing` is the server's, where that is not lines; lines end in `ending`. `how` may
    hold `source`, the address of ours to connect from, and for `tls:`

    - `verify`: False to take any certificate, and so any server, for the right one;
    - `cafile`: a PEM file of the certificates to trust in place of the system's;
    - `cert`, `key`: PEM files of the certificate to show, and its key if it is not there.

    The Deferred fails with a ConnectError of Twisted's, whose `osError` is the number,
    if it has one; with TCPTimedOutError after `timeout` seconds; with ValueError when
    `target` or `how` makes no sense. :func:`explained` puts each in one line.
    """
    try:
        if isDatagram(target):
            return _datagrams(reactor, target, timeout, **how)
        endpoint = streamEndpoint(reactor, target, timeout=timeout, **how)
    except ValueError:
        return fail(Failure())
    if target.startswith("unix-seqpacket:"):
        framing = Packets
    connecting: Deferred[Any] = endpoint.connect(
        Factory.forProtocol(partial(LineClient, reactor, framing, ending))
    )
    return connecting


def isDatagram(target: str) -> bool:
    """Say whether `target` takes datagrams, which have no connection."""
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
    """Give the client endpoint that `target` describes; see :func:`connect`.

    :raises ValueError: It describes none, or a stream to which the rest does not apply.
    """
    scheme, _, rest = target.partition(":")
    if re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*):[0-9]+", target) and scheme not in SCHEMES:
        scheme, rest = "tcp", target
    plain = re.search(r":[0-9]+$|^[^:=]*$", rest) and "=" not in rest
    if scheme == "tls" and plain:
        host, port = hostAndPort(rest)
        endpoint = _inet(reactor, host, port, timeout, source)
        secured = Secured(endpoint, host, verify=verify, cafile=cafile, cert=cert, key=key)
        return _Timed(reactor, secured, timeout)
    if not verify or cafile or cert or key:
        raise ValueError("what is said of TLS applies to tls:HOST:PORT alone")
    if scheme == "tcp" and (plain or rest.count("=") == 0):
        return _Timed(reactor, _inet(reactor, *hostAndPort(rest), timeout, source), timeout)
    if source is not None:
        raise ValueError("a source address applies to tcp:, tls: and udp:HOST:PORT alone")
    if scheme == "unix-seqpacket":
        packets = _Queued(reactor, _PacketEndpoint(reactor, _path(rest)))
        return _Timed(reactor, packets, timeout)
    if scheme == "unix" and ":" not in rest and not rest.startswith(("path=", "address=")):
        queued = _Queued(reactor, UNIXClientEndpoint(reactor, _path(rest), None))
        return _Timed(reactor, queued, timeout)
    try:
        for path in _PRIVATE_KEY.findall(target):
            # Twisted would have OpenSSL ask on the terminal for what decrypts it.
            pem.key(re.sub(r"\\(.)", r"\1", path))
        return _Timed(reactor, clientFromString(reactor, target), timeout)
    except Exception as problem:
        # The endpoints' constructors complain in ways of their own.
        if scheme == "unix" and isinstance(problem, TypeError):
            raise ValueError("a colon in a path is written \\:") from problem
        hint = "" if scheme in SCHEMES else "; a host is written HOST:PORT, IPv6 in brackets"
        raise ValueError(f"{problem}{hint}") from problem


def explained(problem: BaseException) -> str:
    """Say on one line why a connection could not be made."""
    if refused := refusal(problem):
        return refused
    # Twisted says the number and the words of an OSError twice.
    number = getattr(problem, "osError", None)
    words = problem.args[0] if problem.args else ""
    if isinstance(number, int):
        return words if words and isinstance(words, str) else os.strerror(number)
    return " ".join(str(problem).split())


def hostAndPort(text: str) -> tuple[str, int]:
    """Read `HOST:PORT`, IPv6 in brackets.

    :raises ValueError: It is something else.
    """
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"write an IPv6 address in brackets: [{host}]:{port}")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def _path(text: str) -> str:
    if not text or len(os.fsencode(text)) > 107:
        raise ValueError("the path of a UNIX socket has 1 to 107 bytes")
    return text


def _inet(reactor: Any, host: str, port: int, timeout: float, source: str | None) -> Any:
    bound = None if source is None else (_address(source), 0)
    if source is not None and _version(host) not in (None, _version(source)):
        raise ValueError(f"{host} is not of the family of the source address {source}")
    if "%" in host:
        # The resolver would drop the scope. It is no name, so nothing need be resolved.
        try:
            socket.getaddrinfo(_address(host), port, flags=socket.AI_NUMERICHOST)
        except socket.gaierror as error:
            raise ValueError(f"{host}: {error.strerror}") from error
        return TCP6ClientEndpoint(reactor, host, port, timeout, bound)
    return HostnameEndpoint(reactor, host, port, timeout, bound)


def _version(text: str) -> int | None:
    """Give the version of IP that an address is of; None for what is none."""
    try:
        return ipaddress.ip_address(text).version
    except ValueError:
        return None


def _address(text: str) -> str:
    if _version(text) is None:
        raise ValueError(f"{text!r} is no IP address")
    return text


@implementer(IStreamClientEndpoint)
class _Timed:
    """An endpoint that gives up after `timeout` seconds, the time for names and TLS included."""

    def __init__(self, reactor: Any, endpoint: Any, timeout: float) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._timeout = timeout

    def connect(self, factory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addTimeout(self._timeout, self._reactor, _timedOut)


def _timedOut(result: Any, timeout: float) -> Any:
    if isinstance(result, Failure):
        raise TCPTimedOutError(errno.ETIMEDOUT, f"not connected within {timeout:g} seconds")
    return result


@implementer(IStreamClientEndpoint)
class _Queued:
    """The endpoint of a UNIX socket, tried again while as many wait for its server as may."""

    def __init__(self, reactor: Any, endpoint: Any) -> None:
        self._reactor = reactor
        self._endpoint = endpoint

    def connect(self, factory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addErrback(self._again, factory)

    def _again(self, failure: Failure, factory: Any) -> Any:
        error = failure.check(ConnectError) and failure.value
        said = getattr(error, "args", None) or (None,)
        # Twisted takes it for the end of a connection.
        closed = isinstance(said[0], Failure) and said[0].check(ConnectionDone)
        if closed or getattr(error, "osError", None) == errno.EAGAIN:
            return deferLater(self._reactor, QUEUED, self.connect, factory)
        return failure


@implementer(IStreamClientEndpoint)
class _PacketEndpoint:
    """A UNIX socket of the type SOCK_SEQPACKET."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self._path = path

    def connect(self, factory: Any) -> Deferred[Any]:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connected.setblocking(False)
        try:
            connected.connect(self._path)
        except OSError as error:
            connected.close()
            return fail(ConnectError(error.errno, error.strerror or str(error)))
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(
            PacketServer(connected, protocol, self._path, None, 0, self._reactor)
        )
        return succeed(protocol)


@inlineCallbacks
def _datagrams(
    reactor: Any,
    target: str,
    timeout: float,
    source: str | None = None,
    verify: bool = True,
    **tls: str | None,
) -> Any:
    scheme, _, rest = target.partition(":")
    if not verify or any(tls.values()):
        raise ValueError("what is said of TLS applies to tls:HOST:PORT alone")
    if scheme == "unix-datagram":
        if source is not None:
            raise ValueError("a source address applies to tcp:, tls: and udp:HOST:PORT alone")
        return _datagramClient(reactor, socket.AF_UNIX, _path(rest), None)
    host, port = hostAndPort(rest)
    bound = None if source is None else _resolved(_address(source), 0)[0]
    resolving = deferToThreadPool(reactor, reactor.getThreadPool(), _resolved, host, port)
    resolving.addTimeout(timeout, reactor, _timedOut)
    try:
        found = yield resolving
    except socket.gaierror as error:
        raise DNSLookupError(f"{host}: {error.strerror}") from error
    except UnicodeError as error:
        raise ValueError(f"invalid hostname: {host}") from error
    if bound is not None:
        found = [each for each in found if each[0] == bound[0]]
        if not found:
            raise ConnectError(errno.EAFNOSUPPORT, f"{host} has no address of the source's family")
    family, _, _, _, peer = found[0]
    return _datagramClient(reactor, family, peer, bound and bound[4])


def _resolved(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host, port, 0, socket.SOCK_DGRAM)


def _datagramClient(reactor: Any, family: int, peer: Any, source: Any) -> DatagramClient:
    connected = socket.socket(family, socket.SOCK_DGRAM)
    connected.setblocking(False)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    try:
        if family == socket.AF_UNIX:
            # A name, which the system chooses, is needed to get a reply; unix(7), autobind.
            connected.bind("")
        elif source is not None:
            connected.bind(source)
        # Connected, so that a refusal (ICMP port unreachable) is reported.
        connected.connect(peer)
    except OSError as error:
        connected.close()
        raise ConnectError(error.errno, error.strerror or str(error)) from error
    client = DatagramClient(reactor, peer)
    DatagramPort(reactor, connected, client).startListening()
    return client
