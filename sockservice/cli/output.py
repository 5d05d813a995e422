"""Standard output, whose reader may go before the command ends."""

import io
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sockservice.cli.columns import columns, folded
from sockservice.wire.escaping import printable


def discard(descriptor: int = 1) -> None:
    """Redirect stdout, or stderr, to /dev/null, lest flushing its buffer at exit fail or block.

    Where that fails Python ends with status 120.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def settle() -> None:
    """Discard what is left in the buffers and can't be written, as on a terminal that has gone."""
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        if stream is not None:
            try:
                stream.flush()
            except OSError:
                discard(descriptor)


class Output:
    """Writes lines to stdout, each flushed at once.

    `broken` is the reason why nothing more can be written, or "".
    """

    def __init__(self) -> None:
        self._stream: Any = sys.stdout
        #: Whether that is that its reader has gone.
        self.left = False
        self.broken = "" if sys.stdout is not None else "standard output is closed"
        self.terminal = sys.stdout is not None and sys.stdout.isatty()

    @property
    def columns(self) -> int:
        """Columns of the terminal, now; 80 if it is none."""
        return columns(self._stream)

    def fold(self, text: str) -> None:
        """Write `text`, escaped; on a terminal folded to its columns."""
        for line in folded(printable(text), self.columns) if self.terminal else [text]:
            self.write(line)

    def write(self, text: str) -> None:
        """Write `text`, escaped, and a line ending."""
        if self.broken:
            return
        try:
            self._stream.write(printable(text) + "\n")
            self._stream.flush()
        except OSError as problem:
            discard()
            self.left = isinstance(problem, BrokenPipeError)
            self.broken = f"standard output: {problem.strerror}"


class Bulk:
    """Writes many lines at once to stdout; a signal may interrupt that anywhere.

    What has been written is known even then.
    """

    #: Bytes at a time.
    CHUNK = 65536

    def __init__(self) -> None:
        self._buffer: Any = None
        try:
            self._descriptor = sys.stdout.fileno()
        except io.UnsupportedOperation:
            self._buffer = sys.stdout.buffer  # of a program that calls this one
        #: Line endings written.
        self.lines = 0
        self._left = memoryview(b"")
        self._whole = True  # whether what was written ends with a line
        self._writing = False
        self._number = 0

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Meanwhile have SIGINT, SIGTERM and SIGHUP raise a KeyboardInterrupt of the signal."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {each: signal.getsignal(each) for each in numbers}
        here = threading.current_thread() is threading.main_thread()
        caught = [each for each in numbers if here and before[each] is not signal.SIG_IGN]

        def received(number: int, _: object) -> None:
            for each in caught:
                signal.signal(each, signal.SIG_DFL)
            self._number = number
            if not self._writing:
                raise KeyboardInterrupt(number)

        for each in caught:
            signal.signal(each, received)
        try:
            yield
        finally:
            for each in caught:
                signal.signal(each, before[each])

    def write(self, lines: bytes) -> None:
        """Write whole lines.

        :raises OSError: They can't be written.
        """
        if self._buffer is not None:
            self._buffer.write(lines)
            self.lines += lines.count(b"\n")
            return
        self._left = memoryview(lines)
        while self._left:
            # Waiting may be interrupted; a write that has room for something ends at a signal.
            select.select([], [self._descriptor], [])
            self._put(self.CHUNK)
            if self._number:
                raise KeyboardInterrupt(self._number)

    def finish(self, seconds: float) -> bool:
        """Write the rest of a line that is half written; return whether there is room for more.

        It takes at most so many seconds while nobody reads.
        """
        rest = bytes(self._left)
        self._left = memoryview(b"" if self._whole else rest[: rest.find(b"\n") + 1])
        try:
            while select.select([], [self._descriptor], [], seconds)[1]:
                if not self._left:
                    return True
                self._put(select.PIPE_BUF)
        except OSError:
            pass
        return False

    def _put(self, most: int) -> None:
        chunk = self._left[:most]
        self._writing = True
        try:
            count = os.write(self._descriptor, chunk)
            self._whole = chunk[count - 1] == ord("\n")
            self.lines += bytes(chunk[:count]).count(b"\n")
            self._left = self._left[count:]
        except BlockingIOError:
            pass  # whoever shares the descriptor has made it non-blocking
        finally:
            self._writing = False
