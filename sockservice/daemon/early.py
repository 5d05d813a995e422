"""Take signals from the very beginning, before there is a service that could.

Imports next to nothing: until it is installed, a signal ends the process in silence.
"""

import os
import signal
from types import FrameType
from typing import NoReturn

#: What becomes of a process that is told to end before it is ready.
UNREADY = "before it was ready; ended"


class Early:
    """What a process was told before it was ready.

    While nothing is bound, SIGTERM and SIGINT end the process with status 0 and one line on
    stderr. From `began` on they are kept for whoever has to undo that. SIGHUP is kept.
    """

    def __init__(self) -> None:
        #: The signal that told it to end, or None.
        self.ended: str | None = None
        #: Whether it was told to read files again.
        self.hungUp = False
        #: Called with such a signal's name when it comes.
        self.ending = _end

    def install(self) -> None:
        """Take signals, except those that whoever started us wants ignored."""
        for number, received in (
            (signal.SIGINT, self._received),
            (signal.SIGTERM, self._received),
            (signal.SIGHUP, self._hungUp),
        ):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, received)

    def began(self) -> None:
        """Something has to be undone at the end from now on."""
        self.ending = _remembered

    def check(self) -> None:
        """Raise what `interrupt` does, if it was told to end."""
        if self.ended is not None:
            interrupt(self.ended)

    def _hungUp(self, number: int, frame: FrameType | None) -> None:
        self.hungUp = True

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.ended = signal.Signals(number).name
        self.ending(self.ended)


def installed() -> Early | None:
    """Return what takes this process's signals, if it is an :class:`Early`."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        found = getattr(signal.getsignal(number), "__self__", None)
        if isinstance(found, Early):
            return found
    return None


def interrupt(name: str) -> NoReturn:
    """End what is starting: raised in the midst of it by a signal."""
    from sockservice.errors import Untimely

    raise Untimely(f"{name} {UNREADY}")


def _end(name: str) -> None:
    os.write(2, f"sockservice: {name} {UNREADY}\n".encode())
    os._exit(0)


def _remembered(name: str) -> None:
    """Leave it to others to ask for it."""
