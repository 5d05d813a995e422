"""What a framing is: bytes to lines and back, without I/O; a base class for one's own."""

from typing import NamedTuple

LF = b"\n"
CRLF = b"\r\n"

#: Bytes that a line kept in a list takes up besides its own, about; and a list of lines.
LINE_SIZE = 40
LINES_SIZE = 160


class Lines(NamedTuple):
    """Consecutive lines that ended alike, without their endings."""

    lines: list[bytes]
    ending: bytes


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
