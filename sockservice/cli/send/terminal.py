"""The terminal at the prompt: its interface, and one with the system's line editing only."""

import os
import sys
from contextlib import suppress
from select import select
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.wire.framer import Framer
from sockservice.wire.framing import Lines

PROMPT = "> "
#: Prefixes of a line that answers none, and of a message of our own.
UNASKED, NOTICE = b"* ", b"! "

#: Most lines in flight.
WINDOW = 1000


class Left(Exception):
    """Ctrl-C was typed."""


class Terminal(Protocol):
    """Where lines are typed, and others shown."""

    @property
    def typed(self) -> bool:
        """Whether the line being edited holds text that was not entered."""

    def read(self) -> Deferred[list[bytes] | None]:
        """Return the lines entered, None at the end of input; fails with Left."""

    def show(self, line: bytes) -> None:
        """Show `line`, already escaped, above the line being edited."""

    def flush(self) -> None:
        """Show pending output now."""

    def stop(self) -> None:
        """End the current call of `read`, or else the next."""

    def interrupted(self) -> None:
        """Begin another line if the terminal has echoed the key of a signal."""


@implementer(IReadDescriptor)
class Plain:
    """A terminal with the system's line editing only."""

    # What the terminal driver holds until a line ends cannot be known.
    typed = False

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._framer = Framer(sys.maxsize)
        self._ended = False
        self._reading: Deferred[list[bytes] | None] | None = None
        # Whatever stands behind it on the screen is the terminal driver's.
        self._prompt = PROMPT if os.isatty(descriptor) and sys.stdout.isatty() else ""

    def read(self) -> Deferred[list[bytes] | None]:
        """Return the lines entered, None at the end of input."""
        self._ask()
        reading: Deferred[list[bytes] | None] = Deferred()
        self._reading = reading
        if self._ended:
            self._give([])
        else:
            self._reactor.addReader(self)
        return reading

    def show(self, line: bytes) -> None:
        """Show `line`, already escaped."""
        back = b"\r" + b" " * len(self._prompt) + b"\r" if self._prompt else b""
        self._write(back + line + b"\n")
        self._ask()

    def _ask(self) -> None:
        if self._prompt and not self._ended:
            self._write(self._prompt.encode())

    def _write(self, data: bytes) -> None:
        # The terminal may have gone; then there is a signal, too.
        with suppress(OSError):
            sys.stdout.buffer.write(data)
            sys.stdout.flush()

    def flush(self) -> None:
        """Do nothing: output is never pending."""

    def stop(self) -> None:
        """End the current call of `read`, or else the next."""
        self._ended = True
        self._give([])

    def interrupted(self) -> None:
        """Begin another line behind the terminal's `^C`."""
        self.show(b"")

    def _give(self, lines: list[bytes]) -> None:
        if self._ended and self._prompt:
            self._prompt = ""
            self._write(b"\n")
        reading, self._reading = self._reading, None
        if reading is not None:
            self._reactor.removeReader(self)
            reading.callback(lines or None)

    # What follows is called by the reactor.

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "terminal"

    def doRead(self) -> None:
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:
            # How a terminal reports that it has gone.
            data = b""
        self._ended = not data
        if data:
            self._framer.receive(data)
        elif not self._framer.startsLine:
            self._framer.receive(b"\n")
        lines: list[bytes] = []
        while isinstance(item := self._framer.take(WINDOW), Lines):
            lines += item.lines
        if lines or self._ended:
            self._give(lines)

    def connectionLost(self, reason: Failure) -> None:
        """Read what is left: the epoll reactor takes a closed pipe or terminal for the end."""
        while not self._ended and select([self._descriptor], [], [], 0)[0]:
            self.doRead()
        self.stop()
