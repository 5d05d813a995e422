"""Keep bytes on disk, in files of bounded size, from when they are taken until they are settled."""

import errno
import fcntl
import os
from contextlib import ExitStack
from itertools import pairwise
from secrets import token_hex
from typing import NamedTuple

from sockservice.client.spool.slots import Entry, Slots
from sockservice.client.spool.system import boot, punch

#: Bytes of a file. What is acknowledged is removed by whole files.
SEGMENT = 8 * 1024 * 1024
#: Most bytes taken at once, and made durable together.
MOST = 1024 * 1024
#: Least limit: there is always a file to be removed before there is another.
LEAST = 2 * SEGMENT
#: What the names of the files end in.
SUFFIX = ".lines"
#: Of splice(2), which Python names from 3.14 on.
_NONBLOCK = 2
#: Bytes that are worth giving back to a full disk.
_BLOCK = 4096
#: The disk is full, or the user's part of it.
_FULL = (errno.ENOSPC, errno.EDQUOT)


class SpoolError(Exception):
    """A spool that can't be used, or not any more; the text is the reason, one line."""


class NoRoom(Exception):
    """The disk is full: nothing was taken."""


class Segment(NamedTuple):
    """A file of a spool: where in the stream it begins and ends."""

    begin: int
    end: int


class Spool:
    """A stream of bytes in the folder `path`, of which no more than `limit` are kept.

    The files hold the bytes as they came and are called by where in the stream they begin.
    `take` moves bytes from a descriptor to the end; they count once they are durable. `settle`
    removes what is stored elsewhere. `session` is the name of the session that the lines go
    to; without it, one is made up and kept. `source` tells the pipe that is read: a line of
    which only the begin was taken goes on if it is the same, else it is dropped.

    `take`, `finish`, `settle` and `close` wait for the disk: call them in a thread, one at a
    time. `read` may be called meanwhile.

    :raises SpoolError: Another process has it, it is another session's, or is damaged.
    :raises OSError: The folder can't be read or made.
    """

    #: Nothing that was read is read again: see :class:`LineReader`.
    final = True

    def __init__(self, path: str, limit: int, session: str | None = None, source: str = "-"):
        self.path = path
        self.limit = limit
        #: Bytes of a line that had not ended, and were dropped.
        self.dropped = 0
        self._source = source
        self._boot = boot()
        self._segments: tuple[Segment, ...] = ()
        self._reading = -1, -1  # begin and descriptor of the file that is read
        self._writing = -1  # the descriptor of the last
        self._written = 0  # where it ends, durable or not
        self._tight = False  # whether the disk was full the last time
        self._punched = 0  # up to where the first file's room was given back
        os.makedirs(path, 0o700, exist_ok=True)
        with ExitStack() as opened:
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, self._folder)
            try:
                fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SpoolError(f"{path}: another process is using this spool") from None
            self._slots = Slots(os.path.join(path, "place"))
            opened.callback(self._slots.close)
            entry = self._slots.entry
            if entry is not None and session not in (None, entry.session):
                raise SpoolError(f"{path}: this spool is of session {entry.session}")
            self.session = entry.session if entry else session or f"spool-{token_hex(8)}"
            self._recover(entry)
            opened.pop_all()

    @property
    def size(self) -> int:
        """Bytes on the disk, some of which may be settled."""
        return self._written - self._segments[0].begin if self._segments else 0

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self.size >= self.limit

    def read(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from `offset` on; b"" at the end of what is durable.

        :raises OSError: They can't be read.
        """
        for segment in self._segments:
            if segment.begin <= offset < segment.end:
                if self._reading[0] != segment.begin:
                    self._unread()
                    self._reading = segment.begin, os.open(self._name(segment.begin), os.O_RDONLY)
                size = min(size, segment.end - offset, max(0, self.end - offset))
                return os.pread(self._reading[1], size, offset - segment.begin)
        return b""

    def take(self, descriptor: int) -> int:
        """Take what can be read from `descriptor`; return the number of bytes, 0 at its end.

        From a pipe they go into the file without being in this process: whenever that is
        killed, each of them is in one of the two.

        :raises BlockingIOError: There is nothing now.
        :raises NoRoom: The disk is full.
        :raises SpoolError: They can't be made durable.
        """
        most = self._room()
        offset = self._written - self._segments[-1].begin
        try:
            count = os.splice(descriptor, self._writing, most, offset_dst=offset, flags=_NONBLOCK)
        except OSError as problem:
            if problem.errno in _FULL:
                raise self._problem(problem) from None
            if problem.errno != errno.EINVAL:
                raise
            # No pipe, or a filesystem that can't. There has to be room before anything is read.
            self._allocate(offset, most)
            data = os.read(descriptor, most)
            count = len(data)
            self._put(data, offset)
        self._count(count)
        return count

    def finish(self) -> None:
        """End the last line, if it has not ended; its writer has.

        :raises NoRoom: The disk is full.
        :raises SpoolError: That can't be made durable.
        """
        if self.end > self.begin and self._last() != b"\n":
            self._room()
            offset = self._written - self._segments[-1].begin
            self._allocate(offset, 1)
            self._put(b"\n", offset)
            self._count(1)

    def settles(self, offset: int) -> bool:
        """Return whether there is room to be had, if all before `offset` is stored."""
        if self._tight and offset - max(self._punched, self.begin) >= _BLOCK:
            return True
        return len(self._segments) > 1 and self._segments[0].end <= offset

    def settle(self, begin: int, position: int, crc: int) -> None:
        """Remember that the `position` lines of the session end before `begin`, and have `crc`.

        Files that hold nothing else are removed, and on a full disk what is in front.

        :raises SpoolError: That can't be written.
        """
        self.begin, self.position, self.crc = begin, position, crc
        self._note()
        self._clear()

    def close(self) -> None:
        """Leave the folder to others, without files if all is settled."""
        if self._segments and self.begin == self.end == self._written:
            while self._segments:
                self._remove()
        self._unread()
        if self._writing >= 0:
            os.close(self._writing)
        self._slots.close()
        os.close(self._folder)

    def _recover(self, entry: Entry | None) -> None:
        """Find what is in the files, and drop what was not durable when the power failed."""
        found = self._found()
        if found and entry is None:
            raise SpoolError(f"{self.path}: there are lines, and the file place is not whole")
        first = found[0].begin if found else entry.end if entry else 0
        self.begin = entry.begin if entry else first
        self.position, self.crc = (entry.position, entry.crc) if entry else (-1, 0)
        self._segments = tuple(found)
        self._written = self.end = found[-1].end if found else first
        if self.begin < first or (entry and self.end < entry.end):
            raise SpoolError(f"{self.path}: lines are missing that were in this spool")
        same = entry is not None and entry.boot == self._boot
        if entry and not same:
            # In what is behind that there may be blocks that never reached the disk.
            self._cut(entry.end)
        if not (entry and same and entry.source == self._source != "-"):
            self._cut(self._lastEnd())
        if self._segments:
            self._open(self._segments[-1])
            os.fdatasync(self._writing)
        self._note()
        self._clear()

    def _found(self) -> list[Segment]:
        begins = []
        for name in os.listdir(self.path):
            stem, suffix = os.path.splitext(name)
            if suffix == SUFFIX and stem.isdecimal():
                begins.append(int(stem))
        found = [Segment(each, each + os.stat(self._name(each)).st_size) for each in sorted(begins)]
        for before, behind in pairwise(found):
            if before.end != behind.begin:
                missing = self._name(before.begin)
                raise SpoolError(f"{missing} does not end where the next file begins")
        return found

    def _last(self) -> bytes:
        """Return the last byte; not by `read`, which may be called meanwhile."""
        last = next(each for each in reversed(self._segments) if each.end > each.begin)
        with open(self._name(last.begin), "rb", 0) as file:
            file.seek(-1, os.SEEK_END)
            return file.read()

    def _lastEnd(self) -> int:
        """Return where the last line ends that has ended."""
        at = self.end
        while at > self.begin:
            start = max(self.begin, at - 4096)
            # `read` stops at the end of a file.
            begins = [each.begin for each in self._segments if start < each.begin < at]
            start = max([start, *begins])
            if (place := self.read(start, at - start).rfind(b"\n")) >= 0:
                return start + place + 1
            at = start
        return at

    def _cut(self, end: int) -> None:
        self.dropped += self.end - end
        while self._segments and self._segments[-1].end > end:
            *before, last = self._segments
            if last.begin >= end and before:
                os.unlink(self._name(last.begin))
                self._segments = tuple(before)
                continue
            os.truncate(self._name(last.begin), end - last.begin)
            self._segments = (*before, Segment(last.begin, end))
        self._written = self.end = end

    def _room(self) -> int:
        """Return how many bytes go into the last file, which is a new one if it has to be."""
        if not self._segments or self._written - self._segments[-1].begin >= SEGMENT:
            segment = Segment(self._written, self._written)
            try:
                self._open(segment)
                os.fsync(self._folder)
            except OSError as problem:
                raise self._problem(problem) from None
            self._segments += (segment,)
        left = SEGMENT - (self._written - self._segments[-1].begin)
        return min(MOST, left, max(1, self.limit - self.size))

    def _open(self, segment: Segment) -> None:
        if self._writing >= 0:
            os.close(self._writing)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._writing = os.open(self._name(segment.begin), flags, 0o600)

    def _allocate(self, offset: int, size: int) -> None:
        """See to it that `size` bytes can be written, and that the file is no longer for that."""
        try:
            os.posix_fallocate(self._writing, offset, size)
            os.ftruncate(self._writing, offset)
        except OSError as problem:
            raise self._problem(problem) from None

    def _put(self, data: bytes, offset: int) -> None:
        while data:
            try:
                count = os.pwrite(self._writing, data, offset)
            except OSError as problem:
                raise SpoolError(f"{self.path}: {problem.strerror}") from problem
            data, offset = data[count:], offset + count

    def _count(self, count: int) -> None:
        """Make what was written durable, and count it."""
        if not count:
            return
        self._written += count
        try:
            os.fdatasync(self._writing)
        except OSError as problem:
            # Another attempt would succeed and tell nothing.
            raise SpoolError(f"{self.path}: {problem.strerror}") from problem
        *before, last = self._segments
        self._segments = (*before, Segment(last.begin, self._written))
        self._note(self._written)
        self.end = self._written
        self._tight = False

    def _note(self, end: int | None = None) -> None:
        end = self.end if end is None else end
        entry = Entry(
            self.session, self.position, self.crc, self.begin, end, self._boot, self._source
        )
        try:
            self._slots.write(entry)
        except OSError as problem:
            raise SpoolError(f"{self.path}: {problem.strerror}") from problem

    def _clear(self) -> None:
        while len(self._segments) > 1 and self._segments[0].end <= self.begin:
            self._remove()
        if self._tight and self._segments and self.begin > self._punched:
            # Where that can't be done, the disk stays full until there is room from elsewhere.
            first = self._segments[0].begin
            file = os.open(self._name(first), os.O_RDWR | os.O_CLOEXEC)
            punch(file, self.begin - first)
            os.close(file)
            self._punched = self.begin

    def _remove(self) -> None:
        os.unlink(self._name(self._segments[0].begin))
        self._segments = self._segments[1:]

    def _problem(self, problem: OSError) -> Exception:
        if problem.errno in _FULL:
            self._tight = True
            return NoRoom()
        return SpoolError(f"{self.path}: {problem.strerror}")

    def _unread(self) -> None:
        if self._reading[1] >= 0:
            os.close(self._reading[1])
        self._reading = -1, -1

    def _name(self, begin: int) -> str:
        return os.path.join(self.path, f"{begin:020}{SUFFIX}")
