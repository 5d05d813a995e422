"""Lines that belong together, taken as one: replies of several lines, at a client."""

from sockservice.wire.framer import Framer
from sockservice.wire.framing import LF, Lines, Refusal
from sockservice.wire.plurals import counted


class Continued(Framer):
    """Takes a line that is continued, and the next, as one line with an LF between them.

    A subclass says in `continues` which lines are. All together may be as long as the limit.
    """

    __slots__ = ("_parts",)

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._parts: list[bytes] = []

    def continues(self, line: bytes) -> bool:
        """Return whether the next line belongs to `line`."""
        raise NotImplementedError(f"{type(self).__name__} has no continues()")

    @property
    def held(self) -> int:
        """Bytes kept, about."""
        return super().held + sum(map(len, self._parts)) + len(self._parts)

    @property
    def startsLine(self) -> bool:
        """Whether nothing is begun: neither a line, nor what continues one."""
        return super().startsLine and not self._parts

    def finish(self) -> Refusal | None:
        """Return, once everything was taken, what is wrong with the end of the stream."""
        torn = super().finish()
        if torn is None and self._parts:
            torn = Refusal(b"unterminated line", self.ending)
        return torn

    def take(self, most: int) -> Lines | Refusal | None:
        """Return the next line whose continuation is there, or None.

        :raises ValueError: It is too long with all that continues it.
        """
        while isinstance(item := super().take(1), Lines):
            self._parts += item.lines
            if sum(map(len, self._parts)) > self.limit:
                raise ValueError(
                    f"lines that belong together are longer than {counted(self.limit, 'byte')}"
                )
            if not self.continues(item.lines[0]):
                parts, self._parts = self._parts, []
                return Lines([LF.join(parts)], item.ending)
        return item
