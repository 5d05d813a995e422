"""Take signals from the very beginning, before there is a service that could.

Imports next to nothing: until it is installed, a signal ends the process in silence.
"""

import os
import select
import signal
from types import FrameType
from typing import NoReturn

#: Signals of which a process that has no use for them would die.
USELESS = (signal.SIGUSR1, signal.SIGUSR2)

#: What becomes of a process that is told to end before it is ready.
UNREADY = "before it was ready; ended"


class _HungUp(dict[int, object]):
    """The signals that have come, by number; its methods, in C, are what no signal interrupts."""

    early: "Early"


class Early:
    """What a process was told before it was ready.

    While nothing is bound, SIGTERM and SIGINT end the process with status 0 and one line on
    stderr. From `began` on they are kept for whoever has to undo that. SIGHUP is kept.
    """

    def __init__(self) -> None:
        #: The signal that told it to end, or None.
        self.ended: str | None = None
        self._hungUp = _HungUp()
        self._hungUp.early = self
        #: Called with such a signal's name when it comes.
        self.ending = _end

    def install(self, *useless: int) -> None:
        """Take signals, except those that whoever started us wants ignored; ignore `useless`."""
        for number, received in (
            (signal.SIGINT, self._received),
            (signal.SIGTERM, self._received),
            (signal.SIGHUP, self._hungUp.__setitem__),
        ):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, received)
        for each in useless:
            signal.signal(each, signal.SIG_IGN)

    @property
    def hungUp(self) -> bool:
        """Whether it was told to read files again."""
        return bool(self._hungUp)

    def began(self) -> None:
        """Something has to be undone at the end from now on."""
        self.ending = _remembered

    def check(self) -> None:
        """Raise what `interrupt` does, if it was told to end."""
        if self.ended is not None:
            interrupt(self.ended)

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.ended = signal.Signals(number).name
        self.ending(self.ended)


def installed() -> Early | None:
    """Return what takes this process's signals, if it is an :class:`Early`."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        found = getattr(signal.getsignal(number), "__self__", None)
        found = getattr(found, "early", found)
        if isinstance(found, Early):
            return found
    return None


def interrupt(name: str) -> NoReturn:
    """End what is starting: raised in the midst of it by a signal."""
    from sockservice.errors import Untimely

    raise Untimely(f"{name} {UNREADY}")


def _end(name: str) -> None:
    # Nobody may read it.
    if select.select([], [2], [], 0)[1]:
        os.write(2, f"sockservice: {name} {UNREADY}\n".encode())
    os._exit(0)


def _remembered(name: str) -> None:
    """Leave it to others to ask for it."""
