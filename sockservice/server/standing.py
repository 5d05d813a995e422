"""How a connection stands: what an operator is told of it."""

from typing import NamedTuple


class Standing(NamedTuple):
    """What a connection has done, and what it holds."""

    peer: str
    #: Seconds since it was made.
    age: float
    lines: int
    refused: int
    #: Bytes held for it: lines that are unfinished or unanswered, replies that are unread.
    held: int
    #: Lines whose replies are awaited.
    unanswered: int
