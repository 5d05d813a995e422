"""Decode the source of a datagram, and its destination for the reply; ip(7), ipv6(7)."""

import socket
import struct
from typing import Any

# Missing from Python 3.11's socket module; linux/in.h.
IP_PKTINFO = 8

_IPV4 = struct.Struct("!2xH4s8x")  # struct sockaddr_in; ip(7)
_IPV6 = struct.Struct("!2xHI16s")  # struct sockaddr_in6, its scope left out; ipv6(7)
_SCOPE = struct.Struct("=I")
_HEADER = struct.Struct("@Nii")  # length, level, kind; cmsg(3)
_IN_PKTINFO = struct.Struct("=I4s4s")  # interface, our address, its destination; ip(7)
_IN6_PKTINFO = struct.Struct("=16sI")  # its destination, interface; RFC 3542, 6.2
_LINK_LOCAL = b"\xfe\x80"


class Source(tuple[Any, ...]):
    """The source of a datagram, as a socket address, and how a reply gets there."""

    #: The address in the system's format.
    raw = b""
    #: Control message that sends a reply from the address the datagram was sent to.
    origin: tuple[int, int, bytes] | None = None
    #: The same in the system's format.
    control = b""
    #: Whether a reply could go to many hosts: the datagram was sent to many, or its source is
    #: not a single host.
    toMany = False


def source(raw: bytes, control: bytes) -> Source:
    """Decode a socket address, IPv4 or IPv6, and the control messages received with it."""
    wide = len(raw) == 28
    if wide:
        port, flow, host = _IPV6.unpack_from(raw)
        (scope,) = _SCOPE.unpack_from(raw, 24)
        made = Source((socket.inet_ntop(socket.AF_INET6, host), port, flow, scope))
    else:
        port, host = _IPV4.unpack(raw)
        made = Source((socket.inet_ntop(socket.AF_INET, host), port))
    made.raw = raw
    made.toMany = not unicast(made[0])
    for level, kind, data in _messages(control):
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            target, interface = _IN6_PKTINFO.unpack(data)
            made.toMany = made.toMany or target[0] == 0xFF
            if not target.startswith(_LINK_LOCAL):
                interface = 0  # whichever has a route
            made.origin = level, kind, _IN6_PKTINFO.pack(target, interface)
        elif level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            _, ours, target = _IN_PKTINFO.unpack(data)
            made.toMany = made.toMany or ours != target
            if not wide:
                made.origin = level, kind, _IN_PKTINFO.pack(0, ours, target)
    if made.origin is not None:
        level, kind, data = made.origin
        made.control = _HEADER.pack(_HEADER.size + len(data), level, kind) + data
        made.control += bytes(-len(data) % _HEADER.size)
    return made


def _messages(control: bytes) -> list[tuple[int, int, bytes]]:
    messages = []
    while control:
        length, level, kind = _HEADER.unpack_from(control)
        messages.append((level, kind, control[_HEADER.size : length]))
        control = control[length + -length % struct.calcsize("N") :]
    return messages


def unicast(host: str) -> bool:
    """Return whether an IP address is that of one host: not broadcast, multicast or reserved."""
    if host.startswith("ff"):
        return False
    if "." in host:
        first = int(host.rpartition(":")[2].partition(".")[0])
        return 0 < first < 224
    return True
