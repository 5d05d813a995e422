"""A framing of one's own is held to the limits, whether it says what it keeps or not."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from sockservice import Framer, Framing, LineFactory, Lines, LineServer, Refusal
from sockservice.limits.memory import MemoryLimit
from sockservice.wire.measured import Measured, measured

BUSY = b"error busy: 100 bytes held for all connections, the limit; try again later;"


class Semicolons(Framing):
    """Lines that end in a semicolon, on what the base class offers."""

    def take(self, most: int) -> Lines | Refusal | None:
        *lines, self.data = self.data.split(b";", most)
        return Lines(lines, b";") if lines else None

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        return b"".join(reply + b";" for reply in replies)


class Foreign:
    """The same, derived from nothing."""

    def __init__(self, limit: int) -> None:
        self.kept = b""

    def receive(self, data: bytes) -> None:
        self.kept += data

    def take(self, most: int) -> Lines | None:
        *lines, self.kept = self.kept.split(b";", most)
        return Lines(lines, b";") if lines else None

    def finish(self) -> None:
        """The last line may go unfinished."""

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        return b"".join(reply + b";" for reply in replies)


class Elsewhere(Semicolons):
    """Keeps bytes where the base class does not look, and does not say so."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.kept = Foreign(limit)

    def receive(self, data: bytes) -> None:
        self.kept.receive(data)

    def take(self, most: int) -> Lines | Refusal | None:
        return self.kept.take(most)


class Saying(Foreign):
    """Says how much it keeps."""

    @property
    def held(self) -> int:
        return len(self.kept)


OWN: list[Callable[[int], Any]] = [Semicolons, Foreign, Elsewhere, Saying]


def connected(framing: Callable[[int], Any], memory: MemoryLimit) -> tuple[Any, StringTransport]:
    class Echo(LineServer):
        def answer(self, line: bytes) -> bytes:
            return line

    Echo.framing = staticmethod(framing)
    factory = LineFactory(Clock(), Echo, memory=memory)
    server = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
    transport = StringTransport()
    transport.abortConnection = transport.loseConnection  # type: ignore[method-assign]
    server.makeConnection(transport)
    return server, transport


@pytest.mark.parametrize("framing", OWN)
def test_its_bytes_count_towards_the_memory_limit(framing: Callable[[int], Any]) -> None:
    memory = MemoryLimit(100)
    server, transport = connected(framing, memory)
    server.dataReceived(b"a;bc;")
    assert transport.value() == b"a;bc;"
    server.dataReceived(b"x" * 98)
    assert 98 <= memory.held <= 100
    transport.clear()
    server.dataReceived(b"xxx")
    assert transport.value() == BUSY
    assert transport.disconnecting
    assert memory.held == 0


@pytest.mark.parametrize("framing", OWN)
def test_a_line_it_has_begun_has_to_end_in_time(framing: Callable[[int], Any]) -> None:
    server, transport = connected(framing, MemoryLimit())
    server.dataReceived(b"a;")
    for now in range(100):
        server.inspect(float(now), 0, 60)
    assert not transport.disconnecting
    for now in range(100, 161):
        server.dataReceived(b"x")
        server.inspect(float(now), 0, 60)
    assert transport.value() == b"a;error unfinished line for 60 seconds;"
    assert transport.disconnecting


@pytest.mark.parametrize("framing", OWN)
def test_a_line_that_ends_begins_another_time(framing: Callable[[int], Any]) -> None:
    server, transport = connected(framing, MemoryLimit())
    for now in range(200):
        server.dataReceived(b"x;" if now % 50 == 0 else b"x")
        server.inspect(float(now), 0, 60)
    assert not transport.disconnecting


def test_what_stands_between_lines_counts_no_longer_than_until_the_next_read() -> None:
    framing = Measured(Foreign(1000))
    for _ in range(100):
        framing.receive(b"a;b;cd")
        while framing.take(1):
            pass
        assert framing.startsLine
        assert len(framing._framing.kept) <= framing.held <= 6


def test_what_says_what_it_keeps_is_not_measured() -> None:
    for framing in (Framer(9), Semicolons(9)):
        assert measured(framing) is framing
    assert isinstance(measured(Elsewhere(9)), Measured)


def test_the_end_of_a_stream_is_judged_by_the_framing() -> None:
    for framing, torn in (
        (Semicolons(9), Refusal(b"unterminated line", b"\n")),
        (Foreign(9), None),
    ):
        made = measured(framing)
        made.receive(b"x;y")
        assert made.take(9) == ([b"x"], b";")
        assert made.take(9) is None
        assert made.finish() == torn
