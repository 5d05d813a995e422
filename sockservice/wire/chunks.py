"""Framings without line endings: each chunk that arrives, or each packet, is a line."""

from collections import deque

from sockservice.wire.framing import CRLF, LF, LINE_SIZE, Framing, Lines, Refusal, overlong


class _Whole(Framing):
    """A framing that receives each line whole, and keeps it until it is taken."""

    __slots__ = ("_received",)

    stateless = True

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._received: deque[bytes] = deque()

    @property
    def held(self) -> int:
        """Bytes kept, about."""
        return sum(map(len, self._received)) + LINE_SIZE * len(self._received)

    startsLine = True

    def receive(self, data: bytes) -> None:
        """Keep `data` until it is taken."""
        self._received.append(data)

    def release(self) -> bytes:
        """Return the chunks not taken yet, and keep them no longer."""
        data = b"".join(self._received)
        self._received.clear()
        return data

    def finish(self) -> None:
        """Return None: nothing is ever torn."""


class Chunks(_Whole):
    """Treats each chunk of bytes that arrives as a line, as a naive server does.

    The network splits and joins chunks at will: it is for peers that send no line
    endings and wait for each reply.
    """

    __slots__ = ()

    def take(self, most: int) -> Lines | None:
        """Return the next chunks, at most `most`, or None."""
        chunks = [self._received.popleft() for _ in range(min(most, len(self._received)))]
        return Lines(chunks, b"") if chunks else None

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Return the bytes to send: the bare replies."""
        return b"".join(replies)


class Packets(_Whole):
    """Treats each packet as a line, with or without an ending; one packet, one reply."""

    __slots__ = ()

    def take(self, most: int) -> Lines | Refusal | None:
        """Return the next packet's line, or None."""
        if not self._received:
            return None
        line = self._received.popleft()
        ending = CRLF if line.endswith(CRLF) else LF if line.endswith(LF) else b""
        line = line.removesuffix(ending)
        if len(line) > self.limit:
            return overlong(self.limit, ending)
        return Lines([line], ending)

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Return the packet to send."""
        return b"".join(reply + ending for reply in replies)
