"""Standard output, whose reader may go before the command ends."""

import os
import sys
from typing import Any


def discard() -> None:
    """Redirect stdout to /dev/null, lest flushing its buffer at exit fail or block."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class Output:
    """Writes lines to stdout, each flushed at once.

    `broken` is the reason why nothing more can be written, or "".
    """

    def __init__(self) -> None:
        self._stream: Any = sys.stdout
        self.broken = "" if sys.stdout is not None else "standard output is closed"

    def write(self, text: str) -> None:
        """Write `text` and a line ending."""
        if self.broken:
            return
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except OSError as problem:
            discard()
            self.broken = f"standard output: {problem.strerror}"
