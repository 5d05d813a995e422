"""Lone lines, answered between two polls, on real sockets; the ordinary way is the measure."""

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import Any

import pytest

from sockservice import Ack, LineFactory, LineServer
from sockservice.limits.admission import Admission, Limits
from sockservice.limits.memory import NO_MEMORY
from sockservice.net import epoll
from sockservice.net.epoll import IN, Descriptors
from sockservice.net.stream import StreamPort
from sockservice.server.lone import LoneLines
from tests.conftest import PATIENCE, HandReactor, Log

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")

#: Bytes of the longest line.
LIMIT = 20
OK = b"ok\n"
IDLE = b"error idle for 1 second\n"


class Ordinary(Ack):
    """Its lines go the ordinary way, which begins there."""

    read = 0

    def dataReceived(self, data: bytes) -> None:
        self.read += 1
        super().dataReceived(data)


class Served:
    """A service, and a peer of it that lone lines are answered to."""

    def __init__(
        self, reactor: HandReactor, protocol: type[LineServer] = Ack, *, lone: bool = True
    ) -> None:
        self._stack = ExitStack()
        self.reactor = reactor
        self.admission = Admission(Limits())
        self.factory = LineFactory(reactor, protocol, lineLimit=LIMIT, admission=self.admission)
        self.watching: Any = LoneLines(reactor, self.admission) if lone else Descriptors(reactor)
        self._bound = self._stack.enter_context(closing(socket.socket()))
        self._bound.bind(("127.0.0.1", 0))
        self._port = StreamPort(reactor, self._bound, self.factory, 100, self.watching)
        self._port.startListening()
        self.peer = self.connect()
        connections: Any = self.factory._connections
        [self.server] = connections

    def connect(self) -> socket.socket:
        """Return a peer that has had three lines answered."""
        peer = self._stack.enter_context(
            closing(socket.create_connection(self._bound.getsockname(), PATIENCE))
        )
        for _ in range(3):
            assert self.ask(b"a\n", peer=peer) == OK
        return peer

    def ask(self, data: bytes, size: int = len(OK), peer: socket.socket | None = None) -> bytes:
        peer = peer or self.peer
        peer.sendall(data)
        return self.reactor.received(peer, size)

    @property
    def joined(self) -> bool:
        """Whether the next lone line is answered in the shortest way."""
        return self.server in self.watching._joined

    def close(self) -> None:
        self._port.stopListening()
        self.factory.cut()
        self._stack.close()
        self.reactor.iterate(0)


Serve = Callable[..., Served]


@pytest.fixture
def serve(reactor: HandReactor) -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda *given, **more: stack.enter_context(closing(Served(reactor, *given, **more)))


READS = [
    b"a\n",
    b"\n",
    b"a\nb\n",
    b"a\r\n",
    b"a\rb\n",
    b"a\r\nb\n",
    b"a",
    b"a\nb",
    b"\xff\xfd\x01a\n",
    b"\xfe\n",
    b"x" * (LIMIT - 1) + b"\n",
    b"x" * LIMIT + b"\n",
    b"x" * LIMIT + b"\r\n",
    b"x" * (LIMIT + 1) + b"\n",
    b"x" * (3 * LIMIT),
]


@pytest.mark.parametrize("first", READS)
@pytest.mark.parametrize("second", [b"b\n", b"\n", b"b\r\n", b"b"])
def test_it_agrees_with_the_ordinary_way(serve: Serve, first: bytes, second: bytes) -> None:
    seen = []
    for lone in (True, False):
        served = serve(lone=lone)
        for read in (first, second, b"c\n"):
            served.peer.sendall(read)
            # By then it is read, for both are served in the order in which they are ready.
            assert served.ask(b"d\n", peer=served.connect()) == OK
        server = served.server
        served.peer.shutdown(socket.SHUT_WR)
        replies = served.reactor.received(served.peer)
        counts = asdict(served.factory.counters)
        seen.append((replies, counts, (server.lines, server.refused), served.factory.memory.held))
    assert seen[0] == seen[1]


def test_lone_lines_are_answered_without_a_call(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    monkeypatch.setattr(LineServer, "dataReceived", None)
    for _ in range(3):
        assert served.ask(b"a\n") == OK
    assert served.server.lines == served.factory.counters.lines == 6
    assert served.factory.counters.answered == 6


def test_who_reads_on_its_own_is_read_by_nobody_else(serve: Serve) -> None:
    served = serve(Ordinary)
    assert served.server.read == served.server.lines == 3


def test_counters_are_those_of_each_service(serve: Serve, reactor: HandReactor) -> None:
    served = serve()
    other = LineFactory(reactor, Ack)
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        port = StreamPort(reactor, bound, other, 100, served.watching)
        port.startListening()
        with closing(socket.create_connection(bound.getsockname(), PATIENCE)) as peer:
            for _ in range(3):
                assert served.ask(b"a\n", peer=peer) == OK
            for each in (peer, served.peer):
                each.sendall(b"a\n")
            for each in (peer, served.peer):
                assert reactor.received(each, len(OK)) == OK
        port.stopListening()
        other.cut()
    assert (served.factory.counters.lines, other.counters.lines) == (4, 4)


def test_with_a_limit_to_their_rate_lines_go_the_ordinary_way(serve: Serve) -> None:
    served = serve()
    read: list[bytes] = []
    served.server.dataReceived = read.append
    assert served.ask(b"a\n") == OK
    served.admission.change(Limits(lineRate=1))
    served.peer.sendall(b"b\n")
    served.reactor.until(lambda: read)
    assert read == [b"b\n"]


@pytest.mark.parametrize(
    ("does", "word"),
    [
        pytest.param(lambda served: served.server.close(), b"", id="closed"),
        pytest.param(lambda served: served.factory.drain(), b"", id="drained"),
        pytest.param(
            lambda served: served.server.makeRoom("full"), b"error full\n", id="makes room"
        ),
        pytest.param(
            lambda served: served.server.inspect(100.0, 1, 0),
            b"error idle for 1 second\n",
            id="idle",
        ),
    ],
)
def test_nothing_is_answered_behind_the_end(
    serve: Serve, does: Callable[[Served], object], word: bytes
) -> None:
    served = serve()
    if word == IDLE:
        served.server.inspect(0.0, 1, 0)
    does(served)
    assert not served.joined
    served.peer.sendall(b"a\n")
    assert served.reactor.received(served.peer) == word


class Narrow:
    """A socket whose buffer has room for so many bytes at a time, or for none."""

    def __init__(self, plain: socket.socket, room: int) -> None:
        self.recv = plain.recv
        self._plain = plain
        self._room = room

    def send(self, data: bytes) -> int:
        if not self._room:
            raise BlockingIOError
        return self._plain.send(data[: self._room])


def test_a_reply_waits_for_what_was_said_before(serve: Serve) -> None:
    served = serve()
    outbox = served.server._outbox
    plain = outbox.plain
    outbox.plain = Narrow(plain, 0)
    assert served.server.tell(b"said")
    assert outbox.unsent
    # There is room by the time that the line is answered.
    outbox.plain = plain
    served.peer.sendall(b"a\n")
    assert select.select([plain], [], [], PATIENCE)[0]
    served.watching._answer([(plain.fileno(), IN)])
    assert served.reactor.received(served.peer, len(b"said\n" + OK)) == b"said\n" + OK


@pytest.mark.parametrize("room", [0, 1])
def test_what_the_system_does_not_take_is_sent_later(serve: Serve, room: int) -> None:
    served = serve()
    served.server._outbox.plain = Narrow(served.server._outbox.plain, room)
    assert served.ask(b"a\n") == OK
    assert not served.joined
    assert served.ask(b"a\n") == OK
    assert served.server.lines == 5


def test_a_reset_is_a_loss(serve: Serve, log: Log) -> None:
    served = serve()
    served.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    served.peer.close()
    served.reactor.until(lambda: not served.factory._connections)
    assert any(" closed: lines=3 " in text for text in log.texts)
    assert not log.problems


class Starved:
    """A socket for which there is no memory to read it."""

    def __init__(self, plain: socket.socket) -> None:
        self.send = plain.send

    def recv(self, size: int) -> bytes:
        raise MemoryError


def test_what_there_is_no_memory_to_read_is_told_and_ends_its_connection_alone(
    serve: Serve,
) -> None:
    served = serve()
    other = served.connect()
    served.server._outbox.plain = Starved(served.server._outbox.plain)
    served.peer.sendall(b"a\n")
    assert served.reactor.received(served.peer) == b"error " + NO_MEMORY.encode() + b"\n"
    assert served.ask(b"a\n", peer=other) == OK
    assert served.factory.counters.starved == 1


def test_only_so_many_are_answered_in_a_turn(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve()
    monkeypatch.setattr(epoll, "TURN", 2)
    peers = [served.connect() for _ in range(5)]
    for peer in peers:
        peer.sendall(b"a\n")
    before = served.factory.counters.lines
    served.watching.doRead()
    assert served.factory.counters.lines == before + 2
    for peer in peers:
        assert served.reactor.received(peer, len(OK)) == OK
