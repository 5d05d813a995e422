"""No memory for a connection, a line or datagrams: told, counted, and the rest goes on."""

import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from sockservice import Ack, DatagramPort, DatagramServer, LineFactory, LineServer
from sockservice.errors import StoreError
from sockservice.limits.admission import Admission, Limits
from sockservice.limits.memory import PAUSE, MemoryLimit
from sockservice.net.epoll import Descriptors
from sockservice.net.stream import StreamPort
from sockservice.server.answers import Answer
from sockservice.server.proxy import ProxyFactory
from sockservice.wire.framer import Framer
from tests.conftest import PATIENCE, Children, HandReactor, Log
from tests.doubles import PEER, DatagramWire, Slow, Wire

BUSY = b"error busy: no memory; try again later"


class Bursting(Framer):
    """Has no memory for what holds a `!`."""

    def receive(self, data: bytes) -> None:
        if b"!" in data:
            raise MemoryError
        super().receive(data)


class Burst(LineServer):
    """Has no memory for the line `?`, nor for bytes with a `!` in them."""

    framing = Bursting

    def answer(self, line: bytes) -> Answer:
        if line == b"?":
            raise MemoryError
        return line


class Joined:
    """A connection in memory."""

    def __init__(self, factory: LineFactory, wire: Wire | None = None) -> None:
        self.wire = wire or Wire()
        self.server = factory.buildProtocol(self.wire.getPeer())
        self.wire.protocol = self.server
        self.server.makeConnection(self.wire)

    def send(self, data: bytes) -> bytes:
        self.server.dataReceived(data)
        return self.wire.sent()

    def lose(self) -> None:
        self.server.connectionLost(Failure(ConnectionDone()))


def test_a_peer_whose_bytes_there_is_no_memory_for_is_told_and_closed(log: Log) -> None:
    factory = LineFactory(Clock(), Burst)
    starving, other = Joined(factory), Joined(factory)
    assert starving.send(b"a\nhalf a line") == b"a\n"
    assert factory.memory.held > 0
    assert starving.send(b"of it! and") == BUSY + b"\n"
    assert starving.wire.disconnecting
    assert factory.memory.held == 0
    assert starving.send(b"more\n") == b""
    starving.lose()
    assert other.send(b"b\n") == b"b\n"
    assert (factory.counters.starved, factory.counters.refused) == (1, 0)
    assert [text for text in log.texts if f"refused: {BUSY[6:].decode()}" in text]


def test_a_line_that_there_is_no_memory_to_answer_is_refused_and_the_next_answered() -> None:
    factory = LineFactory(Clock(), Burst)
    joined = Joined(factory)
    assert joined.send(b"a\n?\nb\n") == b"a\n" + BUSY + b"\nb\n"
    assert (factory.counters.starved, factory.counters.refused) == (1, 1)


def test_those_that_hold_most_make_room() -> None:
    made: list[type[LineServer]] = [Burst, Slow, Slow]
    factory = LineFactory(Clock(), lambda: made.pop()())
    large, small, starving = (Joined(factory) for _ in range(3))
    large.send(b"x" * 5000 + b"\n")
    small.send(b"x" * 1000 + b"\n")
    assert starving.send(b"!") == BUSY + b"\n"
    assert large.wire.sent() == BUSY + b"\n"
    assert small.wire.sent() == b""
    assert (factory.counters.starved, factory.counters.overheld) == (1, 1)


def test_who_cannot_be_told_either_is_cut() -> None:
    class Full(Wire):
        def write(self, data: bytes) -> None:
            raise MemoryError

    factory = LineFactory(Clock(), Burst)
    joined = Joined(factory, Full())
    assert joined.send(b"a!") == b""
    assert joined.wire.cut
    joined.lose()
    assert factory.connected == 0


def test_a_stored_lines_reply_that_there_is_no_memory_for_ends_its_connection_alone() -> None:
    class Kept:
        full = False

        def put(self, batch: Any, settled: Callable[[StoreError | None], None]) -> None:
            self.settled = settled

    class Unframed(Framer):
        def encode(self, replies: list[bytes], ending: bytes) -> bytes:
            if replies == [b"ok"] * 2:
                raise MemoryError
            return super().encode(replies, ending)

    class Keeping(Ack):
        framing = Unframed

    store = Kept()
    factory = LineFactory(Clock(), Keeping, store=store)  # type: ignore[arg-type]
    joined = Joined(factory)
    joined.send(b"a\nb\n")
    store.settled(None)
    # Two refusals, as the encoding failed for both; the outcome is not known to the peer.
    assert joined.wire.sent().splitlines() == [BUSY, BUSY]
    assert factory.counters.starved == 1


def test_while_memory_is_scarce_no_connection_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    memory = MemoryLimit()
    factory = LineFactory(clock, Ack, memory=memory)
    assert Joined(factory).send(b"a\n") == b"ok\n"
    memory.exhausted(clock.seconds())
    # It can be had again.
    assert not memory.scarce(clock.seconds())
    memory.exhausted(clock.seconds())

    def refused(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("sockservice.limits.memory.mmap.mmap", refused)
    turned = Wire()
    factory.buildProtocol(turned.getPeer()).makeConnection(turned)
    assert turned.sent() == BUSY + b"\n"
    assert factory.counters.turnedAway == 1
    clock.advance(PAUSE)
    assert Joined(factory).send(b"a\n") == b"ok\n"


def test_a_connection_that_could_not_be_made_leaves_its_place(log: Log) -> None:
    class Impossible(LineServer):
        def __init__(self) -> None:
            raise MemoryError

    class Frameless(LineServer):
        @staticmethod
        def framing(limit: int) -> Any:
            raise MemoryError

    for protocol in (Impossible, Frameless):
        factory = LineFactory(
            Clock(), protocol, admission=Admission(Limits(connections=1, connectionsPerSource=1))
        )
        for _ in range(3):
            wire = Wire()
            server = None
            with pytest.raises(MemoryError):
                server = factory.buildProtocol(wire.getPeer())
                server.makeConnection(wire)
            if server is not None:
                server.connectionLost(Failure(ConnectionDone()))
        assert factory.counters.turnedAway == 0


def test_a_header_that_there_is_no_memory_for_is_refused() -> None:
    lines = LineFactory(Clock(), Ack)
    wire = Wire()
    header = ProxyFactory(lines).buildProtocol(wire.getPeer())
    wire.protocol = header
    header.makeConnection(wire)
    header.starved()
    assert wire.sent() == BUSY + b"\n"
    assert (lines.counters.starved, lines.counters.turnedAway) == (1, 1)


# On sockets


class Served:
    """A port, with or without memory, whose connections Descriptors watches."""

    def __init__(self, reactor: HandReactor, factory: Any, starved: Callable[[], bytes]) -> None:
        self._bound = socket.socket()
        self._bound.bind(("127.0.0.1", 0))
        self._port = StreamPort(reactor, self._bound, factory, 100, Descriptors(reactor), starved)
        self._port.startListening()

    def connect(self) -> socket.socket:
        return socket.create_connection(self._bound.getsockname(), PATIENCE)

    def close(self) -> None:
        self._port.stopListening()
        self._bound.close()


class Unreadable(Ack):
    def dataReceived(self, data: bytes) -> None:
        if b"!" in data:
            raise MemoryError
        super().dataReceived(data)


@pytest.fixture
def lines(reactor: HandReactor) -> Iterator[LineFactory]:
    factory = LineFactory(reactor, Unreadable)
    yield factory
    factory.cut()
    reactor.iterate(0)


@pytest.mark.parametrize("before", [0, 5], ids=["new", "light"])
def test_what_there_is_no_memory_to_receive_is_told(
    reactor: HandReactor, lines: LineFactory, before: int
) -> None:
    with (
        closing(Served(reactor, lines, lines.starved)) as served,
        closing(served.connect()) as peer,
    ):
        for _ in range(before):
            peer.sendall(b"a\n")
            assert reactor.received(peer, 3) == b"ok\n"
        peer.sendall(b"!")
        assert reactor.received(peer) == BUSY + b"\n"
    assert lines.counters.starved == 1


def test_a_connection_that_there_is_no_memory_for_is_told(
    reactor: HandReactor, lines: LineFactory
) -> None:
    class Impossible(Factory):
        def buildProtocol(self, addr: object) -> Any:
            raise MemoryError

    served = Served(reactor, Impossible(), lines.starved)
    with closing(served), closing(served.connect()) as peer:
        assert reactor.received(peer) == BUSY + b"\n"
    assert lines.counters.starved == 1


def test_what_is_no_line_protocol_is_closed_as_ever(reactor: HandReactor, log: Log) -> None:
    class Plain(Protocol):
        def dataReceived(self, data: bytes) -> None:
            raise MemoryError

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            pass

    served = Served(reactor, Factory.forProtocol(Plain), bytes)
    with closing(served), closing(served.connect()) as peer:
        peer.sendall(b"x")
        assert reactor.received(peer) == b""
    assert log.failures(MemoryError)


def test_datagrams_go_on_when_there_is_memory_again(reactor: HandReactor) -> None:
    class Burst(DatagramServer):
        starving = True

        def datagramsReceived(self, received: list[tuple[bytes, Any]]) -> list[tuple[bytes, Any]]:
            if self.starving:
                self.starving = False
                raise MemoryError
            return super().datagramsReceived(received)

        def answer(self, datagram: bytes, peer: Any) -> Answer:
            return datagram

    with (
        closing(socket.socket(type=socket.SOCK_DGRAM)) as bound,
        closing(socket.socket(type=socket.SOCK_DGRAM)) as peer,
    ):
        bound.bind(("127.0.0.1", 0))
        peer.connect(bound.getsockname())
        protocol = Burst()
        port = DatagramPort(reactor, bound, protocol)
        port.startListening()
        peer.send(b"a")
        reactor.until(lambda: protocol.counters.starved)
        assert port not in reactor.getReaders()
        reactor.advance(port.RETRY)
        assert reactor.received(peer, 1) == b"a"
        port.stopListening()


def test_a_datagram_that_there_is_no_memory_to_answer_is_refused() -> None:
    class Burst(DatagramServer):
        def answer(self, datagram: bytes, peer: Any) -> Answer:
            raise MemoryError

    wire, server = DatagramWire(), Burst()
    server.makeConnection(wire)
    server.datagramReceived(b"a", PEER)
    assert wire.written == [(BUSY, PEER)]
    assert (server.counters.starved, server.counters.datagramsRefused) == (1, 1)


#: Bytes that a process may grow by, and how much its peers send it.
ROOM, PEERS, LINE = 64 << 20, 16, 8 << 20


def test_a_process_that_gets_no_more_memory_tells_its_peers_and_goes_on(
    children: Children,
) -> None:
    served = children.serve("--line-limit", str(2 * LINE), "--memory-limit", "0")
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    size = int(status.partition("VmSize:")[2].split()[0]) * 1024
    resource.prlimit(served.process.pid, resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    peers = [served.connected() for _ in range(PEERS)]
    for peer in peers:
        # Who makes room for others may be gone by then.
        with suppress(OSError):
            peer.sendall(b"x" * LINE)
    told = [ended(peer) for peer in peers]
    assert set(told) == {b"ok\n", BUSY + b"\n"}
    for peer in peers:
        peer.close()
    reply = b""
    while reply != b"ok\n":
        # For a second it accepts none.
        with closing(served.connected()) as peer:
            peer.sendall(b"a\n")
            reply = peer.recv(100)
            assert reply in (b"ok\n", BUSY + b"\n")
    served.stop()
    assert served.output.count(b"refused: busy: no memory") < PEERS + 2


def ended(peer: socket.socket) -> bytes:
    """End a line; give what the peer is told."""
    with suppress(OSError):
        peer.sendall(b"\n")
    return peer.recv(100)
