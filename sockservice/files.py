"""Read the files that options name: regular ones, without waiting for anybody, bounded in size."""

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterator

#: Bytes of the longest file that is read: a quarter of a million networks, or all the world's
#: certificate authorities ten times over.
LONGEST = 4 << 20

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFSOCK: "a socket",
}

#: Filesystems on which a lease is refused for no other reason than a writer; fcntl(2). Over a
#: network it may be for the want of a delegation.
_LEASING = frozenset({"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs"})


def contents(path: str) -> bytes:
    """Return what is in a regular file; links are followed.

    A pipe or a device could block whoever reads it, and would be empty when it is read again.

    :raises ValueError: It cannot be read, is no regular file, is longer than LONGEST, or another
        program is writing it, as far as the system tells.
    """
    try:
        _regular(os.stat(path))
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            # It may be another by now.
            found = os.fstat(descriptor)
            _regular(found)
            if _beingWritten(descriptor, found.st_dev):
                raise ValueError("another program is writing it")
            read = b"".join(_parts(descriptor))
            after = os.fstat(descriptor)
            if (after.st_size, after.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
                raise ValueError("another program is writing it")
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise ValueError(problem.strerror) from problem
    if len(read) > LONGEST:
        raise ValueError(f"longer than {LONGEST >> 20} MiB")
    return read


def _regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise ValueError(f"it is {kind}; a regular file is wanted")


def _parts(descriptor: int) -> Iterator[bytes]:
    left = LONGEST + 1
    while left > 0 and (part := os.read(descriptor, left)):
        yield part
        left -= len(part)


def _beingWritten(descriptor: int, device: int) -> bool:
    """Return whether somebody has the file open for writing, as a lease on it tells.

    The lease lasts until the file is closed: who wants to write waits for that.
    """
    try:
        # Otherwise whoever opens the file meanwhile would end this process by SIGIO.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as refused:
        # Others than its owner and root are given none.
        return refused.errno == errno.EAGAIN and _filesystem(device) in _LEASING
    return False


def _filesystem(device: int) -> str:
    """Return the type of the mounted filesystem with this number; proc(5), mountinfo."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", errors="surrogateescape") as mounts:
        for mount in mounts:
            if mount.split()[2] == number:
                return mount.partition(" - ")[2].split()[0]
    return ""
