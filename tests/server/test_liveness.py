"""Whatever connections wait for, in whatever order: once nothing is in the way, all go on.

Connections of all kinds that store share a store with little room, and things happen to them in
an order that is drawn: bytes come in pieces, peers read and don't, the store stops, fails and
works again, the rate of lines changes. Then all is well again, and each connection has to take
the rest of its stream.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from sockservice import Ack, Counters, LineFactory, LineServer
from sockservice.errors import StoreError
from sockservice.limits.admission import Admission, Limits
from sockservice.limits.memory import MemoryLimit
from sockservice.server import syslog
from sockservice.server.answers import Answer
from sockservice.server.relp import Relp
from sockservice.server.session import Session
from sockservice.server.syslog import Syslog
from sockservice.store import groupcommit
from sockservice.store.groupcommit import Store
from tests.conftest import HandReactor
from tests.doubles import Wire
from tests.server.gate import Gate
from tests.wire.test_relp import OPEN, frame

LINES = 40
#: So many orders of events are drawn; each fault that was put in on purpose was found by the first
#: two.
SEEDS = 6


class Keeping(LineServer):
    """Stores some lines, answers others at once or later, or with several."""

    answerLimit = 5

    def answer(self, line: bytes) -> Answer:
        number = int(line.split()[0])
        later: dict[int, Callable[[], Answer]] = {
            0: lambda: line,
            1: lambda: self.keep([line]).addCallback(lambda _: b"kept"),
            2: lambda: deferLater(self.factory.reactor, 0.2, lambda: line),
            3: lambda: self._several(line),
        }
        return later[number % 4]()

    async def _several(self, line: bytes) -> Any:
        await self.keep([line])
        return [line] * 3


class Streaming(LineServer):
    """Answers each line with several, as the peer reads."""

    answerLimit = 3

    async def answer(self, line: bytes) -> Any:
        for _ in range(3):
            await self.keep([line])
            yield line


class Putting(LineServer):
    """Stores bodies: each line says how long one is."""

    answerLimit = 1
    telnet = False

    async def answer(self, line: bytes) -> bytes:
        await self.keep([await self.expect(int(line))])
        return b"kept"


def lines(draw: random.Random) -> list[bytes]:
    return [b"%d %b\n" % (n, b"x" * draw.choice((0, 5, 60))) for n in range(LINES)]


def relp(draw: random.Random) -> list[bytes]:
    return [OPEN] + [
        frame(n + 2, b"syslog", b"<13>" + each[:-1]) for n, each in enumerate(lines(draw))
    ]


def messages(draw: random.Random) -> list[bytes]:
    stream = []
    for each in lines(draw):
        message = b"<13>" + each
        stream.append(message if draw.random() < 0.5 else b"%d %b" % (len(message), message))
    return stream


def bodies(draw: random.Random) -> list[bytes]:
    return [b"%d\n%b" % (len(each), each) for each in lines(draw)]


KINDS: list[tuple[type[LineServer], Callable[[random.Random], list[bytes]]]] = [
    (Ack, lines),
    (Relp, relp),
    (Syslog, messages),
    (Session, lambda draw: [b"session/1 s%d\n" % draw.randrange(10**9), *lines(draw)]),
    (Keeping, lines),
    (Streaming, lines),
    (Putting, bodies),
]


class Peer:
    """A connection and what its peer sends; `eager` transports deliver a little while paused."""

    def __init__(self, factory: LineFactory, stream: list[bytes], number: int, eager: bool) -> None:
        address = IPv4Address("TCP", "192.0.2.1", number)
        self.wire = Wire(peerAddress=address)
        self.server: Any = factory.buildProtocol(address)
        self.wire.protocol = self.server
        self.server.makeConnection(self.wire)
        self.rest = b"".join(stream)
        self._eager = eager
        self.halfClosed = self.gone = False

    def send(self, size: int) -> None:
        if self.gone or self.halfClosed or (self.wire.paused and not self._eager):
            return
        data, self.rest = self.rest[:size], self.rest[size:]
        if data:
            self.server.dataReceived(data)

    def halfClose(self) -> None:
        if not (self.gone or self.halfClosed) and (self._eager or not self.wire.paused):
            self.halfClosed = True
            self.server.readConnectionLost()

    def read(self, reads: bool) -> None:
        self.wire.full = not reads
        if reads and self.wire.producer is not None:
            self.wire.producer.resumeProducing()

    def look(self) -> None:
        """End the connection, if that is asked for."""
        ended = self.wire.cut or (self.wire.disconnecting and not self.wire.full)
        if ended and not self.gone:
            self.gone = True
            self.server.connectionLost(Failure(ConnectionDone()))

    @property
    def state(self) -> str:
        server = self.server
        return (
            f"{type(server).__name__}: {len(self.rest)} bytes to send, paused {self.wire.paused}, "
            f"half-closed {self.halfClosed}, phase {server._phase}, full {server._intake.full}, "
            f"unsent {server._outbox.unsent}, due {server._replies.outstanding}, "
            f"held {server._intake.framing.held}"
        )

    @property
    def done(self) -> bool:
        if self.gone:
            return True
        return not (self.rest or self.wire.paused or self.server._replies.outstanding)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("drains", [False, True], ids=["serving", "draining"])
def test_once_nothing_is_in_the_way_all_go_on(
    reactor: HandReactor,
    store: Store,
    engine: Gate,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    drains: bool,
) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr(syslog, "HELD", 200)
    monkeypatch.setattr(groupcommit, "PENDING_LIMIT", draw.choice((100, 1000)))
    monkeypatch.setattr(Ack, "answerLimit", draw.choice((3, 20, 8192)))
    counters = Counters()
    admission = Admission(Limits())
    memory = MemoryLimit(draw.choice((0, 3000, 10_000_000)))
    peers: list[Peer] = []
    factories = []
    for number in range(9):
        protocol, stream = draw.choice(KINDS)
        factory = LineFactory(
            reactor, protocol, store=store, counters=counters, admission=admission, memory=memory
        )
        factories.append(factory)
        peers.append(Peer(factory, stream(draw), 40000 + number, draw.random() < 0.3))

    def rate(most: int) -> None:
        admission.change(Limits(lineRate=most))

    def happens() -> None:
        peer = draw.choice(peers)
        draw.choice(
            [
                *[lambda: peer.send(draw.choice((1, 7, 50, 500)))] * 10,
                lambda: peer.read(False),
                lambda: peer.read(True),
                engine.open_.clear,
                engine.open_.set,
                lambda: setattr(engine, "problem", StoreError("disk full", retry=True)),
                *[lambda: setattr(engine, "problem", None)] * 2,
                lambda: rate(draw.choice((0, 3, 100))),
                lambda: reactor.advance(draw.choice((0.01, 0.3, 1.0))),
                *[lambda: reactor.iterate(draw.choice((0, 0.001)))] * 3,
                lambda: peer.halfClose() if draw.random() < 0.1 else None,
            ]
        )()
        for each in peers:
            each.look()

    for _ in range(300):
        happens()
    drained: list[Deferred[None]] = []
    if drains:
        drained = [factory.drain() for factory in factories]
        for _ in range(20):
            happens()
    engine.problem = None
    engine.open_.set()
    rate(0)
    for peer in peers:
        peer.read(True)

    def allDone() -> bool:
        for peer in peers:
            if not drains:
                peer.send(1000)
            peer.look()
        return all(peer.gone if drains else peer.done for peer in peers)

    try:
        reactor.until(allDone, passing=0.3)
    except AssertionError:
        pytest.fail("\n".join(peer.state for peer in peers if not peer.done))
    if drains:
        assert all(each.called for each in drained)
        assert counters.lines >= counters.answered
    assert memory.held == sum(peer.server._weight for peer in peers)
