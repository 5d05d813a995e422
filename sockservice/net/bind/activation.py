"""Socket activation: use sockets that systemd has bound; sd_listen_fds(3)."""

import os
import socket
from collections.abc import Mapping

from sockservice.errors import CannotListen
from sockservice.net.bind.bound import Bound

_FIRST_ACTIVATED = 3  # SD_LISTEN_FDS_START; sd_listen_fds(3)


def _startedWith() -> dict[str, str]:
    """Return the environment as it was when this process started.

    Importing Twisted's endpoints takes LISTEN_PID and LISTEN_FDS out of os.environ.
    """
    with open("/proc/self/environ", "rb") as file:
        pairs = (os.fsdecode(each).partition("=") for each in file.read().split(b"\0"))
        return {name: value for name, _, value in pairs}


def activated(options: Mapping[str, str]) -> Bound:
    """Return the socket that systemd, or a similar program, passed to this process.

    `options` select it: `index` (from 0, the default), or `name` as in LISTEN_FDNAMES.
    The rules are those of sd_listen_fds(3).

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
    # A duplicate: closing it leaves the passed one for the next call.
    return Bound(socket.socket(fileno=os.dup(_FIRST_ACTIVATED + index)))
