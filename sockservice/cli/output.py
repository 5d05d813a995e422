"""Standard output that may end before the command does."""

import os
import sys
from typing import Any


def discard() -> None:
    """Have what Python still keeps of stdout go nowhere: it must not fail again at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class Output:
    """Lines to stdout, each there as soon as it is written.

    `broken` says why nothing more can be written, once that is so.
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
