"""Lines that a sender keeps until they are answered."""

from collections.abc import Callable

from twisted.internet.defer import Deferred


class Kept:
    """Lines passed to a sender together, and how many of them have been answered."""

    __slots__ = ("answered", "count", "done", "lines", "sent", "written")

    def __init__(self, lines: list[bytes], answered: Callable[[list[bytes]], object]) -> None:
        self.lines = lines
        self.count = 0
        self.sent = 0  # over any connection
        self.written = 0  # over the present one, or answered before
        self.answered = answered
        self.done: Deferred[None] = Deferred()
