"""Bytes to lines, without I/O: cut them, bound them, know how each one ended.

    framer = Framer(limit=65536)
    framer.receive(chunk)                    # as often as bytes arrive
    while (item := framer.take(1000)) is not None:
        ...                                  # Lines, or a Refusal in their place
    framer.finish()                          # at the end of the stream

The same bytes give the same lines and refusals however they were cut into
chunks. `receive` only keeps bytes; `take` cuts at most as many lines as its
caller can answer now, so what waits for a slow peer waits as plain bytes.
"""

from collections import deque
from itertools import groupby
from typing import Any, NamedTuple

LF = b"\n"
CRLF = b"\r\n"
# As a number, for that is found in a seventh of the time that bytes are.
_CR = CRLF[0]

#: Bytes that a line kept in a list takes up besides its own, about; and a list of lines.
LINE_SIZE = 40
LINES_SIZE = 160


class Lines(NamedTuple):
    """Consecutive lines that ended alike, without their endings."""

    lines: list[bytes]
    ending: bytes


# What Lines(…) comes down to, in a third of the time.
_lines = tuple.__new__


class Refusal(NamedTuple):
    """Stands where a line stood that cannot be taken; `reason` is fit for a reply."""

    reason: bytes
    ending: bytes


class Framing:
    """What cuts one stream into lines and writes the replies: a base class for one's own.

    LineServer's `framing` makes one for each connection, with the longest line in bytes.
    A subclass writes `take` and `encode`, and finds in `data` what was received and not
    taken yet; one that keeps bytes elsewhere says in `held` how many.

    A ValueError from `receive` or `take` says that the stream makes no sense any
    more: its text is sent as a refusal and the connection closed.
    """

    __slots__ = ("data", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: Bytes received and not taken yet.
        self.data = b""

    @property
    def held(self) -> int:
        """Bytes kept, about: they count towards the memory limit."""
        return len(self.data)

    @property
    def startsLine(self) -> bool:
        """Whether no line is begun: one that is has the line timeout to end."""
        return not self.held

    def receive(self, data: bytes) -> None:
        """Keep `data` until it is taken."""
        self.data = self.data + data if self.data else data

    def take(self, most: int) -> Lines | Refusal | None:
        """Return the next lines, at most `most` (at least 1), or None when no line is whole."""
        raise NotImplementedError(f"{type(self).__name__} has no take()")

    def finish(self) -> Refusal | None:
        """Return, once everything was taken, what is wrong with the end of the stream."""
        return None if self.startsLine else Refusal(b"unterminated line", LF)

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Return the bytes to send for the replies to lines that ended in `ending`.

        :raises TypeError: A reply is no bytes.
        :raises ValueError: A reply can't be framed.
        """
        raise NotImplementedError(f"{type(self).__name__} has no encode()")


class Measured(Framing):
    """A framing that does not say what it keeps, measured from outside.

    What was received and came out in no line is held, and a line is begun once a read has
    brought none. What stands between lines counts as held until the next read.
    """

    __slots__ = ("_begun", "_brought", "_framing", "_held", "_read", "_says")

    def __init__(self, framing: Any) -> None:
        self._framing = framing
        # What it derived from Framing it need not mean.
        self._says = getattr(type(framing), "held", Framing.held) is not Framing.held
        self._held = 0
        self._read = 0  # bytes since all was taken
        self._brought = False  # a line, since then
        self._begun = False

    @property
    def held(self) -> int:
        """Bytes kept, about."""
        return int(self._framing.held) if self._says else self._held

    @property
    def startsLine(self) -> bool:
        """Whether no line is begun, as far as can be seen."""
        return not (self._framing.held if self._says else self._begun)

    def receive(self, data: bytes) -> None:
        """Keep `data` until it is taken."""
        self._held += len(data)
        self._read += len(data)
        self._framing.receive(data)

    def take(self, most: int) -> Lines | Refusal | None:
        """Return the next lines, at most `most` (at least 1), or None when no line is whole."""
        item: Lines | Refusal | None = self._framing.take(most)
        if item is not None:
            self._brought = True
            if isinstance(item, Lines):
                self._held = max(0, self._held - sum(map(len, item.lines)))
        elif self._read:
            self._begun = not self._brought
            if self._brought:
                # The line that it ended had all that was held before.
                self._held = min(self._held, self._read)
            self._read = 0
            self._brought = False
        return item

    def finish(self) -> Refusal | None:
        """Return, once everything was taken, what is wrong with the end of the stream."""
        torn: Refusal | None = self._framing.finish()
        return torn

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Return the bytes to send for the replies to lines that ended in `ending`."""
        data: bytes = self._framing.encode(replies, ending)
        return data


def measured(framing: Any) -> Framing:
    """Return `framing` such that it says what it keeps, whoever wrote it."""
    kind = type(framing)
    if isinstance(framing, Framing):
        if kind.held is not Framing.held or kind.receive is Framing.receive:
            return framing
    elif hasattr(framing, "held") and hasattr(framing, "startsLine"):
        return framing  # type: ignore[no-any-return]
    return Measured(framing)


class Framer(Framing):
    """Cut one stream into lines that end in LF or CRLF.

    `limit` is the length in bytes of the longest line, its ending not counted.
    A longer one is dropped as it arrives, in constant memory, and a
    :class:`Refusal` takes its place when it ends.
    """

    __slots__ = ("_dropped", "_items", "begun", "ending")

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        #: What is begun and not ended, and known to hold no LF: never searched again,
        #: so that a line arriving byte by byte costs O(n), not O(n * n).
        self.begun: bytearray | bytes = b""
        # The last byte seen of a line that is too long; empty while none is.
        self._dropped = b""
        self._items: list[Lines | Refusal] | tuple[()] = ()
        #: How the line that was taken last ended.
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
        """Give the lines of `data` if they can be had at once, as usual; else None.

        It is as if `data` had been received and taken: nothing was kept before,
        nothing is now, and all lines end alike and fit.
        """
        if self.data or self.begun or self._dropped or self._items:
            return None
        ending = self._alike(data)
        if ending is None:
            return None
        lines = data.split(ending)
        if lines.pop():
            return None
        self.ending = ending
        return lines

    def count(self, data: bytes) -> int:
        """Take the lines of `data` at once for their number alone; 0 if they can't be.

        It is as if `data` had been received and its lines taken, if there are any and
        all end alike and fit; else nothing happens.
        """
        if self.data or self._dropped or self._items:
            return 0
        end = data.find(LF) + 1
        if 0 < end == len(data) <= self.limit and not self.begun and _CR not in data:
            # A lone line: half the time.
            self.ending = LF
            return 1
        ending = self._alike(data)
        if ending is None or not end:
            return 0
        lines = data.count(LF)
        end = data.rfind(LF) + 1
        self.begun = bytearray(data[end:]) if end < len(data) else b""
        self.ending = ending
        return lines

    def take(self, most: int) -> Lines | Refusal | None:
        """Give the next lines, at most `most` (at least 1), or None when no line is whole."""
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
        """Say, once everything was taken, what is wrong with the end of the stream.

        A last line without an ending may be torn, so it is refused. Its reply
        ends as the line before did.
        """
        if self._dropped:
            return self._refuse(self.ending)
        if self.begun:
            return Refusal(b"unterminated line", self.ending)
        return None

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Give the bytes to send: each reply ends as its line did.

        :raises ValueError: A reply holds an LF, which would make two of it.
        """
        if not replies:
            return b""
        data = ending.join(replies) + ending
        if data.count(LF) != len(replies):
            raise ValueError("a reply holds an LF")
        return data

    def _alike(self, data: bytes) -> bytes | None:
        """Give what ends all lines that `data` ends, if they end alike and are known to fit.

        A whole read is seldom longer than one line may be, so most reads are spared the
        look at each line.
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
        """Keep the begin of a line apart from what may hold an LF."""
        data, self.data = self.data, b""
        # A buffer only for who needs one: an idle connection is smaller by that.
        self.begun = self.begun or bytearray()
        self.begun += data
        length = len(self.begun)
        # One byte over may be the CR of an ending whose LF is still to come.
        if length > self.limit and not (length == self.limit + 1 and self.begun[-1] == 13):
            self._dropped = data[-1:]
            self.begun = b""

    def _drop(self, data: bytes) -> Refusal | None:
        """Drop what belongs to a line that is too long; refuse it when it ends."""
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
        return Refusal(b"line longer than %d bytes" % self.limit, ending)

    def _sort(self, lines: list[bytes]) -> Lines | Refusal:
        """Group lines that end alike and set aside those too long; give the first group."""
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


class Chunks(Framing):
    """Take each chunk of bytes that arrives for a line, as a naive server does.

    The network cuts and joins chunks at will: it is for peers that send no line
    endings and wait for each reply.
    """

    __slots__ = ("_chunks",)

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._chunks: deque[bytes] = deque()

    @property
    def held(self) -> int:
        """Bytes kept, about."""
        return sum(map(len, self._chunks)) + LINE_SIZE * len(self._chunks)

    startsLine = True

    def receive(self, data: bytes) -> None:
        """Keep `data` until it is taken."""
        self._chunks.append(data)

    def take(self, most: int) -> Lines | None:
        """Give the next chunks, at most `most`, or None."""
        chunks = [self._chunks.popleft() for _ in range(min(most, len(self._chunks)))]
        return Lines(chunks, b"") if chunks else None

    def finish(self) -> None:
        """A stream of chunks may end anywhere."""

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Give the bytes to send: the bare replies."""
        return b"".join(replies)


class Packets(Framing):
    """Take each packet for a line, with or without an ending; one packet, one reply."""

    __slots__ = ("_packets",)

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._packets: deque[bytes] = deque()

    @property
    def held(self) -> int:
        """Bytes kept, about."""
        return sum(map(len, self._packets)) + LINE_SIZE * len(self._packets)

    startsLine = True

    def receive(self, data: bytes) -> None:
        """Keep a packet until it is taken."""
        self._packets.append(data)

    def take(self, most: int) -> Lines | Refusal | None:
        """Give the next packet's line, or None."""
        if not self._packets:
            return None
        line = self._packets.popleft()
        ending = CRLF if line.endswith(CRLF) else LF if line.endswith(LF) else b""
        line = line.removesuffix(ending)
        if len(line) > self.limit:
            return Refusal(b"line longer than %d bytes" % self.limit, ending)
        return Lines([line], ending)

    def finish(self) -> None:
        """A packet is always whole."""

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Give the packet to send."""
        return b"".join(reply + ending for reply in replies)
