"""What a spool asks of the system: which run of it this is, which pipe, and room given back."""

import ctypes
import os
import stat

#: Of fallocate(2): KEEP_SIZE and PUNCH_HOLE.
_PUNCH = 1 | 2
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.fallocate.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64


def boot() -> str:
    """Return what tells this run of the system from others (random(4))."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def sourceOf(descriptor: int) -> str:
    """Return how a pipe is told from others; "-" for what is none."""
    said = os.fstat(descriptor)
    return f"{said.st_dev}:{said.st_ino}" if stat.S_ISFIFO(said.st_mode) else "-"


def punch(descriptor: int, size: int) -> bool:
    """Give back the room of a file's first bytes; return whether its filesystem can do so."""
    return bool(_LIBC.fallocate(descriptor, _PUNCH, 0, size) == 0)
