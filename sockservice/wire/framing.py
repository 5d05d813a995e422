"""The interface of framings, which convert bytes to lines and replies to bytes."""

from typing import NamedTuple

LF = b"\n"
CRLF = b"\r\n"

#: Bytes of overhead, about, for each line kept in a list, and for the list itself.
LINE_SIZE = 40
LINES_SIZE = 160


class Lines(NamedTuple):
    """Consecutive lines with the same ending, which is removed."""

    lines: list[bytes]
    ending: bytes


class Refusal(NamedTuple):
    """Takes the place of a line that is refused; `reason` is fit for a reply."""

    reason: bytes
    ending: bytes


class Framing:
    """Splits one stream into lines and encodes the replies: the base class of framings.

    LineServer's `framing` creates one for each connection, with the limit of a line in
    bytes. A subclass implements `take` and `encode`, and finds in `data` what was received
    and not taken yet; one that keeps bytes elsewhere returns their number from `held`.

    A ValueError from `receive` or `take` means that the stream is invalid from there on:
    its text is sent as a refusal, and the connection is closed.
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
        """Whether no line is incomplete; an incomplete one is subject to the line timeout."""
        return not self.held

    def receive(self, data: bytes) -> None:
        """Keep `data` until it is taken."""
        self.data = self.data + data if self.data else data

    def take(self, most: int) -> Lines | Refusal | None:
        """Return the next lines, at most `most` (at least 1), or None if no line is complete."""
        raise NotImplementedError(f"{type(self).__name__} has no take()")

    def finish(self) -> Refusal | None:
        """Return, once everything was taken, what is wrong with the end of the stream."""
        return None if self.startsLine else Refusal(b"unterminated line", LF)

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Return the bytes to send for the replies to lines that ended in `ending`.

        :raises TypeError: A reply is not bytes.
        :raises ValueError: A reply cannot be framed.
        """
        raise NotImplementedError(f"{type(self).__name__} has no encode()")
