"""Find the place in a log file, or in what it was rotated to, where a session has come to."""

import re
from contextlib import suppress
from hashlib import sha256
from typing import NamedTuple, Self
from zlib import crc32

from sockservice.client.ship.chain import chain, reachable
from sockservice.client.ship.content import Content, UnreadableFile, content
from sockservice.client.ship.reading import TAIL, LineReader, before
from sockservice.wire.session import folded

_NOTE = re.compile(
    r"(?P<kind>[12]):(?P<length>\d+):(?P<head>[0-9a-f]{16}):(?P<offset>\d+)"
    r":(?P<tail>[0-9a-f]{8}):(?P<written>\d+):(?P<device>\d+)\.(?P<inode>\d+)"
)


class Gone(Exception):
    """The file in which the session stood is there no more.

    The text, if there is any, says of a file that it is damaged or can't be decompressed.
    """


class Note(NamedTuple):
    """Where a session stands: what a shipper has the server keep for it.

    The file is recognised by its content, since a rotated file may be copied or compressed,
    and the number of an inode used again.
    """

    #: Whether the file has been read to its end for good: the place is behind it.
    done: bool
    #: Bytes of the file's beginning that `head` is of.
    length: int
    #: SHA-256 of these, the first 16 hexadecimal digits.
    head: str
    #: Where the next line begins.
    offset: int
    #: CRC-32 of the bytes before `offset`, at most TAIL.
    tail: int
    #: When the file was last written to, in nanoseconds: those written to before are older.
    written: int
    #: The very file, where its times tell nothing.
    device: int
    inode: int

    @classmethod
    def of(
        cls, file: Content, head: bytes, offset: int, tail: bytes, written: int, done: bool
    ) -> Self:
        """Return the note of a place behind `tail` in a file that begins with `head`."""
        said = file.stat()
        return cls(
            done,
            len(head),
            digest(head),
            offset,
            crc32(tail),
            written,
            said.st_dev,
            said.st_ino,
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `encode` has written.

        :raises ValueError: It is nothing of the kind.
        """
        if not (found := _NOTE.fullmatch(text)):
            raise ValueError("the session's note is not of a file that was shipped")
        return cls(
            found["kind"] == "2",
            int(found["length"]),
            found["head"],
            int(found["offset"]),
            int(found["tail"], 16),
            int(found["written"]),
            int(found["device"]),
            int(found["inode"]),
        )

    def encode(self) -> str:
        return (
            f"{2 if self.done else 1}:{self.length}:{self.head}:{self.offset}"
            f":{self.tail:08x}:{self.written}:{self.device}.{self.inode}"
        )

    def fits(self, file: Content) -> bool:
        """Return whether the place is in this file, by its content.

        :raises UnreadableFile: The file is not whole, or damaged.
        """
        head = file.read(0, self.length)
        if len(head) < self.length or digest(head) != self.head:
            return False
        last = before(file, self.offset)
        return len(last) == min(self.offset, TAIL) and crc32(last) == self.tail


def digest(head: bytes) -> str:
    """Return by what a file that begins with `head` is recognised."""
    return sha256(head).hexdigest()[:16]


class Fitting(NamedTuple):
    """The files that a note fits, and why others could not be looked at."""

    paths: list[str]
    problems: list[OSError | UnreadableFile]


def fitting(paths: list[str], note: Note) -> Fitting:
    """Return those of `paths`, which are in the order of a chain, that `note` fits.

    The most likely comes first. A file and its copy both fit, as do files that are equal or
    short: older ones were last written to before the note, and what was written to a file
    after its copy was made comes behind the copy. So the oldest is it that is not too old. The
    inode counts where somebody has altered the times.
    """
    fits: list[tuple[bool, bool, int, str]] = []
    problems: list[OSError | UnreadableFile] = []
    for index, path in enumerate(paths):
        try:
            with suppress(FileNotFoundError), content(path) as file:
                if note.fits(file):
                    said = file.stat()
                    old = said.st_mtime_ns < note.written
                    other = (said.st_dev, said.st_ino) != (note.device, note.inode)
                    fits.append((old, old and other, -index if old else index, path))
        except (OSError, UnreadableFile) as problem:
            problems.append(problem)
    return Fitting([path for *_, path in sorted(fits)], problems)


def found(
    path: str, note: Note, count: int, crc: int, limit: int, want: int
) -> tuple[Content, int]:
    """Return the file, open, and the place in it that is `count` lines behind that of `note`.

    It may be `path`, or what that was rotated to; see `behind`.

    :raises Gone: It is not to be found.
    :raises OSError: It is not to be found, but a file can't be read that it may be in.
    """
    fits, problems = fitting(chain(path), note)
    for each in fits:
        try:
            with suppress(FileNotFoundError), content(each) as file:
                end = behind(file, note.offset, count, crc, limit, want)
                if end is not None:
                    file.kept = True
                    return file, end
        except (OSError, UnreadableFile) as problem:
            problems.append(problem)
    reachable(path)
    if refused := [each for each in problems if isinstance(each, OSError)]:
        raise refused[0]
    raise Gone(*map(str, problems[:1]))


def behind(file: Content, offset: int, count: int, crc: int, limit: int, want: int) -> int | None:
    """Return where `count` lines from `offset` on end, if their CRC leads from `crc` to `want`.

    Lines longer than `limit` do not count. The last may lack its ending.

    :raises UnreadableFile: The file is not whole, or damaged.
    """
    lines = LineReader(file, offset, limit)
    while count:
        several = lines.take(count)
        if not several:
            several = lines.torn()
            if len(several) != count:
                return None
        count -= len(several)
        crc = folded(several, crc)
    return lines.offset if crc == want else None
