"""Make the sockets that are to be bound, or say in one line why there are none."""

import errno
import os
import resource
import socket

from sockservice.errors import CannotListen

_FAMILIES = {
    socket.AF_INET: "IPv4",
    socket.AF_INET6: "IPv6",
    socket.AF_UNIX: "UNIX sockets",
    socket.AF_PACKET: "packet sockets",
}


def unbound(
    place: str, family: socket.AddressFamily, kind: socket.SocketKind, protocol: int = 0
) -> socket.socket:
    """Return a new socket for `place`, a listener as an error names it.

    :raises CannotListen: The system gives none.
    """
    try:
        return socket.socket(family, kind, protocol)
    except OSError as error:
        raise CannotListen(f"{place}: {_cause(error, family)}") from error


def _cause(error: OSError, family: socket.AddressFamily) -> str:
    if error.errno in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
        return f"this system has no {_FAMILIES[family]}"
    if error.errno == errno.EMFILE:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"too many open files; {most} are allowed (ulimit -n, LimitNOFILE=)"
    return os.strerror(error.errno or 0)
