"""Bind TCP and UDP sockets at the addresses of a host."""

import errno
import ipaddress
import os
import socket
from contextlib import ExitStack
from typing import Any

from sockservice.errors import CannotListen
from sockservice.net.addresses import hostPort
from sockservice.net.bind.bound import Bound
from sockservice.net.bind.unbound import unbound

#: Bytes of datagrams that the kernel may queue, within net.core.rmem_max: 64 of the longest.
RECEIVE_BUFFER = 4 * 1024 * 1024

_TRIES = 100  # to find a number that is free for TCP and for UDP

SocketAddress = tuple[Any, ...]


def resolved(host: str) -> list[tuple[socket.AddressFamily, SocketAddress]]:
    """Return the families and socket addresses that an address or name resolves to.

    :raises CannotListen: It resolves to none.
    """
    hints = socket.AI_PASSIVE
    try:
        socket.getaddrinfo(host, 0, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        # A name may have addresses of a family that this host does not have.
        hints |= socket.AI_ADDRCONFIG
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=hints)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise CannotListen(f"host {host!a}: {reason}") from error
    # A host may be listed more than once.
    addresses: list[tuple[socket.AddressFamily, SocketAddress]] = list(
        dict.fromkeys((family, address) for family, _, _, _, address in found)
    )
    for _, address in addresses:
        ip = ipaddress.ip_address(address[0].partition("%")[0])
        if ip.is_multicast or address[0] == "255.255.255.255":
            raise CannotListen(f"host {host!a}: {ip} is no address of one host; choose another")
        if ip.version == 6 and ip.is_link_local and not address[3]:
            raise CannotListen(f"host {host!a}: name its interface, too: {ip}%eth0 or the like")
    return addresses


def inet(host: str, port: int, kind: socket.SocketKind) -> list[Bound]:
    """Bind a TCP or UDP socket at each address of `host`.

    :raises CannotListen: Nothing remains bound.
    """
    with ExitStack() as undo:
        addresses = resolved(host)
        made = [_inet(undo, kind, *each, port, len(addresses) == 1) for each in addresses]
        undo.pop_all()
    return [Bound(each, spreads=True) for each in made]


def pairs(host: str, port: int) -> list[Bound]:
    """Bind a TCP and then a UDP socket at each address of `host`, all on one port number.

    Port 0 is any number that is free on all of them.

    :raises CannotListen: Nothing remains bound.
    """
    addresses = resolved(host)
    single = len(addresses) == 1
    for attempt in range(_TRIES):
        number = port
        found = []
        with ExitStack() as undo:
            try:
                for family, address in addresses:
                    stream = _inet(undo, socket.SOCK_STREAM, family, address, number, single)
                    number = stream.getsockname()[1]
                    datagram = _inet(undo, socket.SOCK_DGRAM, family, address, number, single)
                    found += [Bound(stream, spreads=True), Bound(datagram, spreads=True)]
            except CannotListen as problem:
                cause = problem.__cause__
                clash = isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE
                if port or not clash or attempt == _TRIES - 1:
                    raise
                continue
            undo.pop_all()
            break
    return found


def _inet(
    undo: ExitStack,
    kind: socket.SocketKind,
    family: socket.AddressFamily,
    address: SocketAddress,
    port: int,
    single: bool,
) -> socket.socket:
    scheme = "tcp" if kind == socket.SOCK_STREAM else "udp"
    place = f"cannot listen on {scheme}:{hostPort(address[0], port)}"
    made = undo.enter_context(unbound(place, family, kind))
    if kind == socket.SOCK_STREAM:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    else:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    if family == socket.AF_INET6:
        # "::" is every address of both families, whatever net.ipv6.bindv6only says,
        # unless a name stands for an IPv4 address besides.
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not single)
    try:
        made.bind((address[0], port, *address[2:]))
        if kind == socket.SOCK_STREAM:
            # At once: with SO_REUSEADDR two sockets can be bound, but only one can listen.
            made.listen()
            if port:
                # It stays bound (tcp_disconnect in Linux), but nobody can connect before lines
                # can be stored. A number that the system chose is not known to anybody yet.
                made.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        raise CannotListen(f"{place}: {_cause(error, port)}") from error
    return made


def _cause(error: OSError, port: int) -> str:
    """Return why binding failed, and a remedy."""
    if error.errno == errno.EADDRINUSE:
        return (
            "the port is taken; choose another, or stop the program that "
            f"`ss -lntup 'sport = :{port}'` shows"
        )
    if error.errno in (errno.EACCES, errno.EPERM) and port < 1024:
        return (
            "not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE; "
            "or choose --port 5555"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return "this host has no such address; choose another"
    return os.strerror(error.errno or 0)
