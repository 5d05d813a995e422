"""A bound socket, with its name for the log and its file, if it is a UNIX socket."""

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from sockservice.errors import CannotListen
from sockservice.net.addresses import hostPort, pathName
from sockservice.net.bind.options import SocketOption


class Bound:
    """A bound socket, and its file in the file system, if it has one.

    `spreads`: others can be bound to the same address, to share the load.
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
        return pathName(address)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Have an OSError of the socket say where it was to listen.

        :raises CannotListen: There was one.
        """
        try:
            yield
        except OSError as error:
            raise CannotListen(f"cannot listen on {self.name}: {error.strerror}") from error

    def set(self, options: Iterable[SocketOption]) -> None:
        """Set socket options, those for TCP on TCP sockets, those for IPv6 on IPv6 sockets.

        :raises CannotListen: The system rejects one.
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
        """Close the socket and remove its file, unless that has been replaced."""
        self.socket.close()
        if self._path is not None:
            # It may be gone, or in a folder to which the user we have become has no access.
            with suppress(OSError):
                if os.stat(self._path).st_ino == self._file:
                    os.unlink(self._path)
