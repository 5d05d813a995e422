"""The interface of framings, which convert bytes to lines and replies to bytes."""

from typing import Any, NamedTuple

from sockservice.wire.plurals import counted

#: Longest line in bytes: what one read brings (64 KiB), so that lines of any
#: usual text, log or JSON fit and a connection holds little.
LINE_LIMIT = 65536

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

    @property
    def why(self) -> str:
        """The kind of the reason, in a word: what counters tell apart."""
        kinds = {b"line longer": "line-limit", b"unterminated": "unterminated"}
        return next(
            (each for text, each in kinds.items() if self.reason.startswith(text)), "framing"
        )


def overlong(limit: int, ending: bytes) -> Refusal:
    """Return what takes the place of a line of more than `limit` bytes."""
    return Refusal(b"line longer than %b" % counted(limit, "byte").encode(), ending)


class Control(NamedTuple):
    """What a framing itself answers to its peer: bytes to send as they are, in their place.

    `last` says that the connection ends behind them.
    """

    data: bytes
    last: bool = False


class Body(NamedTuple):
    """Bytes of the stream as they are, and the framing that goes on behind them."""

    data: bytes
    framing: "Framing"


class Farewell(ValueError):
    """The peer ends the stream, as its protocol has it; the text is what it says, or ""."""


class Framing:
    """Splits one stream into lines and encodes the replies: the base class of framings.

    LineServer's `framing` creates one for each connection, with the limit of a line in
    bytes. A subclass implements `take` and `encode`, and finds in `data` what was received
    and not taken yet; one that keeps bytes elsewhere returns their number from `held`.

    A ValueError from `receive` or `take` means that the stream is invalid from there on:
    its text is sent as a refusal, and the connection is closed.
    """

    __slots__ = ("data", "limit")

    #: Whether it makes lines of text, between whose bytes a telnet client's commands may stand.
    telnet = False
    #: Whether `encode` remembers nothing. Then it is called with many replies at once, and may be
    #: called in vain; else once for each reply, in order.
    stateless = False
    #: Whether its lines are never answered, as those of syslog.
    mute = False
    #: Whether it is to be asked for more though as many lines as may be are not answered yet.
    expects = False
    #: How the line that was taken last ended, and what is begun of the next, where `whole`
    #: and `count` take lines.
    ending = LF
    begun: bytes | bytearray = b""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        # The short ways that it inherits are those of what it has replaced.
        if {"receive", "take"} & vars(cls).keys():
            for name in {"count", "whole"} - vars(cls).keys():
                setattr(cls, name, getattr(Framing, name))

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

    def take(self, most: int) -> Lines | Refusal | Control | Body | None:
        """Return the next lines, at most `most` (at least 1), or None when no line is whole."""
        raise NotImplementedError(f"{type(self).__name__} has no take()")

    def whole(self, data: bytes) -> list[bytes] | None:
        """Return the lines of `data` as if it had been received and taken, or None and do nothing.

        It may be None for any reason: `receive` and `take` are the way for all cases.
        """
        return None

    def count(self, data: bytes) -> int:
        """Return the number of lines of `data`, as if they had been taken; 0 and do nothing.

        As with `whole`, 0 means that there is no short way. A reply to each of these lines
        is sent as it is, followed by their `ending`.
        """
        return 0

    def release(self) -> bytes:
        """Return what was received and not taken yet, and keep it no longer."""
        data, self.data = self.data, b""
        return data

    def finish(self) -> Refusal | None:
        """Return, once everything was taken, what is wrong with the end of the stream."""
        return None if self.startsLine else Refusal(b"unterminated line", LF)

    def goodbye(self) -> bytes:
        """Return what a client sends before it closes, once all its lines are answered."""
        return b""

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Return the bytes to send for the replies to lines that ended in `ending`.

        :raises TypeError: A reply is not bytes.
        :raises ValueError: A reply cannot be framed.
        """
        raise NotImplementedError(f"{type(self).__name__} has no encode()")
