"""Bind UNIX sockets in the file system; unix(7)."""

import errno
import grp
import os
import pwd
import re
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sockservice.errors import CannotListen
from sockservice.net.addresses import pathName
from sockservice.net.bind.bound import Bound
from sockservice.net.bind.unbound import unbound

_PATH_LONGEST = 107  # bytes; unix(7), sun_path


def local(path: str, kind: socket.SocketKind, options: Mapping[str, str]) -> Bound:
    """Bind a UNIX socket at `path`, replacing the file of a crashed process.

    `options` may set `mode` (octal; default 666, as Twisted's), `user` and `group`.

    :raises CannotListen: Nothing remains bound.
    """
    place, (mode, user, group) = checked(path, options)
    encoded = os.fsencode(path)
    made = unbound(place, socket.AF_UNIX, kind)
    try:
        # Nobody can connect before the mode is set.
        with _umask(0o777):
            try:
                made.bind(encoded)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                _takeOver(encoded, kind)
                made.bind(encoded)
        if kind != socket.SOCK_DGRAM:
            # At once, lest another process take the file for that of a crashed one.
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


def checked(path: str, options: Mapping[str, str]) -> tuple[str, tuple[int, int, int]]:
    """Return what an error says first, and mode, user and group, if all of it can be.

    :raises CannotListen: It can't.
    """
    place = f"cannot listen on {pathName(path) if path else 'unix:'}"
    length = len(os.fsencode(path))
    if not 1 <= length <= _PATH_LONGEST:
        raise CannotListen(
            f"{place}: a socket's path has 1 to {_PATH_LONGEST} bytes, this one {length}"
        )
    return place, _ownership(place, options)


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
    """Remove a socket file on which nobody listens."""
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
            pass  # a process listens, and its backlog is full
    raise OSError(errno.EADDRINUSE, "another program or listener has it")


def _localCause(error: OSError, path: str) -> str:
    folder = os.path.dirname(path) or "."
    if error.errno == errno.ENOENT and not os.path.isdir(folder):
        return f"there is no folder {pathName(folder)}"
    if error.errno == errno.EPROTOTYPE:
        return "another program listens there, with another type of socket"
    if error.errno in (errno.EEXIST, errno.EADDRINUSE):
        return error.strerror or ""
    return f"{os.strerror(error.errno or 0)}"
