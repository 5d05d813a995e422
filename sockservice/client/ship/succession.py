"""Find what follows a log file that is done, and the copy of one that was truncated."""

import os
from contextlib import suppress
from typing import NamedTuple

from sockservice.client.ship.chain import chain, folderOf
from sockservice.client.ship.content import HEAD, Content, UnreadableFile, content
from sockservice.client.ship.place import Note, fitting


class Known(NamedTuple):
    """What has been read of a file."""

    #: Its first bytes, at most HEAD.
    head: bytes
    #: The last that were read, at most TAIL.
    tail: bytes
    #: Where they end.
    end: int
    #: When the file was last written to, in nanoseconds.
    written: int

    def of(self, file: Content) -> bool:
        """Return whether it is in `file`."""
        start = self.end - len(self.tail)
        return (
            file.read(0, len(self.head)) == self.head
            and file.read(start, len(self.tail)) == self.tail
        )


def listing(path: str) -> list[tuple[str, tuple[int, int]]]:
    """Return what `path` was written to, the oldest first, and the inodes: they show renaming."""
    there = []
    for each in chain(path):
        with suppress(OSError):
            said = os.stat(each)
            there.append((each, (said.st_dev, said.st_ino)))
    return there


def newer(path: str, paths: list[str], noted: Note | None) -> list[tuple[str, int]]:
    """Return those of `paths` that may follow the one of `noted`, each with the place to begin at.

    The one of `noted` comes first, for somebody may have gone on with it.
    """
    if noted is None:
        return [(each, 0) for each in paths]
    if fits := fitting(paths, noted).paths:
        first = paths.index(fits[0]) + 1
        return [(fits[0], noted.offset), *((each, 0) for each in paths[first:])]
    for first, each in enumerate(paths, 1):
        if _same(each, noted):
            # It can't be read any more, nor need it be.
            return [(each, 0) for each in paths[first:]]
    # It is there no more, nor is what is older.
    first = 0
    while first < len(paths) and paths[first] != path and _written(paths[first]) < noted.written:
        first += 1
    return [(each, 0) for each in paths[first:]]


def copied(path: str, file: Content, known: Known) -> Content | None:
    """Open the copy that was made of `file` before that was truncated, if it was.

    The file may have grown again to be the same as far as it is known. Behind that it differs
    from the copy then: one that was copied only begins as the copy does.
    """
    here = file.stat()
    inode = here.st_dev, here.st_ino
    there = listing(path)
    same = known.of(file)
    if same and (path, inode) not in there:
        return None  # It was renamed.
    for each, other in reversed(there):
        if each == path or other == inode:
            continue
        with suppress(OSError, UnreadableFile), content(each) as copy:
            if copy.stat().st_mtime_ns >= known.written and known.of(copy):
                more = copy.read(known.end, HEAD)
                if not same or not file.read(known.end, HEAD).startswith(more):
                    copy.kept = True
                    return copy
    return None


def _same(path: str, noted: Note) -> bool:
    """Return whether `path` is the very file of `noted`, and nobody has written to it since."""
    with suppress(OSError):
        said = os.stat(path)
        same = (said.st_dev, said.st_ino) == (noted.device, noted.inode)
        return same and said.st_mtime_ns == noted.written
    return False


def _written(path: str) -> int:
    with suppress(OSError):
        return os.stat(path).st_mtime_ns
    return 0


def changed(path: str) -> int:
    """Return when the folder of a file last changed, in nanoseconds; 0 if there is none."""
    with suppress(OSError):
        return os.stat(folderOf(path)).st_mtime_ns
    return 0


def size(path: str) -> int:
    """Return the size of a file in bytes; -1 if there is none."""
    with suppress(OSError):
        return os.stat(path).st_size
    return -1
