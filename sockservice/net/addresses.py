"""Format addresses."""

import os
import socket
from typing import Any, NamedTuple

from twisted.internet.interfaces import IAddress
from zope.interface import implementer


@implementer(IAddress)
class LocalPeer(NamedTuple):
    """The process at the other end of a UNIX socket, as the kernel knows it."""

    pid: int
    uid: int
    gid: int


def scoped(address: tuple[Any, ...]) -> str:
    """Return the host of an IPv6 socket address, with its scope if it has one (RFC 4007, 11)."""
    host, _, _, scope = address
    return f"{host}%{socket.if_indextoname(scope)}" if scope and "%" not in host else str(host)


def hostPort(host: str, port: int) -> str:
    """Return `HOST:PORT`, IPv6 in brackets (RFC 3986, 3.2.2).

    An IPv4-mapped IPv6 address is written as the IPv4 address.
    """
    if "." in host:
        host = host.removeprefix("::ffff:")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def pathName(path: str | bytes) -> str:
    """Return a UNIX socket's path on one line, the same in every locale.

    An abstract name begins with `@`, as ss(8) writes it; a socket that was not bound has
    none (unix(7)).
    """
    raw = os.fsencode(path)
    if raw.startswith(b"\0"):
        raw = b"@" + raw[1:]
    return ascii(raw.decode(errors="surrogateescape"))[1:-1] or "unix:unnamed"


def named(address: object) -> str:
    """Return an address of Twisted's, or of a socket, on one line."""
    if isinstance(address, (str, bytes)) or address is None:
        return pathName(address or "")
    if isinstance(address, LocalPeer):
        return f"unix:pid={address.pid},uid={address.uid}"
    if isinstance(address, tuple):
        return hostPort(*address[:2])
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if isinstance(host, str) and isinstance(port, int):
        return hostPort(host, port)
    # Anything else may contain bytes that a peer chose.
    return ascii(str(address))[1:-1]
