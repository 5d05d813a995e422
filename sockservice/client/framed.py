"""A client's side of a framing: what lines are sent as, and what is made of what is received."""

from collections.abc import Callable, Iterator
from typing import Any

from twisted.logger import Logger

from sockservice.wire.framer import Framer
from sockservice.wire.framing import CRLF, LF, Body, Framing

log = Logger()


class Framed:
    """Converts with what `framing` makes for replies of at most `limit` bytes.

    Lines are sent with `ending`, where the framing has endings.
    """

    def __init__(self, framing: Callable[[int], Framing], limit: int, ending: bytes) -> None:
        self._framing = framing(limit)
        # Whether lines can be joined without asking the framing, which may not be the Framer's.
        self._plain = type(self._framing).encode is Framer.encode
        self._ending = ending
        #: Why nothing more can be made of what is received.
        self.broken = ""

    @property
    def held(self) -> int:
        """Bytes that were received and are no line yet."""
        return self._framing.held

    def check(self, lines: list[bytes]) -> None:
        """Check that lines can be sent, as far as that is known before.

        :raises ValueError: One holds an LF, which would make two of it.
        """
        if self._plain and any(LF in line for line in lines):
            raise ValueError("a line holds no LF")

    def encoded(self, line: bytes) -> bytes:
        """Return the bytes to send for a line.

        :raises ValueError: It holds an LF, which would make two of it.
        """
        self.check([line])
        # After a CR, a single LF would make that CR a part of the ending.
        ending = CRLF if line.endswith(b"\r") else self._ending
        return self._framing.encode([line], ending)

    def all(self, lines: list[bytes]) -> list[bytes]:
        """Return what to write, in one call each, for several lines.

        :raises ValueError: A line holds an LF, which would make two of it.
        """
        if not self._plain or self._ending != LF:
            return [self.encoded(line) for line in lines]
        # Checked all at once: joined, they hold one LF less than there are lines.
        data = LF.join(lines)
        if data.count(LF) >= max(1, len(lines)):
            raise ValueError("a line holds no LF")
        if b"\r" in data:
            return [self.encoded(line) for line in lines]
        return [data + LF] if lines else []

    def items(self, data: bytes) -> Iterator[Any]:
        """Receive `data`; give what the framing makes of it, until it fails: see `broken`."""
        framing = self._framing
        try:
            framing.receive(data)
            item = framing.take(10_000)
        except Exception as problem:
            item = None
            self._fail(problem)
        while item is not None and not self.broken:
            if isinstance(item, Body):
                self._framing = framing = item.framing
            else:
                yield item
            try:
                item = framing.take(10_000)
            except Exception as problem:
                self._fail(problem)

    def _fail(self, problem: Exception) -> None:
        if not isinstance(problem, ValueError):
            log.failure("the framing failed")
            problem = ValueError("internal error")
        self.broken = f"what the server sends can't be understood: {problem}"
