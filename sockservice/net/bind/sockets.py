"""The sockets that listeners ask for: bound, or planned, with nothing bound."""

import errno
import os
import socket
import stat
from collections.abc import Callable, Mapping
from typing import NamedTuple

from sockservice.errors import CannotListen
from sockservice.net.addresses import hostPort, pathName
from sockservice.net.bind import activation, inet, raw, unix
from sockservice.net.bind.bound import Bound
from sockservice.net.bind.inet import SocketAddress, resolved
from sockservice.net.bind.unbound import unbound


class Sockets(NamedTuple):
    """What gives a listener its sockets, one function for each kind.

    :raises CannotListen: There is none; nothing remains bound.
    """

    inet: Callable[[str, int, socket.SocketKind], list[Bound]]
    pairs: Callable[[str, int], list[Bound]]
    local: Callable[[str, socket.SocketKind, Mapping[str, str]], Bound]
    activated: Callable[[Mapping[str, str]], Bound]
    packet: Callable[[str], Bound]


#: Binds them.
BINDING = Sockets(inet.inet, inet.pairs, unix.local, activation.activated, raw.packet)


class Planned(Bound):
    """A socket that is bound to nothing, with the name that it would have."""

    def __init__(self, made: socket.socket, name: str) -> None:
        super().__init__(made)
        self._name = name

    @property
    def name(self) -> str:
        return self._name


class Plan:
    """Gives sockets that are bound to nothing, and finds what would keep them from being bound.

    Whether a port is free, and permitted, only binding would tell: the service that is to be
    reloaded may have it. What two listeners of one plan both want is an error.
    """

    def __init__(self) -> None:
        self._taken: set[tuple[socket.SocketKind, str]] = set()
        #: The type of sockets that systemd will pass: nobody knows it yet.
        self.passed = socket.SOCK_STREAM
        #: Whether such a socket was asked for.
        self.guessed = False

    @property
    def sockets(self) -> Sockets:
        """The functions that give them."""
        return Sockets(self.inet, self.pairs, self.local, self.activated, self.packet)

    def inet(self, host: str, port: int, kind: socket.SocketKind) -> list[Bound]:
        """As `inet` binds them; the host is resolved."""
        return [self._inet(kind, *each, port) for each in resolved(host)]

    def pairs(self, host: str, port: int) -> list[Bound]:
        """As `pairs` binds them."""
        kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        return [self._inet(kind, *each, port) for each in resolved(host) for kind in kinds]

    def local(self, path: str, kind: socket.SocketKind, options: Mapping[str, str]) -> Bound:
        """As `local` binds it; nothing is left in the file system."""
        place, _ = unix.checked(path, options)
        folder = os.path.dirname(path) or "."
        if not os.path.isdir(folder):
            raise CannotListen(f"{place}: there is no folder {pathName(folder)}")
        if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise CannotListen(f"{place}: there is a file of that name, and it is no socket")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise CannotListen(f"{place}: Permission denied")
        self._take(kind, os.path.abspath(path), place)
        return Planned(unbound(place, socket.AF_UNIX, kind), pathName(path))

    def activated(self, options: Mapping[str, str]) -> Bound:
        """As `activated` returns it, if sockets were passed to this process."""
        if activation.passed():
            return activation.activated(options)
        self.guessed = True
        which = f"index={options.get('index', '0')}"
        if "name" in options:
            which = f"name={options['name']}"
        which = ascii(which)[1:-1]
        made = unbound(f"systemd:{which}", socket.AF_INET, self.passed)
        return Planned(made, f"{which}, as soon as it is passed")

    def packet(self, interface: str) -> Bound:
        """As `packet` binds it."""
        place = f"raw:{ascii(interface)[1:-1]}"
        try:
            socket.if_nametoindex(interface)
        except OSError as problem:
            raise CannotListen(
                f"{place}: {os.strerror(problem.errno or errno.ENODEV)}"
            ) from problem
        return Planned(unbound(place, socket.AF_INET, socket.SOCK_DGRAM), interface)

    def _inet(
        self,
        kind: socket.SocketKind,
        family: socket.AddressFamily,
        address: SocketAddress,
        port: int,
    ) -> Bound:
        name = hostPort(address[0], port)
        place = f"cannot listen on {'tcp' if kind == socket.SOCK_STREAM else 'udp'}:{name}"
        if port:
            self._take(kind, name, place)
        return Planned(unbound(place, family, kind), name)

    def _take(self, kind: socket.SocketKind, name: str, place: str) -> None:
        if (kind, name) in self._taken:
            raise CannotListen(f"{place}: another listener has it")
        self._taken.add((kind, name))
