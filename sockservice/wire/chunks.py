"""Framings without line endings: each chunk that arrives, or each packet, is a line."""

from collections import deque

from sockservice.wire.framing import CRLF, LF, LINE_SIZE, Framing, Lines, Refusal


class Chunks(Framing):
    """Take each chunk of bytes that arrives for a line, as a naive server does.

    The network cuts and joins chunks at will: it is for peers that send no line
    endings and wait for each reply.
    """

    __slots__ = ("_chunks",)

    stateless = True

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._chunks: deque[bytes] = deque()

    @property
    def held(self) -> int:
        """Bytes kept, about."""
        return sum(map(len, self._chunks)) + LINE_SIZE * len(self._chunks)

    startsLine = True

    def receive(self, data: bytes) -> None:
        """Keep `data` until it is taken."""
        self._chunks.append(data)

    def take(self, most: int) -> Lines | None:
        """Give the next chunks, at most `most`, or None."""
        chunks = [self._chunks.popleft() for _ in range(min(most, len(self._chunks)))]
        return Lines(chunks, b"") if chunks else None

    def release(self) -> bytes:
        """Return the chunks not taken yet, and keep them no longer."""
        data = b"".join(self._chunks)
        self._chunks.clear()
        return data

    def finish(self) -> None:
        """A stream of chunks may end anywhere."""

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Give the bytes to send: the bare replies."""
        return b"".join(replies)


class Packets(Framing):
    """Take each packet for a line, with or without an ending; one packet, one reply."""

    __slots__ = ("_packets",)

    stateless = True

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._packets: deque[bytes] = deque()

    @property
    def held(self) -> int:
        """Bytes kept, about."""
        return sum(map(len, self._packets)) + LINE_SIZE * len(self._packets)

    startsLine = True

    def receive(self, data: bytes) -> None:
        """Keep a packet until it is taken."""
        self._packets.append(data)

    def take(self, most: int) -> Lines | Refusal | None:
        """Give the next packet's line, or None."""
        if not self._packets:
            return None
        line = self._packets.popleft()
        ending = CRLF if line.endswith(CRLF) else LF if line.endswith(LF) else b""
        line = line.removesuffix(ending)
        if len(line) > self.limit:
            return Refusal(b"line longer than %d bytes" % self.limit, ending)
        return Lines([line], ending)

    def finish(self) -> None:
        """A packet is always whole."""

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Give the packet to send."""
        return b"".join(reply + ending for reply in replies)
