"""Small file systems to fill or to cut the power of; they need root."""

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_EXT4_IOC_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN, linux/fs.h; xfs and f2fs have it as well
_NO_LOG_FLUSH = 2  # as if power had failed: what was not synced is gone


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return "" if done.returncode == 0 else f"{command[0]}: {done.stderr.strip()}"


def _mounted(*command: str) -> str:
    if os.geteuid():
        return "only root can mount a file system"
    return _run("mount", *command)


class Disk:
    """An ext4 file system in a file, on a loop device."""

    def __init__(self, folder: Path, megabytes: int = 128) -> None:
        self._image = folder / "disk.img"
        self.folder = folder / "disk"
        self.folder.mkdir()
        self._megabytes = megabytes
        self._mounted = False

    def make(self) -> str:
        """Make and mount it; give the reason if that can't be."""
        if shutil.which("mkfs.ext4") is None:
            return "mkfs.ext4 is not installed"
        with self._image.open("wb") as image:
            image.truncate(self._megabytes << 20)
        return _run("mkfs.ext4", "-q", str(self._image)) or self.mount()

    def mount(self) -> str:
        """Mount it; give the reason if that can't be."""
        problem = _mounted("-o", "loop", str(self._image), str(self.folder))
        self._mounted = not problem
        return problem

    def unmount(self) -> None:
        """Unmount it, if it is mounted."""
        if self._mounted:
            problem = _run("umount", str(self.folder))
            assert not problem, problem
            self._mounted = False

    def powerOff(self) -> None:
        """Lose, from now on and for good, what has not been synced."""
        opened = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(opened, _EXT4_IOC_SHUTDOWN, struct.pack("=I", _NO_LOG_FLUSH))
        finally:
            os.close(opened)


@contextmanager
def inMemory(folder: Path, kilobytes: int) -> Iterator[str]:
    """Mount a small file system on `folder`; gives the reason if that can't be."""
    folder.mkdir()
    problem = _mounted("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))
    try:
        yield problem
    finally:
        if not problem:
            # At the latest when the last file in it is closed: what failed may still run.
            problem = _run("umount", "--lazy", str(folder))
            assert not problem, problem
