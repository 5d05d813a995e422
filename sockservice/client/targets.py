"""Connect to a target, written as an endpoint is on the server."""

import re
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, TypedDict, TypeVar, Unpack, overload

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import UNIXClientEndpoint, clientFromString
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from sockservice.client.datagram import DatagramClient
from sockservice.client.endpoints import Describing, PacketEndpoint, Queued, Timed
from sockservice.client.hostport import hostAndPort, pathOf
from sockservice.client.line import LineClient
from sockservice.client.proxy import Proxy
from sockservice.client.resolving import Resolving
from sockservice.client.udp import connectDatagrams
from sockservice.client.way import Way
from sockservice.net.tls import pem
from sockservice.net.tls.client import Secured, Terms
from sockservice.wire.chunks import Packets
from sockservice.wire.framer import Framer
from sockservice.wire.framing import LF, Framing
from sockservice.wire.relpclient import RelpReplies

#: The class of a client.
Client = TypeVar("Client", bound=LineClient | DatagramClient)

#: Our schemes and those of Twisted's endpoints; any other word before a number is a host.
SCHEMES = (
    *("tcp", "tcp6", "tls", "ssl", "unix", "udp", "unix-datagram", "unix-seqpacket"),
    *("relp", "fd", "haproxy", "stdio", "systemd"),
)

# In a client endpoint string of Twisted's, where a backslash escapes special characters.
_PRIVATE_KEY = re.compile(r":privateKey=((?:\\.|[^:\\])+)")


#: Why an argument for TLS is an error.
NO_TLS = "what is said of TLS applies to tls:HOST:PORT alone"


class How(TypedDict, total=False):
    """The keywords of :func:`connect`, which says what they are."""

    timeout: float
    framing: Callable[[int], Framing]
    ending: bytes
    greeting: bool
    source: str | None
    ip: int | None
    proxy: str | None
    told: Callable[[list[str]], object] | None
    verify: bool
    cafile: str | None
    cert: str | None
    key: str | None
    serverName: str | None
    tlsMin: str | None
    alpn: tuple[str, ...]


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
    name, an IPv4 address or an IPv6 address in brackets, and so does `relp:HOST:PORT`, where
    lines are messages of RELP over TCP; `unix:PATH`,
    `unix-datagram:PATH` and `unix-seqpacket:PATH` a UNIX socket; anything else is one
    of Twisted's client endpoint strings.

    `protocol` is which of the two it has to be, or a subclass of one: then a type checker
    knows it as well. `framing` is the server's, where that is not lines; lines end in
    `ending`. With `greeting`, the first line that the server sends is no reply: the Deferred
    fires when it is there, at most `timeout` seconds after the connection. `how` may hold

    - `source`: the address of ours to connect from;
    - `ip`: 4 or 6, for this version of IP alone;
    - `proxy`: `socks5://[USER:PASSWORD@]HOST:PORT` or `http://…`, through which `tcp:` and `tls:`
      connect; it looks up the name, and `source` and `ip` are for the connection to it;
    - `told`: is called with lines of text on each connection that is made, such as the address;

    and for `tls:`

    - `verify`: False to accept any certificate, and so any server;
    - `cafile`: a PEM file of the certificates to trust instead of the system's;
    - `cert`, `key`: PEM files of the certificate to present, and of its key if separate;
    - `serverName`: the name to ask for (SNI) and to verify, where it is not the target's host;
    - `tlsMin`: the lowest version of TLS to accept, "1.2" (the default) or "1.3";
    - `alpn`: names of protocols to offer, best first; the server may choose one (RFC 7301).

    The Deferred fails with a ConnectError of Twisted's, whose `osError` is the number,
    if it has one; with TCPTimedOutError after `timeout` seconds; with :class:`TimedOut` or
    :class:`Unanswered` when no greeting comes; with ValueError when `target`, `protocol` or
    `how` is invalid. :func:`explained` describes each in one line.

    :raises RuntimeError: An asyncio loop runs, and the reactor does not: nothing would come.
    """
    _runs(reactor)
    try:
        if isDatagram(target):
            if greeting:
                raise ValueError("datagrams have no connection that begins with a greeting")
            made = _checked(target, protocol, DatagramClient)
            return connectDatagrams(reactor, target, timeout, made, **_unsecured(how))
        made = _checked(target, protocol, LineClient)
        endpoint = streamEndpoint(reactor, target, timeout=timeout, **how)
    except ValueError:
        return fail(Failure())
    framing = framingOf(target) or framing
    connecting: Deferred[Any] = endpoint.connect(
        Factory.forProtocol(partial(made, reactor, framing, ending, greeting))
    )
    if greeting:
        connecting.addCallback(_greeted, timeout)
    return connecting


def _runs(reactor: Any) -> None:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or getattr(reactor, "running", True):
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "asyncio runs here, and Twisted's reactor does not: install "
        "twisted.internet.asyncioreactor, run the program with twisted.internet.task.react "
        "instead of asyncio.run, and await Deferreds as .asFuture(loop)"
    )


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


def framingOf(target: str) -> Callable[[int], Framing] | None:
    """Return the framing that `target` has whatever else is said; None if it has none."""
    if target.startswith("unix-seqpacket:"):
        return Packets
    return RelpReplies if target.startswith("relp:") else None


def applicable(target: str) -> set[str]:
    """Return the keywords of :func:`connect` that can apply to `target`."""
    found = {"timeout", "greeting", "framing", "ending", "told"}
    scheme, rest = _schemed(target)
    if isDatagram(target):
        found.remove("greeting")
    if scheme in ("tcp", "udp", "tls") and "=" not in rest:
        found |= {"source", "ip"} if scheme == "udp" else {"source", "ip", "proxy"}
    if scheme == "tls" and "=" not in rest:
        found |= {each.name for each in fields(Terms)}
    return found


def _schemed(target: str) -> tuple[str, str]:
    """Return the scheme of a target and what is behind it."""
    scheme, _, rest = target.partition(":")
    if re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*):[0-9]+", target) and scheme not in SCHEMES:
        return "tcp", target
    if scheme == "relp":
        return "tcp", rest
    return scheme, rest


def _unsecured(how: dict[str, Any]) -> dict[str, Any]:
    """Return `how` without what is said of TLS, which has to be nothing.

    :raises ValueError: Something is.
    """
    plain = {"source", "ip", "told"}
    Way(proxy=how.pop("proxy", None)).none()
    secured = {name: how[name] for name in how if name not in plain}
    if Terms(**secured) != Terms():
        raise ValueError(NO_TLS)
    return {name: how[name] for name in how if name in plain}


def streamEndpoint(
    reactor: Any,
    target: str,
    *,
    timeout: float = 30.0,
    source: str | None = None,
    ip: int | None = None,
    proxy: str | None = None,
    told: Callable[[list[str]], object] | None = None,
    **tls: Any,
) -> Any:
    """Return the client endpoint that `target` describes; see :func:`connect`.

    :raises ValueError: It describes none, or one to which the other arguments do not apply.
    """
    terms = Terms(**tls)
    made = _stream(reactor, target, Way(source, ip, proxy), terms)
    if told is not None:
        made = Describing(made, told, proxy and [f"which is the proxy {Proxy.parse(proxy)}"])
    return Timed(reactor, made, timeout)


def _stream(reactor: Any, target: str, way: Way, terms: Terms) -> Any:
    scheme, rest = _schemed(target)
    plain = re.search(r":[0-9]+$|^[^:=]*$", rest) and "=" not in rest
    if scheme == "tls" and plain:
        host, port = hostAndPort(rest)
        return Secured(way.endpoint(reactor, host, port), host, terms)
    if terms != Terms():
        raise ValueError(NO_TLS)
    if scheme == "tcp" and (plain or rest.count("=") == 0):
        return way.endpoint(reactor, *hostAndPort(rest))
    way.none()
    if scheme == "unix-seqpacket":
        return Queued(reactor, PacketEndpoint(reactor, pathOf(rest)))
    if scheme == "unix" and ":" not in rest and not rest.startswith(("path=", "address=")):
        return Queued(reactor, UNIXClientEndpoint(reactor, pathOf(rest), None))
    try:
        for path in _PRIVATE_KEY.findall(target):
            # Twisted would let OpenSSL ask for the passphrase on the terminal.
            pem.key(re.sub(r"\\(.)", r"\1", path))
        return Resolving(reactor, lambda ours: clientFromString(ours, target))
    except Exception as problem:
        # The constructors of endpoints raise what they like.
        if scheme == "unix" and isinstance(problem, TypeError):
            raise ValueError("a colon in a path is written \\:") from problem
        hint = "" if scheme in SCHEMES else "; a host is written HOST:PORT, IPv6 in brackets"
        raise ValueError(f"{problem}{hint}") from problem
