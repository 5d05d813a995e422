"""Read the lines of a file that may grow."""

from typing import Protocol

from sockservice.client.ship.content import HEAD, Content

#: Bytes read at once.
READ = 256 * 1024
#: Bytes before a place by which it is recognised.
TAIL = 1024


class Growing(Protocol):
    """Bytes that may become more."""

    @property
    def final(self) -> bool:
        """Whether what has been read is never changed, so that no `tail` is looked at."""

    def read(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from `offset` on; b"" at the end."""


class LineReader:
    """Reads the lines of a file from `offset` on, those up to `limit` bytes long.

    `offset` is where the first line begins that was not taken. Lines end in LF or CRLF.
    """

    def __init__(self, file: Growing, offset: int, limit: int) -> None:
        self.offset = offset
        #: Whether `take` is to return as soon as it can.
        self.stopped = False
        #: How long each line was that was passed over, in bytes.
        self.long: list[int] = []
        self._file = file
        self._limit = limit
        self._held = b""  # behind `offset` and what is dropped
        self._dropped = 0  # bytes of a line that is too long
        #: The last bytes that were read, at most TAIL.
        self.tail = b"" if file.final else before(file, offset)

    @property
    def end(self) -> int:
        """Where what has been read ends."""
        return self.offset + self._dropped + len(self._held)

    def take(self, most: int) -> list[bytes]:
        """Return at most `most` lines that have ended; none if there are none now.

        :raises UnreadableFile: The file is not whole, or damaged.
        """
        while True:
            while b"\n" in self._held:
                if lines := self._split(most):
                    return lines
            data = b"" if self.stopped else self._file.read(self.end, READ)
            if not data:
                return []
            self.tail = (self.tail + data[-TAIL:])[-TAIL:]
            self._held += data
            # A CR may belong to the ending.
            if b"\n" not in data and len(self._held) > self._limit + 1:
                self._dropped += len(self._held)
                self._held = b""

    def torn(self) -> list[bytes]:
        """Return the last line, which has no ending, if there is one; nothing follows it."""
        size = self._dropped + len(self._held)
        line = self._held.removesuffix(b"\r")
        self.offset += size
        dropped, self._dropped, self._held = self._dropped, 0, b""
        if dropped or len(line) > self._limit:
            self.long.append(size)
            return []
        return [line] if size else []

    def _split(self, most: int) -> list[bytes]:
        lines = self._held.split(b"\n", most)
        rest = lines.pop()
        if self._dropped:
            self.long.append(self._dropped + len(lines.pop(0)))
            self.offset += self._dropped
            self._dropped = 0
        self.offset += len(self._held) - len(rest)
        if b"\r" in self._held:
            lines = [line.removesuffix(b"\r") for line in lines]
        self._held = rest
        if lines and max(map(len, lines)) > self._limit:
            self.long += [len(line) for line in lines if len(line) > self._limit]
            lines = [line for line in lines if len(line) <= self._limit]
        return lines


def before(file: Growing, offset: int) -> bytes:
    """Return the bytes before `offset`, at most TAIL; fewer if the file is shorter."""
    start = max(0, offset - TAIL)
    return file.read(start, offset - start) if offset else b""


def lastLine(file: Content) -> int:
    """Return where the line begins in a file, not compressed, that has not ended."""
    end = file.left(0)
    while end > 0:
        start = max(0, end - HEAD)
        found = file.read(start, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
