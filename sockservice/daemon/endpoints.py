"""Parse endpoint strings, Twisted's and our own, and bind what they describe."""

import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from sockservice.errors import CannotListen
from sockservice.net.bind.bound import Bound
from sockservice.net.bind.reuseport import Ask, asked
from sockservice.net.bind.sockets import BINDING, Sockets
from sockservice.net.tls.server import Wrapping
from sockservice.server.proxy import ProxyFactory

Wrapped = Callable[[Any], Any]


def _asItIs(factory: Any) -> Any:
    return factory


@dataclass(frozen=True)
class BoundEndpoint:
    """A bound socket, and how it is to be served."""

    bound: Bound
    #: The endpoint's scheme, for the log.
    scheme: str
    #: Wraps the factory of a stream socket, in TLS or behind a proxy.
    wrapped: Wrapped = _asItIs
    backlog: int | None = None
    #: The TLS files, which its service can read again.
    tls: Wrapping | None = None

    @property
    def stream(self) -> bool:
        """Whether connections are accepted on it."""
        return self.bound.socket.type in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)

    @property
    def at(self) -> str:
        """Where it listens, as the log, counters and stores name it."""
        return f"{self.scheme}:{self.bound.name}"

    @property
    def usual(self) -> str:
        """The protocol served if none is named."""
        return "ack" if self.stream else "frames" if self.scheme == "raw" else "echo"

    def close(self) -> None:
        """Undo the binding."""
        self.bound.close()


@dataclass(frozen=True)
class Foreign:
    """A stream endpoint on which Twisted or one of its plugins listens."""

    endpoint: Any
    text: str
    scheme: str
    wrapped: Wrapped = _asItIs
    stream: ClassVar[bool] = True
    usual: ClassVar[str] = "ack"

    @property
    def at(self) -> str:
        """As a bound one's: of the address nothing is known yet."""
        return self.scheme

    def close(self) -> None:
        """Do nothing: nothing is bound yet."""


class _Words(NamedTuple):
    """A parsed endpoint string."""

    text: str
    scheme: str
    arguments: list[str]
    options: dict[str, str]


_TLS = ("privateKey", "certKey", "extraCertChain", "dhParameters", "sslmethod", "caCerts")
_FILE = ("mode", "user", "group")


def opened(
    text: str, reactor: Any, ask: Ask = asked, sockets: Sockets = BINDING
) -> list[BoundEndpoint | Foreign]:
    """Bind what the endpoint string `text` describes; `ask` supplies the sockets of `sockets`.

    :raises CannotListen: It cannot be bound, or is invalid.
    """
    if text.startswith("haproxy:"):
        if text == "haproxy:":
            raise CannotListen("bad endpoint haproxy:: it names no endpoint behind the proxy")
        return [_behindProxy(text, each) for each in opened(text[8:], reactor, ask, sockets)]
    words = _taken(text)
    if words.scheme in ("tcp", "tcp6", "ssl", "udp"):
        return _inet(words, ask, sockets)
    if words.scheme in ("unix", "unix-datagram", "unix-seqpacket"):
        return _local(words, ask, sockets)
    if words.scheme == "systemd":
        _only(words, 0, "domain", "index", "name")
        found = ask(lambda: [sockets.activated(words.options)])
        return [BoundEndpoint(bound, "systemd") for bound in found]
    if words.scheme == "raw":
        _only(words, 1)
        if not words.arguments:
            raise CannotListen(f"bad endpoint {words.text}: it names no interface")
        found = ask(lambda: [sockets.packet(words.arguments[0])])
        return [BoundEndpoint(bound, "raw") for bound in found]
    return [_foreign(text, reactor)]


def _behindProxy(text: str, inner: "BoundEndpoint | Foreign") -> "BoundEndpoint | Foreign":
    if isinstance(inner, BoundEndpoint) and not inner.stream:
        inner.bound.close()
        raise CannotListen(f"{text}: a PROXY header can only stand before a stream")
    before = inner.wrapped
    return replace(
        inner,
        scheme=f"haproxy:{inner.scheme}",
        wrapped=lambda factory: ProxyFactory(before(factory)),
    )


def _inet(words: _Words, ask: Ask, sockets: Sockets) -> list["BoundEndpoint | Foreign"]:
    kind, most = socket.SOCK_STREAM, ["interface", "backlog"]
    if words.scheme == "udp":
        kind, most = socket.SOCK_DGRAM, ["interface"]
    elif words.scheme == "ssl":
        most += _TLS
    _only(words, 1, "port", *most)
    port = _port(words, words.arguments[0] if words.arguments else words.options.get("port", ""))
    everywhere = "::" if words.scheme == "tcp6" else "0.0.0.0"
    backlog = _backlog(words)
    wrapping = Wrapping(words.options) if words.scheme == "ssl" else None
    host = words.options.get("interface") or everywhere
    return [
        BoundEndpoint(bound, words.scheme.removesuffix("6"), wrapping or _asItIs, backlog, wrapping)
        for bound in ask(lambda: sockets.inet(host, port, kind))
    ]


def _local(words: _Words, ask: Ask, sockets: Sockets) -> list["BoundEndpoint | Foreign"]:
    kind = {
        "unix": socket.SOCK_STREAM,
        "unix-datagram": socket.SOCK_DGRAM,
        "unix-seqpacket": socket.SOCK_SEQPACKET,
    }[words.scheme]
    # Twisted's lockfile detects stale socket files, which is done in another way here.
    backlog = () if words.scheme == "unix-datagram" else ("backlog",)
    _only(words, 1, "address", "lockfile", *backlog, *_FILE)
    path = words.arguments[0] if words.arguments else words.options.get("address", "")
    limit = _backlog(words)
    return [
        BoundEndpoint(bound, words.scheme, backlog=limit)
        for bound in ask(lambda: [sockets.local(path, kind, words.options)])
    ]


def _foreign(text: str, reactor: Any) -> Foreign:
    from twisted.internet.endpoints import serverFromString

    try:
        return Foreign(serverFromString(reactor, text), text, text.partition(":")[0])
    except Exception as problem:
        raise CannotListen(
            f"bad endpoint {ascii(text)[1:-1]}: {ascii(str(problem))[1:-1]}"
        ) from problem


def _taken(text: str) -> _Words:
    r"""Parse an endpoint string as Twisted does: `:` separates, `\` escapes."""
    parts = [""]
    keys: list[str | None] = [None]
    escaped = False
    for character in text:
        if escaped or character not in ":=\\" or (character == "=" and keys[-1] is not None):
            parts[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == ":":
            parts.append("")
            keys.append(None)
        else:
            keys[-1], parts[-1] = parts[-1], ""
    arguments = [part for key, part in zip(keys, parts, strict=True) if key is None]
    if arguments[1:] == [""]:
        arguments.pop()  # `systemd:`
    options = {key: part for key, part in zip(keys, parts, strict=True) if key is not None}
    if not arguments or not arguments[0]:
        said = ascii(text)[1:-1] if text else "''"
        raise CannotListen(f"bad endpoint {said}: it begins with no scheme")
    return _Words(ascii(text)[1:-1], arguments[0], arguments[1:], options)


def _only(words: _Words, arguments: int, *options: str) -> None:
    """Check that an endpoint has nothing that would be ignored."""
    for name in words.options:
        if name not in options:
            known = f"; it takes {', '.join(sorted(options))}" if options else ""
            raise CannotListen(f"bad endpoint {words.text}: no option {name}{known}")
    if len(words.arguments) > arguments:
        raise CannotListen(
            f"bad endpoint {words.text}: too many parts (a `:` inside one is written `\\:`)"
        )


def _port(words: _Words, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536:
        return int(text)
    raise CannotListen(f"bad endpoint {words.text}: {text!a} is not a port number")


def _backlog(words: _Words) -> int | None:
    text = words.options.get("backlog")
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise CannotListen(f"{words.text}: backlog={text} is not a number of connections")
