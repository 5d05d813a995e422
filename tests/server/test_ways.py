"""All ways of a line from the read to the reply agree: some spare work, none changes anything."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from sockservice import Ack, Answer, Batch, Framer, LineFactory, Lines, LineServer, Refusal
from sockservice.limits.memory import MemoryLimit
from tests.wire.test_framing import cut


class Hooked(LineServer):
    """Notes which hook was called, and with what."""

    def opened(self) -> None:
        self.calls: list[Any] = ["opened"]

    def closed(self) -> None:
        self.calls.append("closed")


class Counted(Ack, Hooked):
    """Nobody looks at the lines: they are counted, or kept if there is a store."""


class Whole(Hooked):
    """A read of whole lines is split at once."""

    answerLimit = Ack.answerLimit

    def answers(self, lines: list[bytes]) -> list[Answer]:
        self.calls += lines
        return [b"ok"] * len(lines)


class Each(Hooked):
    """Each line is answered apart."""

    answerLimit = Ack.answerLimit

    def answer(self, line: bytes) -> Answer:
        self.calls.append(line)
        return b"ok"


class Awaited(Each):
    """Each answer is awaited, and there at once."""

    def answer(self, line: bytes) -> Answer:
        super().answer(line)
        return succeed(b"ok")


class Together(Whole):
    """The answers to a batch are awaited together, and there at once."""

    def answers(self, lines: list[bytes]) -> Any:
        return succeed(super().answers(lines))


class Keeping(Whole):
    """Lines are kept by the public hook."""

    def answers(self, lines: list[bytes]) -> Any:
        replies = super().answers(lines)
        return self.keep(lines).addCallback(lambda _: replies)


class Long(Framer):
    """A framing without short ways: lines are received and taken."""

    def take(self, most: int) -> Lines | Refusal | None:
        return super().take(most)


class Kept:
    """A store that has everything on disk at once."""

    full = False

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def append(self, batch: Batch) -> Deferred[None]:
        self.lines += batch.lines
        return succeed(None)

    def put(self, batch: Batch, settled: Callable[[None], None]) -> None:
        self.lines += batch.lines
        settled(None)


class Way:
    """A connection whose lines go one of the ways."""

    def __init__(self, protocol: type[LineServer], limit: int, stored: bool) -> None:
        self.store = Kept() if stored else None
        self.factory = LineFactory(
            Clock(),
            protocol,
            lineLimit=limit,
            store=self.store,  # type: ignore[arg-type]
            memory=MemoryLimit(0),
        )
        self.wire = StringTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", 1))
        self.server: Any = self.factory.buildProtocol(self.wire.getPeer())
        self.server.makeConnection(self.wire)

    def do(self, step: bytes | bool) -> None:
        """Receive bytes, or have the peer read or not."""
        producer: Any = self.wire.producer
        if isinstance(step, bytes):
            self.server.dataReceived(step)
        elif producer is not None:
            producer.resumeProducing() if step else producer.pauseProducing()

    def end(self) -> None:
        IHalfCloseableProtocol(self.server).readConnectionLost()
        self.server.connectionLost(Failure(ConnectionDone()))

    def seen(self) -> tuple[Any, ...]:
        """Return what can be seen of it from outside."""
        server, factory = self.server, self.factory
        return (
            self.wire.value(),
            self.wire.producerState,
            self.wire.disconnecting,
            factory.counters,
            factory.memory.held,
            (server.lines, server.refused),
        )


def longWay(protocol: type[LineServer]) -> type[LineServer]:
    return type(f"Long{protocol.__name__}", (protocol,), {"framing": Long})


SHORT: list[type[LineServer]] = [Counted, Whole, Each, Awaited, Together]
UNSTORED = [*SHORT, *map(longWay, SHORT)]
STORED: list[type[LineServer]] = [Counted, Keeping, longWay(Counted), longWay(Keeping)]

STEPS = cut().flatmap(
    lambda chunks: st.lists(st.booleans(), max_size=3).flatmap(
        lambda reads: st.permutations(range(len(chunks) + len(reads))).map(
            lambda order: merged(chunks, reads, order)
        )
    )
)


def merged(chunks: list[bytes], reads: list[bool], order: list[int]) -> list[bytes | bool]:
    """Put the peer's reading or not between the chunks, which keep their order."""
    left = iter(chunks)
    steps: list[bytes | bool] = []
    for place in order:
        steps.append(next(left) if place < len(chunks) else reads[place - len(chunks)])
    return [step for step in steps if step != b""]


def agree(ways: list[Way], steps: list[bytes | bool]) -> None:
    for step in [*steps, True]:
        for way in ways:
            way.do(step)
        for way in ways[1:]:
            assert way.seen() == ways[0].seen(), type(way.server).__name__
    for way in ways:
        way.end()
        assert way.seen()[:1] + way.seen()[3:] == ways[0].seen()[:1] + ways[0].seen()[3:]


@given(STEPS, st.integers(1, 10))
def test_they_agree_without_a_store(steps: list[bytes | bool], limit: int) -> None:
    ways = [Way(protocol, limit, stored=False) for protocol in UNSTORED]
    agree(ways, steps)
    seeing = [way.server.calls for way in ways if not isinstance(way.server, Counted)]
    assert all(calls == seeing[0] for calls in seeing)
    assert seeing[0][0] == "opened" and seeing[0][-1] == "closed"
    for counted in [way.server for way in ways if isinstance(way.server, Counted)]:
        assert counted.calls == ["opened", "closed"]


@given(STEPS, st.integers(1, 10))
def test_they_agree_with_a_store(steps: list[bytes | bool], limit: int) -> None:
    ways = [Way(protocol, limit, stored=True) for protocol in STORED]
    agree(ways, steps)
    kept = [way.store.lines for way in ways if way.store is not None]
    assert all(lines == kept[0] for lines in kept)
    for way in ways:
        if not isinstance(way.server, Counted):
            assert way.server.calls == ["opened", *kept[0], "closed"]


def test_the_short_ways_are_taken() -> None:
    """Or the tests above would compare one way with itself."""
    taken: list[str] = []

    class Noting(Framer):
        def whole(self, data: bytes) -> list[bytes] | None:
            taken.append("whole")
            return super().whole(data)

        def count(self, data: bytes) -> int:
            taken.append("count")
            return super().count(data)

    ways: list[tuple[type[LineServer], bool]] = [(Counted, False), (Counted, True), (Whole, False)]
    for protocol, stored in ways:
        noting = type(protocol.__name__, (protocol,), {"framing": Noting})
        way = Way(noting, 9, stored)
        way.do(b"a\n")
        way.do(b"b\nc\n")
    # A first line may be a browser's, so it is looked at.
    assert taken == ["whole", "count"] + ["whole"] * 4
