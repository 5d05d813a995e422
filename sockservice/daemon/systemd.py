"""Tell systemd that the service is ready, reads its files again, ends, and is alive.

The protocol is that of sd_notify(3) and sd_watchdog_enabled(3): one datagram for each message.
"""

import errno
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from sockservice.wire.escaping import printable
from sockservice.wire.plurals import inSeconds

#: Seconds between two looks at the figures, which are told if they have changed.
FIGURES = 5.0
#: Seconds between two messages to the watchdog at least, however often it wants them.
SHORTEST = 0.01
#: Seconds until what found no room in systemd's socket is sent again.
AGAIN = 0.1

#: What stands for no end, in microseconds; sd_watchdog_enabled(3).
_INFINITY = 2**64 - 1
_FULL = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)

log = Logger()


class Systemd:
    """What systemd is told, where `environment` names its socket; otherwise all this does nothing.

    `figures` gives the line that `systemctl status` shows. `ping` is called with what to call
    as soon as all that the reactor relies on has answered; only then the watchdog is told that
    the service is alive. `now` gives CLOCK_MONOTONIC in microseconds.

    What is read is taken out of `environment`: processes that this one starts have nothing to
    tell. Nothing blocks; what finds no room waits for it, the latest of each kind.
    """

    def __init__(
        self,
        reactor: Any,
        environment: MutableMapping[str, str],
        figures: Callable[[], str] = str,
        ping: Callable[[Callable[[], None]], object] = lambda answered: answered(),
        now: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
    ) -> None:
        self._reactor = reactor
        self._figures = figures
        self._ping = ping
        self._now = now
        #: Seconds within which the watchdog wants to be told; 0 is no watchdog.
        self.watchdog = _watchdog(environment)
        self._address = _address(environment.pop("NOTIFY_SOCKET", ""))
        if self._address is None:
            self.watchdog = 0.0
        self._socket: socket.socket | None = None
        self._due: dict[str, bytes] = {}  # by the kind of each message
        self._waiting: IDelayedCall | None = None
        self._said = ""  # the figures told last
        self._asked: float | None = None  # since when no ping was answered
        self._silent = False  # whether the log says so
        self._gone = False  # whether the log says that the socket is
        self._serving = self._reloading = False
        self._loops: list[LoopingCall] = []
        # Now, since twistd may change its root.
        self._connect()

    def start(self) -> None:
        """Tell it from now on, in turns of the reactor, that the service is alive."""
        if self._address is None:
            return
        self._repeat(self._tellFigures, FIGURES)
        if self.watchdog:
            self._repeat(self._beat, max(SHORTEST, self.watchdog / 2))

    def ready(self) -> None:
        """Lines can be taken, stored and answered."""
        self._serving = True
        self._tell("READY=1")

    def reloading(self) -> None:
        """Files are read again; does nothing if it is not ready, as `reloaded`, which follows."""
        if self._serving:
            self._reloading = True
            self._tell("RELOADING=1", f"MONOTONIC_USEC={self._now()}")

    def reloaded(self) -> None:
        """Files have been read again."""
        if self._reloading:
            self._reloading = False
            self._tell("READY=1")

    def stopping(self) -> None:
        """The service ends."""
        self._serving = self._reloading = False
        self._tell("STOPPING=1")

    def close(self) -> None:
        """Tell nothing more."""
        for loop in self._loops:
            loop.stop()
        self._loops = []
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        self._due = {}
        self._disconnect()
        self._address = None

    def _repeat(self, call: Callable[[], None], seconds: float) -> None:
        loop = LoopingCall(call)
        loop.clock = self._reactor
        self._loops.append(loop)
        loop.start(seconds)

    def _tellFigures(self) -> None:
        figures = printable(self._figures())
        if figures != self._said:
            self._said = figures
            self._tell("STATUS", f"STATUS={figures}")

    def _beat(self) -> None:
        now = self._reactor.seconds()
        if self._asked is None:
            self._asked = now
            self._ping(self._answered)
        elif not self._silent:
            self._silent = True
            log.error(
                "the store has not answered for {wait}; the watchdog is not told "
                "that the service is alive until it does",
                wait=inSeconds(round(now - self._asked, 1)),
            )

    def _answered(self) -> None:
        if self._silent:
            log.info("the store answers again")
        self._asked, self._silent = None, False
        self._tell("WATCHDOG=1")

    def _tell(self, kind: str, *more: str) -> None:
        """Send a message of a kind, behind those that wait."""
        if self._address is None:
            return
        self._due.pop(kind, None)
        lines = more if kind == "STATUS" else (kind, *more)
        self._due[kind] = "\n".join(lines).encode(errors="backslashreplace")
        if self._waiting is None:
            self._send()

    def _send(self) -> None:
        self._waiting = None
        for kind, message in list(self._due.items()):
            if not self._sent(message):
                self._waiting = self._reactor.callLater(AGAIN, self._send)
                return
            del self._due[kind]

    def _sent(self, message: bytes) -> bool:
        """Send a message; return whether it need not be tried again."""
        # Whoever receives may have been restarted, with another socket of the same name.
        for again in (True, False):
            if self._socket is None:
                self._connect()
            if self._socket is None:
                return True
            try:
                self._socket.send(message)
            except OSError as problem:
                if problem.errno in _FULL:
                    return False
                self._disconnect()
                if not again:
                    self._tellGone(problem)
            else:
                self._gone = False
                return True
        return True

    def _connect(self) -> None:
        if self._address is None:
            return
        try:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        except OSError as problem:
            self._tellGone(problem)
            return
        made.setblocking(False)
        try:
            made.connect(self._address)
        except OSError as problem:
            made.close()
            self._tellGone(problem)
        else:
            self._socket = made

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tellGone(self, problem: OSError) -> None:
        if not self._gone:
            self._gone = True
            log.warn(
                "NOTIFY_SOCKET: {why}; systemd is not told how the service is",
                why=problem.strerror or str(problem),
            )


def _address(said: str) -> bytes | None:
    """Return the address of a path or of an abstract name, unix(7), or None if it is neither."""
    if said.startswith("@"):
        return b"\0" + os.fsencode(said[1:])
    if said.startswith("/"):
        return os.fsencode(said)
    if said:
        log.warn(
            "NOTIFY_SOCKET={said!a} is neither a path nor an abstract name; systemd is not told "
            "how the service is",
            said=said,
        )
    return None


def _watchdog(environment: MutableMapping[str, str]) -> float:
    """Return the seconds of WATCHDOG_USEC, if they are meant for this process."""
    said, process = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", None)
    # It is asked before twistd becomes a daemon.
    if process in (None, str(os.getpid())):
        with suppress(ValueError):
            microseconds = int(said)
            return microseconds / 1e6 if 0 < microseconds < _INFINITY else 0.0
    return 0.0
