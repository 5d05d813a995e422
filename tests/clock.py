"""A wall clock for child processes, which the test sets while they run."""

import mmap
import os
import struct
from pathlib import Path

# Python runs it at its start. Whoever took time.time then goes by this clock, too; as a
# reactor's method it is given the reactor.
CUSTOM = """
import mmap, os, struct, time

with open(os.environ["WALL_CLOCK"], "rb") as file:
    ahead = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
real = time.time


def told(*_):
    return real() + struct.unpack("d", ahead)[0]


time.time = told
"""


class WallClock:
    """The wall clock of processes that are started with `environment`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(CUSTOM)
        path = folder / "ahead"
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._ahead = mmap.mmap(file.fileno(), 8)
        self.environment = os.environ | {"PYTHONPATH": str(folder), "WALL_CLOCK": str(path)}

    def step(self, seconds: float) -> None:
        """Set it forward, or back."""
        (ahead,) = struct.unpack("d", self._ahead)
        self._ahead[:] = struct.pack("d", ahead + seconds)
