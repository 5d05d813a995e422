"""Measure from outside how many bytes a framing keeps, if it does not tell."""

from typing import Any

from sockservice.wire.framing import Body, Control, Framing, Lines, Refusal


class Measured(Framing):
    """Wraps a framing that does not tell how many bytes it keeps.

    Bytes received that were in no line count as held, and a line counts as incomplete once
    a read has completed none. Bytes between lines count as held until the next read.
    """

    __slots__ = ("_begun", "_brought", "_framing", "_held", "_read", "_says")

    def __init__(self, framing: Any) -> None:
        self._framing = framing
        # An inherited `held` need not be right for it.
        self._says = getattr(type(framing), "held", Framing.held) is not Framing.held
        self._held = 0
        self._read = 0  # bytes since all was taken
        self._brought = False  # whether there was a line since then
        self._begun = False

    @property
    def held(self) -> int:
        """Bytes kept, about."""
        return int(self._framing.held) if self._says else self._held

    @property
    def startsLine(self) -> bool:
        """Whether no line is incomplete, as far as can be seen."""
        return not (self._framing.held if self._says else self._begun)

    def receive(self, data: bytes) -> None:
        """Keep `data` until it is taken."""
        self._held += len(data)
        self._read += len(data)
        self._framing.receive(data)

    def take(self, most: int) -> Lines | Refusal | Control | Body | None:
        """Return the next lines, at most `most` (at least 1), or None when no line is whole."""
        item: Lines | Refusal | Control | Body | None = self._framing.take(most)
        if item is not None:
            self._brought = True
            if isinstance(item, Lines):
                self._held = max(0, self._held - sum(map(len, item.lines)))
        elif self._read:
            self._begun = not self._brought
            if self._brought:
                # All that was held before belonged to the line that it completed.
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
    """Return `framing`, wrapped if it does not tell how many bytes it keeps."""
    kind = type(framing)
    if isinstance(framing, Framing):
        if kind.held is not Framing.held or kind.receive is Framing.receive:
            return framing
    elif hasattr(framing, "held") and hasattr(framing, "startsLine"):
        return framing  # type: ignore[no-any-return]
    return Measured(framing)
