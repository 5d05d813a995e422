"""Sockets bound to what the service is told to listen on, or the reason why not."""

import errno
import grp
import ipaddress
import os
import pwd
import re
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

from sockservice.addresses import hostPort
from sockservice.starting import CannotStart

#: Bytes of datagrams the kernel may hold, as far as net.core.rmem_max lets it:
#: 64 of the longest.
RECEIVE_BUFFER = 4 * 1024 * 1024

_TRIES = 100  # to find a number that is free for TCP and for UDP
_PATH_LONGEST = 107  # bytes; unix(7), sun_path
_FIRST_ACTIVATED = 3  # SD_LISTEN_FDS_START; sd_listen_fds(3)

SocketAddress = tuple[Any, ...]


class CannotListen(CannotStart):
    """A listener cannot come up."""


class SocketOption(NamedTuple):
    """A socket option as `socketOption` reads it."""

    text: str
    level: int
    option: int
    value: int


_LEVELS = {
    "SO": socket.SOL_SOCKET,
    "IP": socket.IPPROTO_IP,
    "IPV6": socket.IPPROTO_IPV6,
    "TCP": socket.IPPROTO_TCP,
}


def socketOption(text: str) -> SocketOption:
    """Read `NAME=VALUE`: a name of Python's socket module, SO_, IP_, IPV6_ or TCP_.

    :raises ValueError: There is no such option, or the value is no whole number.
    """
    name, _, value = text.partition("=")
    level = _LEVELS.get(name.partition("_")[0])
    option = getattr(socket, name, None)
    if level is None or not isinstance(option, int):
        raise ValueError(f"{name!a} is no socket option (as SO_RCVBUF, TCP_NODELAY, IP_TOS)")
    try:
        return SocketOption(text, level, option, int(value))
    except ValueError:
        raise ValueError(f"{value!a} is no whole number") from None


class Bound:
    """A bound socket, and the file in the file system that is its name, if it made one.

    `spreads`: others can be bound to the same address, to share what comes.
    """

    def __init__(
        self, made: socket.socket, path: str | None = None, *, spreads: bool = False
    ) -> None:
        self.socket = made
        self.spreads = spreads
        self._path = path
        self._file = None if path is None else os.stat(path).st_ino

    @property
    def name(self) -> str:
        """The address it is bound to, as the log writes it."""
        address = self.socket.getsockname()
        if self.socket.family == socket.AF_PACKET:
            return str(address[0])
        if isinstance(address, tuple):
            return hostPort(*address[:2])
        return ascii(os.fsdecode(address))[1:-1]

    def set(self, options: Iterable[SocketOption]) -> None:
        """Set socket options, those for TCP on TCP sockets, those for IPv6 on IPv6 sockets.

        :raises CannotListen: The system does not take one.
        """
        levels = {socket.SOL_SOCKET}
        if self.socket.family in (socket.AF_INET, socket.AF_INET6):
            levels.add(socket.IPPROTO_IP)
            if self.socket.family == socket.AF_INET6:
                levels.add(socket.IPPROTO_IPV6)
            if self.socket.type == socket.SOCK_STREAM:
                levels.add(socket.IPPROTO_TCP)
        for text, level, option, value in options:
            if level not in levels:
                continue
            try:
                self.socket.setsockopt(level, option, value)
            except (OSError, OverflowError, TypeError) as error:
                reason = getattr(error, "strerror", None) or "the value is out of range"
                raise CannotListen(f"--socket-option {text} on {self.name}: {reason}") from error

    def close(self) -> None:
        """Close the socket and remove its file, unless that is another's by now."""
        self.socket.close()
        if self._path is not None:
            # It may be gone, or in a folder that is closed to whom we have become.
            with suppress(OSError):
                if os.stat(self._path).st_ino == self._file:
                    os.unlink(self._path)


def resolved(host: str) -> list[tuple[socket.AddressFamily, SocketAddress]]:
    """Give the families and socket addresses that an address or name stands for.

    :raises CannotListen: It stands for none.
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

    :raises CannotListen: Nothing is bound then.
    """
    with ExitStack() as undo:
        addresses = resolved(host)
        made = [_inet(undo, kind, *each, port, len(addresses) == 1) for each in addresses]
        undo.pop_all()
    return [Bound(each, spreads=True) for each in made]


def pairs(host: str, port: int) -> list[Bound]:
    """Bind a TCP and then a UDP socket at each address of `host`, all on one port number.

    Port 0 stands for any number that is free on all of them.

    :raises CannotListen: Nothing is bound then.
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
    made = undo.enter_context(socket.socket(family, kind))
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
            # At once: SO_REUSEADDR lets two bind, but only one listen.
            made.listen()
    except OSError as error:
        scheme = "tcp" if kind == socket.SOCK_STREAM else "udp"
        raise CannotListen(
            f"cannot listen on {scheme}:{hostPort(address[0], port)}: {_cause(error, port)}"
        ) from error
    return made


def _cause(error: OSError, port: int) -> str:
    """Say why binding failed, and what to do about it."""
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


def local(path: str, kind: socket.SocketKind, options: Mapping[str, str]) -> Bound:
    """Bind a UNIX socket at `path`, taking over a file that a crash left behind.

    `options` may say `mode` (octal; default 666, as Twisted's), `user` and `group`.

    :raises CannotListen: Nothing is made then.
    """
    place = f"cannot listen on {ascii(path)[1:-1]}"
    encoded = os.fsencode(path)
    if not encoded or len(encoded) > _PATH_LONGEST:
        raise CannotListen(
            f"{place}: a socket's path has 1 to {_PATH_LONGEST} bytes, this one {len(encoded)}"
        )
    mode, user, group = _ownership(place, options)
    made = socket.socket(socket.AF_UNIX, kind)
    try:
        # Nobody is let in before the mode is what it shall be.
        with _umask(0o777):
            try:
                made.bind(encoded)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                _takeOver(encoded, kind)
                made.bind(encoded)
        if kind != socket.SOCK_DGRAM:
            # At once, lest another take the file for one left behind.
            made.listen()
        os.chown(encoded, user, group)
        os.chmod(encoded, mode)
    except OSError as error:
        named = made.getsockname()
        made.close()
        if named:
            os.unlink(encoded)
        raise CannotListen(f"{place}: {_localCause(error, path)}") from error
    return Bound(made, path)


def _ownership(place: str, options: Mapping[str, str]) -> tuple[int, int, int]:
    said = options.get("mode", "666")
    if not re.fullmatch("0*[0-7]{1,3}", said):
        raise CannotListen(f"{place}: mode={ascii(said)[1:-1]} is no octal number")
    mode = int(said, 8)
    user = group = -1
    try:
        if "user" in options:
            user = pwd.getpwnam(options["user"]).pw_uid
        if "group" in options:
            group = grp.getgrnam(options["group"]).gr_gid
    except KeyError as unknown:
        raise CannotListen(f"{place}: {unknown.args[0]!s}") from None
    return mode, user, group


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _takeOver(path: bytes, kind: socket.SocketKind) -> None:
    """Remove a socket file that nobody listens on."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise FileExistsError(errno.EEXIST, "there is a file of that name, and it is no socket")
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # somebody listens, with a full backlog
    raise OSError(errno.EADDRINUSE, "another program listens there")


def _localCause(error: OSError, path: str) -> str:
    folder = os.path.dirname(path) or "."
    if error.errno == errno.ENOENT:
        return f"there is no folder {ascii(folder)[1:-1]}"
    if error.errno == errno.EPROTOTYPE:
        return "another program listens there, with another type of socket"
    if error.errno in (errno.EEXIST, errno.EADDRINUSE):
        return error.strerror or ""
    return f"{os.strerror(error.errno or 0)}"


def _startedWith() -> dict[str, str]:
    """Give the environment as it was when this process started.

    Importing Twisted's endpoints takes LISTEN_PID and LISTEN_FDS out of os.environ.
    """
    with open("/proc/self/environ", "rb") as file:
        pairs = (os.fsdecode(each).partition("=") for each in file.read().split(b"\0"))
        return {name: value for name, _, value in pairs}


def activated(options: Mapping[str, str]) -> Bound:
    """Take the socket that systemd, or a program like it, passed to this process.

    `options` say which: `index` (from 0), or `name` as in LISTEN_FDNAMES; index 0
    when they say nothing. sd_listen_fds(3) is the source of the rules.

    :raises CannotListen: There is no such socket.
    """
    environment = _startedWith()
    if environment.get("LISTEN_PID") != str(os.getpid()):
        raise CannotListen(
            "systemd: no socket was passed to this process (LISTEN_PID says so); it has to be "
            "the one that was started: use twistd -n"
        )
    count = int(environment["LISTEN_FDS"])
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    if "name" in options:
        if options["name"] not in names[:count]:
            raise CannotListen(f"systemd: no socket named {options['name']!a} was passed")
        index = names.index(options["name"])
    else:
        text = options.get("index", "0")
        if not (text.isascii() and text.isdigit() and int(text) < count):
            raise CannotListen(f"systemd: no socket of index {text!a}; {count} were passed")
        index = int(text)
    # A copy, so that closing it leaves the passed one to whoever asks again.
    return Bound(socket.socket(fileno=os.dup(_FIRST_ACTIVATED + index)))


def packet(interface: str) -> Bound:
    """Bind a socket that sees every frame of a network interface; packet(7).

    :raises CannotListen: There is no such interface, or no right to do so.
    """
    try:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    except PermissionError as error:
        raise CannotListen(f"raw:{interface}: needs root or CAP_NET_RAW") from error
    try:
        made.bind((interface, 0))
    except OSError as error:
        made.close()
        raise CannotListen(f"raw:{ascii(interface)[1:-1]}: {error.strerror}") from error
    return Bound(made)
