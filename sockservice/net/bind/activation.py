"""Socket activation: use sockets that systemd has bound; sd_listen_fds(3)."""

import fcntl
import os
import socket
from collections.abc import Mapping
from enum import Enum

from sockservice.errors import CannotListen
from sockservice.net.bind.bound import Bound
from sockservice.wire.plurals import counted

_FIRST_ACTIVATED = 3  # SD_LISTEN_FDS_START; sd_listen_fds(3)


_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
#: The protocols of TCP, MPTCP and UDP sockets; IANA, and linux/in.h.
_PROTOCOLS = {socket.SOCK_STREAM: (6, 262), socket.SOCK_DGRAM: (17,)}


def activated(options: Mapping[str, str]) -> Bound:
    """Return the socket that systemd, or a similar program, passed to this process.

    `options` select it: `index` (from 0, the default), or `name` as in LISTEN_FDNAMES.
    The rules are those of sd_listen_fds(3).

    :raises CannotListen: There is no such socket, or it is none that can be served.
    """
    environment = _startedWith()
    if not passed(environment):
        raise CannotListen(
            "systemd: no socket was passed to this process (LISTEN_PID says so); it has to be "
            "the one that was started: use twistd -n"
        )
    said = environment.get("LISTEN_FDS", "")
    if not (said.isascii() and said.isdigit() and len(said) < 9):
        raise CannotListen(f"systemd: LISTEN_FDS={said!a} is no number of sockets")
    count = int(said)
    if "name" in options:
        index = _named(options["name"], environment.get("LISTEN_FDNAMES", "").split(":")[:count])
        which = f"name={ascii(options['name'])[1:-1]}"
    else:
        text = options.get("index", "0")
        if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) < count):
            raise CannotListen(f"systemd: no socket of index {text!a}; {count} were passed")
        index = int(text)
        which = f"index={index}"
    made = _passed(_FIRST_ACTIVATED + index, which)
    wrong = _unservable(made)
    if wrong:
        made.close()
        raise CannotListen(f"systemd:{which}: {wrong}")
    return Bound(made)


def passed(environment: Mapping[str, str] | None = None) -> bool:
    """Return whether sockets were passed to this very process."""
    given = _startedWith() if environment is None else environment
    return given.get("LISTEN_PID") == str(os.getpid())


def _startedWith() -> dict[str, str]:
    """Return the environment as it was when this process started.

    Importing Twisted's endpoints takes LISTEN_PID and LISTEN_FDS out of os.environ.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            pairs = (os.fsdecode(each).partition("=") for each in file.read().split(b"\0"))
            return {name: value for name, _, value in pairs}
    except OSError as problem:
        # Such as below --chroot.
        raise CannotListen(f"systemd: /proc/self/environ: {problem.strerror}") from problem


def _named(name: str, names: list[str]) -> int:
    """Return the index of the only socket of this name."""
    if name not in names:
        raise CannotListen(f"systemd: no socket named {name!a} was passed")
    if names.count(name) > 1:
        having = ", ".join(str(index) for index, each in enumerate(names) if each == name)
        are = counted(names.count(name), "socket is", "sockets are")
        raise CannotListen(f"systemd: {are} named {name!a}; choose by index: {having}")
    return names.index(name)


def _passed(descriptor: int, which: str) -> socket.socket:
    try:
        # A duplicate: closing it leaves the passed one for the next call.
        copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 0)
    except OSError as error:
        raise CannotListen(f"systemd:{which}: descriptor {descriptor}: {error.strerror}") from error
    try:
        return socket.socket(fileno=copy)
    except OSError as error:
        os.close(copy)
        raise CannotListen(f"systemd:{which}: it is no socket") from error


def _unservable(made: socket.socket) -> str:
    """Return why a socket is none that can be served; empty if it can."""
    if made.family not in _FAMILIES:
        return f"it is of the family {_name(made.family)}; IPv4, IPv6 and UNIX are served"
    packets = made.type == socket.SOCK_SEQPACKET and made.family == socket.AF_UNIX
    if not (made.type in _PROTOCOLS or packets):
        return f"it is of the type {_name(made.type)}, which is not served"
    if made.family != socket.AF_UNIX and made.proto not in _PROTOCOLS[made.type]:
        return f"it is of IP protocol {made.proto}; TCP and UDP are served"
    try:
        made.getpeername()
    except OSError:
        pass
    else:
        return "it is connected; what is served are listening sockets (Accept=no)"
    if made.type != socket.SOCK_DGRAM:
        listens = made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return "" if listens else "it does not listen"
    at = made.getsockname()
    bound = at[1] if isinstance(at, tuple) else at
    return "" if bound else "it is bound to no address"


def _name(found: int) -> str:
    return found.name if isinstance(found, Enum) else str(found)
