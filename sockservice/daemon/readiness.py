"""Tell whoever sends peers here whether the service is ready: a file, and systemd."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from twisted.logger import Logger

log = Logger()


class Readiness:
    """Whether the service is ready, told in a file that exists as long as it is.

    systemd is told as well, where it asks for it (sd_notify(3), `Type=notify`).
    """

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None else Path(path).absolute()
        self._ready = False

    def ready(self) -> None:
        """Lines can be taken, stored and answered."""
        if self._ready:
            return
        self._ready = True
        if self._path is not None:
            try:
                self._path.touch()
            except OSError as problem:
                log.error("--ready-file {path}: {why}", path=self._path, why=problem.strerror)
        _notify(b"READY=1")

    def unready(self) -> None:
        """Peers should be sent elsewhere."""
        if not self._ready:
            return
        self._ready = False
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
        _notify(b"STOPPING=1")


def _notify(state: bytes) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address.startswith(("/", "@")):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
            made.sendto(state, address.replace("@", "\0", 1) if address[0] == "@" else address)
