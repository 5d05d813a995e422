"""Tell whoever sends peers here whether the service is ready: a file, and systemd."""

from contextlib import suppress
from pathlib import Path

from twisted.logger import Logger

from sockservice.daemon.systemd import Systemd

log = Logger()


class Readiness:
    """Whether the service is ready, told in a file that exists as long as it is.

    `systemd` is told as well.
    """

    def __init__(self, path: str | None, systemd: Systemd | None = None) -> None:
        self._path = None if path is None else Path(path).absolute()
        self._systemd = systemd
        self._ready = False
        #: What the service does: starting, ready or draining.
        self.stage = "starting"

    def ready(self) -> None:
        """Lines can be taken, stored and answered."""
        if self._ready:
            return
        self._ready = True
        self.stage = "ready"
        if self._path is not None:
            try:
                self._path.touch()
            except OSError as problem:
                log.error("--ready-file {path}: {why}", path=self._path, why=problem.strerror)
        if self._systemd is not None:
            self._systemd.ready()

    def unready(self) -> None:
        """Peers should be sent elsewhere."""
        self.stage = "draining"
        if not self._ready:
            return
        self._ready = False
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
        if self._systemd is not None:
            self._systemd.stopping()
