"""Split a stream into lines that end in LF or CRLF, of limited length.

    framer = Framer(limit=65536)
    framer.receive(chunk)                    # as often as bytes arrive
    while (item := framer.take(1000)) is not None:
        ...                                  # Lines, or a Refusal in their place
    framer.finish()                          # at the end of the stream

The same bytes give the same lines and refusals however they arrive. `receive`
only keeps bytes; `take` splits off at most as many lines as its caller can answer
now, so what waits for a slow peer waits as plain bytes.
"""

from itertools import groupby

from sockservice.wire.framing import (
    CRLF,
    LF,
    LINE_SIZE,
    LINES_SIZE,
    Framing,
    Lines,
    Refusal,
    overlong,
)

# As a number: the search takes a seventh of the time of that for bytes.
_CR = CRLF[0]

# Bytes of a line from which on each is searched for instead of counting all: that takes 60 ns
# a line, counting 0.28 ns a byte, so that a read of 64 KiB in lines of 4,000 bytes takes 9 us
# instead of 27.
_LONG = 512

# The same as Lines(…), in a third of the time.
_lines = tuple.__new__


class Framer(Framing):
    """Splits one stream into lines that end in LF or CRLF.

    `limit` is the length in bytes of the longest line, without its ending.
    A longer one is dropped as it arrives, in constant memory, and a
    :class:`Refusal` takes its place when it ends.
    """

    __slots__ = ("_dropped", "_items", "begun", "ending")

    telnet = True
    stateless = True

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        #: An incomplete line, known to hold no LF: never searched again, so that a line
        #: arriving byte by byte costs O(n), not O(n * n).
        self.begun: bytearray | bytes = b""
        # The last byte seen of a line that is too long; empty while none is.
        self._dropped = b""
        self._items: list[Lines | Refusal] | tuple[()] = ()
        #: The ending of the line taken last.
        self.ending = LF

    @property
    def startsLine(self) -> bool:
        """Whether the next byte received will be the first of a line."""
        if self.data:
            return self.data.endswith(LF)
        return not (self.begun or self._dropped)

    @property
    def held(self) -> int:
        """Bytes kept, about."""
        held = len(self.data) + len(self.begun)
        for item in self._items:
            held += LINES_SIZE
            if isinstance(item, Lines):
                held += sum(map(len, item.lines)) + LINE_SIZE * len(item.lines)
        return held

    def whole(self, data: bytes) -> list[bytes] | None:
        """Return the lines of `data` if they can be split at once, as usual; otherwise None.

        The same as receiving `data` and taking its lines, if nothing was kept before,
        nothing is afterwards, and all lines end alike and are within the limit.
        """
        if self.data or self.begun or self._dropped or self._items:
            return None
        ending = self._alike(data)
        if ending is None:
            return None
        lines = data.split(ending)
        if lines.pop() or not lines:
            return None
        self.ending = ending
        return lines

    def count(self, data: bytes) -> int:
        """Take the lines of `data` and return their number only; 0 if that is not possible.

        The same as receiving `data` and taking its lines, if there are any and all end
        alike and are within the limit; otherwise nothing happens.
        """
        if self.data or self._dropped or self._items:
            return 0
        end = data.find(LF) + 1
        if 0 < end == len(data) <= self.limit and not self.begun and _CR not in data:
            # A single line: half the time.
            self.ending = LF
            return 1
        ending = self._alike(data)
        if ending is None or not end:
            return 0
        lines = _count(data, end)
        end = data.rfind(LF) + 1
        self.begun = bytearray(data[end:]) if end < len(data) else b""
        self.ending = ending
        return lines

    def take(self, most: int) -> Lines | Refusal | None:
        """Return the next lines, at most `most` (at least 1), or None if no line is complete."""
        if self._items:
            return self._items.pop(0)
        data = self.data
        if not data:
            return None
        if self._dropped:
            return self._drop(data)
        ending = self._alike(data)
        lines = data.split(ending or LF, most)
        self.data = lines.pop()
        if not lines:
            self._begin()
            return None
        if self.begun:
            lines[0] = bytes(self.begun) + lines[0]
            self.begun = b""
        if ending is None:
            return self._sort(lines)
        self.ending = ending
        return _lines(Lines, (lines, ending))

    def finish(self) -> Refusal | None:
        """Return, once everything was taken, what is wrong with the end of the stream.

        A last line without an ending may be truncated, so it is refused. Its reply
        ends as the line before did.
        """
        if self._dropped:
            return self._refuse(self.ending)
        if self.begun:
            return Refusal(b"unterminated line", self.ending)
        return None

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Return the bytes to send: each reply ends as its line did.

        :raises ValueError: A reply holds an LF, which would make two of it.
        """
        if not replies:
            return b""
        data = ending.join(replies) + ending
        if data.count(LF) != len(replies):
            raise ValueError("a reply holds an LF")
        return data

    def _alike(self, data: bytes) -> bytes | None:
        """Return the ending of all lines that `data` ends, if it is one and they fit the limit.

        A read is seldom longer than the limit of one line, so for most reads the length of
        each line need not be checked.
        """
        begun = self.begun
        if len(data) > self.limit:
            return None
        if begun and (len(begun) + data.find(LF) > self.limit or begun.endswith(b"\r")):
            return None
        if _CR not in data:
            return LF
        crlf = data.count(CRLF)
        if not crlf:
            return LF
        return CRLF if crlf == data.count(LF) else None

    def _begin(self) -> None:
        """Keep an incomplete line apart from data that may hold an LF."""
        data, self.data = self.data, b""
        # Created on demand: an idle connection takes less memory without it.
        self.begun = self.begun or bytearray()
        self.begun += data
        length = len(self.begun)
        # One byte over may be the CR of an ending whose LF is still to come.
        if length > self.limit and not (length == self.limit + 1 and self.begun[-1] == 13):
            self._dropped = data[-1:]
            self.begun = b""

    def _drop(self, data: bytes) -> Refusal | None:
        """Drop the rest of a line that is too long; refuse it when it ends."""
        end = data.find(LF)
        if end < 0:
            self.data = b""
            self._dropped = data[-1:]
            return None
        last = data[end - 1 : end] or self._dropped
        self._dropped = b""
        self.data = data[end + 1 :]
        return self._refuse(CRLF if last == b"\r" else LF)

    def _refuse(self, ending: bytes) -> Refusal:
        self.ending = ending
        return overlong(self.limit, ending)

    def _sort(self, lines: list[bytes]) -> Lines | Refusal:
        """Group lines with the same ending, refuse those too long; return the first group."""
        self._items = []
        for crlf, group in groupby(lines, lambda line: line.endswith(b"\r")):
            ending = CRLF if crlf else LF
            alike = [line[:-1] if crlf else line for line in group]
            for fits, run in groupby(alike, lambda line: len(line) <= self.limit):
                if fits:
                    self.ending = ending
                    self._items.append(Lines(list(run), ending))
                else:
                    self._items += [self._refuse(ending) for _ in run]
        return self._items.pop(0)


def _count(data: bytes, end: int) -> int:
    """Return the number of line endings in `data`, of which `end` is behind the first."""
    lines = 1
    if end > _LONG:
        # No more than would make it slower than counting, if the lines behind are shorter.
        for _ in range(len(data) // _LONG):
            found = data.find(LF, end) + 1
            if not found:
                return lines
            lines += 1
            end = found
    return lines + data.count(LF, end)
