"""Follow a log file through rotation, line by line."""

import os
import time
from collections.abc import Callable
from contextlib import suppress

from sockservice.client.ship.chain import chain
from sockservice.client.ship.content import HEAD, Content, UnreadableFile, content, unwritten
from sockservice.client.ship.place import Note, found
from sockservice.client.ship.reading import LineReader, before, lastLine
from sockservice.client.ship.succession import Known, changed, copied, listing, newer, size
from sockservice.wire.plurals import counted

#: Bytes after which the place is noted anew, so that no more have to be read to find it again.
STRIDE = 64 * 1024 * 1024
#: Seconds without a byte after which a rotated file counts as finished, if that can't be told.
SETTLE = 60.0
#: Seconds until a file that can't be read is tried again.
AGAIN = 1.0
#: Lines that are passed over at once.
SKIPPED = 10_000
#: Nanoseconds in which a folder may change twice and show the same time.
TICK = 50_000_000


class Follower:
    """Gives the lines of the log file `path` in their order, whatever it is rotated to.

    Begin with `start` or `resume`; then call `take` again and again. When `due`, have the
    `note` kept before going on. `said` is told, in one line, what happens to the file.
    `seconds` asks a clock. Lines longer than `limit` bytes are told and passed over.
    """

    def __init__(
        self,
        path: str,
        limit: int,
        *,
        seconds: Callable[[], float],
        said: Callable[[str], object],
        settle: float = SETTLE,
    ) -> None:
        self.path = path
        self._limit = limit
        self._seconds = seconds
        self._said = said
        self._settle = settle
        #: Whether the place has to be noted before there is more to take.
        self.due = False
        #: Lines that were passed over.
        self.long = 0
        self._file: Content | None = None
        self._reader: LineReader
        self._known: Known
        self._tail = b""  # of what was taken
        self._copy = False  # of what was truncated: nobody writes to it
        self._noted: Note | None = None
        self._done = False  # with the file
        self._still: float | None = None  # since when nothing was written to a rotated file
        self._closed = False  # by all who wrote to it
        self._stopped = False
        self._wrong = 0.0, ""  # since when a file can't be read, and why
        self._again = 0.0  # when to try that again
        self._passed: set[str] = set()  # files that can't be read
        self._seen: object = None  # how things were when there was nothing to take
        self._folder = 0  # when the folder had changed when it was last looked at

    def start(self, where: str) -> None:
        """Begin with the oldest file there is, or at the `begin` or `end` of the newest.

        :raises OSError: It can't be read.
        """
        if where == "oldest":
            return
        for path in reversed(chain(self.path)):
            with suppress(UnreadableFile, FileNotFoundError), content(path) as file:
                if path == self.path:
                    begun = self._open(file, lastLine(file) if where == "end" else 0)
                    self.due = begun and self._reader.offset > 0
                elif begun := self._open(file, 0):
                    # What comes is behind the newest of its predecessors.
                    while self._reader.take(SKIPPED) or self._reader.torn():
                        pass
                    self._reader.long.clear()
                    self._tail = before(file, self._reader.offset)
                    self._done = self.due = True
                if begun:
                    return

    def resume(self, note: str, count: int, crc: int, want: int) -> None:
        """Find the place `count` lines behind that of `note`; the checksum tells whether it is it.

        It was `crc` at the note, and is `want` now.

        :raises Gone: It is not to be found.
        :raises OSError: It is not to be found, but a file can't be read that it may be in.
        :raises ValueError: The note is none of a Follower's.
        """
        noted = Note.parse(note)
        if noted.done and not count:
            self._noted = noted
            return
        self._open(*found(self.path, noted, count, crc, self._limit, want))
        self._noted = noted

    def skip(self, note: str) -> None:
        """Go on behind the file of `note`, which is gone."""
        self._noted = Note.parse(note)._replace(done=True)

    @property
    def note(self) -> Note:
        """The place: all lines before it have been taken, and none behind it."""
        assert self._file is not None
        head, _, _, written = self._known
        offset = self._reader.offset
        return Note.of(self._file, head, offset, self._tail, written, self._done)

    @property
    def lag(self) -> int:
        """Bytes of the present file that have not been taken."""
        return 0 if self._file is None else self._file.left(self._reader.offset)

    @property
    def where(self) -> tuple[str, int]:
        """The name of the present file when it was opened, and the bytes taken; `path` if none."""
        return (self._file.path, self._reader.offset) if self._file is not None else (self.path, 0)

    @property
    def ended(self) -> bool:
        """Whether all there was has been taken, and nothing of it is there any more."""
        return self._file is None and self._noted is not None and not chain(self.path)

    @property
    def idle(self) -> bool:
        """Whether nothing has happened to the file since `take` returned no line."""
        return self._seen is not None and self._seen == self._look()

    def noted(self, note: Note) -> None:
        """Go on, for `note` is kept."""
        self._noted = note
        self.due = False
        if self._done:
            self.close()

    def take(self, most: int) -> list[bytes]:
        """Return the next lines, at most `most`; none if there are none at present.

        Call it again later. None come while `due`.
        """
        if self.due or self._stopped or self._seconds() < self._again:
            return []
        self._again = 0.0
        seen = self._look()
        lines = self._take(most)
        waiting = self.due or self._done or self._still is not None or self._again
        self._seen = None if lines or waiting else seen
        return lines

    def stop(self) -> None:
        """Have a `take` that is under way in a thread return soon, and no more come."""
        self._stopped = True
        if self._file is not None:
            self._reader.stopped = True

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._done = False
            self._seen = None

    def _take(self, most: int) -> list[bytes]:
        if self._file is None and not self._next():
            return []
        assert self._file is not None
        if self._done:
            self.due = True
            return []
        start = self._reader.offset
        try:
            lines = self._reader.take(most)
            if self._stopped or not self._same(start):
                return []
            if lines:
                self._still, self._closed = None, False
            else:
                lines = self._ended()
        except UnreadableFile as problem:
            self._unreadable(self._file.path, str(problem))
            return []
        if lines and (self._noted is None or self._noted.done):
            # The server has to know the file before any of its lines.
            self._reader = LineReader(self._file, start, self._limit)
            self._done = False
            self.due = True
            return []
        if lines or self._done:
            self._tail = before(self._file, self._reader.offset)
        self._tell()
        if lines and self._noted is not None and not self._done:
            grown = self._noted.length < len(self._known.head) == HEAD
            self.due = grown or self._reader.offset - self._noted.offset >= STRIDE
        return lines

    def _open(self, file: Content, offset: int) -> bool:
        """Go on in `file`; return whether it has any content, without which it can't be known."""
        if not (head := file.read(0, HEAD)):
            return False
        reader = LineReader(file, offset, self._limit)
        self._file, self._reader = file, reader
        file.kept = True
        self._tail = before(file, offset)
        self._known = Known(head, self._tail, offset, file.stat().st_mtime_ns)
        self._copy = file.final
        self._still, self._closed, self._done = None, False, False
        if file.skipped:
            self._said(f"{file.path} begins with {file.skipped} NULs, which are passed over")
        return True

    def _look(self) -> object:
        """Return what changes when there may be something to take."""
        try:
            there = os.stat(self.path)
        except OSError:
            there = None
        inode = there and (there.st_dev, there.st_ino)
        if self._file is None:
            folder = changed(self.path)
            # What happens in the same tick does not show.
            here = inode, there and there.st_size, folder
            return here if time.time_ns() - folder > TICK else object()
        said = self._file.stat()
        return inode, said.st_size, said.st_mtime_ns

    def _same(self, start: int) -> bool:
        """Return whether the file still is what was read; if not, go on in the copy of it."""
        file = self._file
        assert file is not None
        if self._copy:
            return True
        written = file.stat().st_mtime_ns
        head = file.read(0, HEAD)
        same = self._known.of(file)
        folder = changed(self.path)
        if not same or folder != self._folder:
            if (copy := copied(self.path, file, self._known)) is not None:
                self._said(f"{self.path} was truncated; its lines go on in {copy.path}")
                file.close()
                written = self._known.written
                self._open(copy, start)
                self._copy, self._known = True, self._known._replace(written=written)
                return False
            if not same:
                self._said(
                    f"{self.path} was truncated and there is no copy of it: "
                    f"what stood behind byte {start} is lost, if anything did"
                )
                self._reader = LineReader(file, start, self._limit)
                self._done = self.due = True
                return False
            self._folder = folder if time.time_ns() - folder > TICK else 0
        self._known = Known(head, self._reader.tail, self._reader.end, written)
        return True

    def _ended(self) -> list[bytes]:
        """Return the last line without an ending, if nobody will go on with it."""
        file = self._file
        assert file is not None
        if not self._copy:
            with suppress(OSError):
                if os.path.samestat(os.stat(self.path), file.stat()):
                    self._still, self._closed = None, False
                    return []
            if not self._closed:
                if self._still is None:
                    self._still = self._seconds()
                # Something may have been written since it was read: once more, then.
                waited = self._seconds() - self._still >= self._settle
                self._closed = unwritten(file.fileno()) or (waited and size(self.path) > 0)
                return []
        lines = self._reader.torn()
        self._done = True
        return lines

    def _next(self) -> bool:
        """Open the file that follows the one that is done; return whether there is one."""
        for _ in range(5):
            there = listing(self.path)
            paths = [path for path, _ in there if path not in self._passed]
            path = ""
            try:
                for path, offset in newer(self.path, paths, self._noted):
                    with content(path) as file:
                        if listing(self.path) != there:
                            break  # They have been renamed meanwhile.
                        if file.read(offset, 1) and self._open(file, offset):
                            return True
                else:
                    return False
            except FileNotFoundError:
                continue
            except OSError as problem:
                self._later(f"{path}: {problem.strerror}")
                return False
            except UnreadableFile as problem:
                self._unreadable(path, str(problem))
                return False
        return False

    def _later(self, problem: str) -> float:
        """Try again later; return since when there has been this problem."""
        now = self._seconds()
        self._again = now + AGAIN
        if self._wrong[1] != problem:
            self._wrong = now, problem
            self._said(f"{problem}; trying again")
        return self._wrong[0]

    def _unreadable(self, path: str, problem: str) -> None:
        """Try again for a while, for a file that is being compressed is not whole."""
        now = self._seconds()
        if now - self._later(problem) < self._settle:
            return
        self._said(f"{problem}: what it holds from here on is passed over")
        self._wrong = now, ""
        if self._file is None:
            self._passed.add(path)
        else:
            self._done = True

    def _tell(self) -> None:
        for length in self._reader.long:
            self._said(
                f"{self.path}: a line of {counted(length, 'byte')} was passed over, "
                f"the limit is {self._limit}"
            )
        self.long += len(self._reader.long)
        self._reader.long.clear()
