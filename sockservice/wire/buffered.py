"""Keep what is received of a stream so that a frame may come byte by byte at little cost."""

from sockservice.wire.framing import Framing


class Buffered(Framing):
    """A framing that finds what was received in `buffer`, and deletes there what it has taken."""

    __slots__ = ("buffer",)

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        #: Bytes received and not taken yet.
        self.buffer = bytearray()

    @property
    def held(self) -> int:
        """Bytes kept, about."""
        return len(self.buffer)

    def receive(self, data: bytes) -> None:
        """Keep `data` until it is taken."""
        self.buffer += data

    def release(self) -> bytes:
        """Return what was received and not taken yet, and keep it no longer."""
        data, self.buffer = bytes(self.buffer), bytearray()
        return data
