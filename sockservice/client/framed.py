"""A client's side of a framing: what lines are sent as, and what is made of what is received."""

from collections.abc import Callable, Iterator
from typing import Any

from twisted.logger import Logger

from sockservice.wire.framer import Framer
from sockservice.wire.framing import CRLF, LF, Body, Farewell, Framing
from sockservice.wire.plurals import counted

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
        self._unended = 0  # bytes received behind the last whole item
        #: Why nothing more can be made of what is received.
        self.broken = ""
        #: The words with which the server has ended the stream, escaped, or "".
        self.farewell = ""

    @property
    def held(self) -> int:
        """Bytes that were received and are no line yet."""
        return self._framing.held

    def torn(self) -> str:
        """Return in words, behind a semicolon, how much has come that is no whole reply; or ""."""
        if not self._unended:
            return ""
        what = "without a line ending" if type(self._framing) is Framer else "of no whole reply"
        return f"; {counted(self._unended, 'byte')} came {what}"

    def check(self, lines: list[bytes]) -> None:
        """Check that lines can be sent, as far as that is known before.

        :raises ValueError: One holds an LF, which would make two of it.
        """
        if self._plain and any(LF in line for line in lines):
            raise ValueError("a line holds no LF")

    def encoded(self, line: bytes) -> bytes:
        """Return the bytes to send for a line.

        :raises ValueError: It holds an LF, which would make two of it, or the framing can't.
        """
        self.check([line])
        # After a CR, a single LF would make that CR a part of the ending.
        ending = CRLF if line.endswith(b"\r") else self._ending
        try:
            data = self._framing.encode([line], ending)
            if not isinstance(data, bytes):
                raise ValueError(f"{type(data).__name__} is not bytes")
        except ValueError as problem:
            raise ValueError(f"a line can't be framed: {problem}") from problem
        except Exception as problem:
            log.failure("the framing failed")
            raise ValueError("a line can't be framed: internal error") from problem
        return data

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

    def goodbye(self) -> bytes:
        """Return what is to be sent before the connection is closed, all lines being answered."""
        return self._framing.goodbye() if isinstance(self._framing, Framing) else b""

    def items(self, data: bytes) -> Iterator[Any]:
        """Receive `data`; give what the framing makes of it, until it fails: see `broken`."""
        framing = self._framing
        self._unended += len(data)
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
            self._unended = 0
            try:
                item = framing.take(10_000)
            except Exception as problem:
                self._fail(problem)
            else:
                if item is None:
                    self._unended = framing.held

    def _fail(self, problem: Exception) -> None:
        if isinstance(problem, Farewell):
            self.farewell = ascii(str(problem)[:200].rstrip())[1:-1]
            colon = ": " if self.farewell else ""
            self.broken = f"the server ended the connection{colon}{self.farewell}"
            return
        if not isinstance(problem, ValueError):
            log.failure("the framing failed")
            problem = ValueError("internal error")
        self.broken = f"what the server sends can't be understood: {problem}"
