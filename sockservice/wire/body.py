"""Take so many bytes as they are, in the middle of a stream of lines."""

from collections.abc import Callable

from sockservice.wire.framing import Body, Framing


class Expecting(Framing):
    """Stands in the place of `framing` until `size` bytes are there; then gives them as a Body.

    `unfinished` is called when the stream ends before.
    """

    __slots__ = ("_body", "_seen", "_unfinished", "framing", "size")

    expects = True

    def __init__(self, framing: Framing, size: int, unfinished: Callable[[], None]) -> None:
        super().__init__(size)
        self.framing = framing
        self.size = size
        self._unfinished = unfinished
        # It grows in place: pieces added to bytes would be copied again with each.
        self._body = bytearray(framing.release())
        self._seen = -1

    def stirs(self) -> bool:
        """Return whether anything of it has come since this was asked last."""
        before, self._seen = self._seen, len(self._body)
        return before != self._seen

    @property
    def held(self) -> int:
        """Bytes kept, about."""
        return len(self._body) + self.framing.held

    def receive(self, data: bytes) -> None:
        """Keep `data` until the body is whole."""
        self._body += data

    def release(self) -> bytes:
        """Return what was received, and keep it no longer."""
        data, self._body = bytes(self._body), bytearray()
        return data

    @property
    def startsLine(self) -> bool:
        """Whether nothing is begun: the body is."""
        return False

    def take(self, most: int) -> Body | None:
        """Return the body once it is whole; the framing goes on with what is behind it."""
        if len(self._body) < self.size:
            return None
        whole = self.release()
        body, rest = whole[: self.size], whole[self.size :]
        if rest:
            self.framing.receive(rest)
        return Body(body, self.framing)

    def finish(self) -> None:
        """The stream ends in the body: whoever waits for it is told."""
        self._unfinished()

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Return the bytes to send, as the framing writes them."""
        return self.framing.encode(replies, ending)
