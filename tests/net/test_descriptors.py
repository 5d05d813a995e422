"""Many connections as one descriptor of the reactor, on real sockets."""

import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from sockservice import Ack, LineFactory, LineServer
from sockservice.limits.admission import Admission, Limits
from sockservice.net import epoll as descriptors
from sockservice.net.epoll import Descriptors
from sockservice.net.stream import StreamPort
from sockservice.server.answers import Answer
from sockservice.server.lone import LoneLines
from tests.conftest import PATIENCE, HandReactor, Log

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")


class Failing(LineServer):
    """Raises where it is told to."""

    def answer(self, line: bytes) -> Answer:
        return line


class FailingAtItsEnd(Failing):
    def closed(self) -> None:
        raise ZeroDivisionError


class FailingAtHalfItsEnd(Failing):
    def readConnectionLost(self) -> None:
        raise ZeroDivisionError


class FailingToRead(Failing):
    def dataReceived(self, data: bytes) -> None:
        if data == b"fail\n":
            raise ZeroDivisionError
        super().dataReceived(data)


class Served:
    """Connections that Descriptors watches."""

    def __init__(self, reactor: HandReactor, factory: Any, descriptors: Descriptors) -> None:
        self.reactor = reactor
        self.factory = factory
        self.descriptors = descriptors
        self._stack = ExitStack()
        self._bound = self._stack.enter_context(closing(socket.socket()))
        self._bound.bind(("127.0.0.1", 0))
        self._port = StreamPort(reactor, self._bound, factory, 100, self.descriptors)
        self._port.startListening()

    def connect(self) -> socket.socket:
        made = self._stack.enter_context(
            closing(socket.create_connection(self._bound.getsockname(), PATIENCE))
        )
        self.reactor.iterate(0)
        return made

    def ask(self, peer: socket.socket, line: bytes = b"a\n", size: int = 3) -> bytes:
        peer.sendall(line)
        return self.reactor.received(peer, size)

    def close(self) -> None:
        self._port.stopListening()
        if isinstance(self.factory, LineFactory):
            self.factory.cut()
        self._stack.close()
        self.reactor.iterate(0)


Serve = Callable[[Any], Served]


@pytest.fixture(params=["ordinary", "lone"])
def serve(reactor: HandReactor, request: pytest.FixtureRequest) -> Iterator[Serve]:
    with ExitStack() as stack:

        def served(made: Any) -> Served:
            factory = made if isinstance(made, Factory) else LineFactory(reactor, made)
            watching = Descriptors(reactor)
            if request.param == "lone":
                watching = LoneLines(reactor, Admission(Limits()))
            return stack.enter_context(closing(Served(reactor, factory, watching)))

        yield served


def test_every_connection_is_served_and_none_is_in_the_reactor_itself(serve: Serve) -> None:
    served = serve(Ack)
    before = len(served.reactor.getReaders())
    peers = [served.connect() for _ in range(10)]
    assert len(served.reactor.getReaders()) == before + 1
    for peer in peers:
        assert served.ask(peer) == b"ok\n"
    assert served.descriptors.logPrefix() == "connections"


@pytest.mark.parametrize(
    ("protocol", "does"),
    [
        pytest.param(FailingToRead, lambda peer: peer.sendall(b"fail\n"), id="reading"),
        pytest.param(FailingAtItsEnd, lambda peer: peer.close(), id="its end"),
        pytest.param(
            FailingAtHalfItsEnd, lambda peer: peer.shutdown(socket.SHUT_WR), id="half its end"
        ),
    ],
)
@pytest.mark.parametrize("before", [0, 5], ids=["new", "light"])
def test_an_exception_is_logged_and_ends_its_connection_alone(
    serve: Serve,
    log: Log,
    before: int,
    protocol: type[LineServer],
    does: Callable[[socket.socket], None],
) -> None:
    made: list[type[LineServer]] = [protocol]
    served = serve(lambda: made.pop()() if made else Ack())
    failing, other = served.connect(), served.connect()
    for _ in range(before):
        assert served.ask(failing, b"a\n", 2) == b"a\n"
    does(failing)
    served.reactor.until(lambda: log.failures(ZeroDivisionError))
    assert served.ask(other) == b"ok\n"
    assert served.ask(served.connect()) == b"ok\n"
    assert len(log.failures(ZeroDivisionError)) == 1


def test_a_half_close_is_heard_and_answered(serve: Serve) -> None:
    served = serve(Ack)
    peer = served.connect()
    peer.sendall(b"a\nb\n")
    peer.shutdown(socket.SHUT_WR)
    assert served.reactor.received(peer) == b"ok\nok\n"


def test_a_protocol_that_does_not_know_half_closes_is_closed(serve: Serve) -> None:
    reasons: list[Failure] = []

    class Simple(Protocol):
        def connectionLost(self, reason: Failure = connectionDone) -> None:
            reasons.append(reason)

    served = serve(Factory.forProtocol(Simple))
    peer = served.connect()
    peer.shutdown(socket.SHUT_WR)
    assert served.reactor.received(peer) == b""
    assert len(reasons) == 1


def test_a_reset_while_nothing_is_read_is_noticed(serve: Serve, log: Log) -> None:
    """Only the wish to write is watched then."""
    served = serve(lambda: FailingToRead())
    peer = served.connect()
    [server] = served.factory._connections
    server.transport.pauseProducing()
    server.transport.write(b"x" * 2**24)
    served.reactor.iterate(0)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    served.reactor.until(lambda: [text for text in log.texts if " closed: lines=0 " in text])


def test_a_reply_longer_than_any_buffer_goes_out(serve: Serve) -> None:
    class Long(LineServer):
        def answer(self, line: bytes) -> Answer:
            return b"x" * 2**24

    served = serve(Long)
    peer = served.connect()
    assert len(served.ask(peer, b"a\n", 2**24 + 1)) == 2**24 + 1
    # It is read again, and nothing wants to be written.
    assert len(served.ask(peer, b"a\n", 2**24 + 1)) == 2**24 + 1


def test_nothing_starves(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that always have something to say leave the others their turns."""
    monkeypatch.setattr(descriptors, "TURN", 2)
    served = serve(Ack)
    busy = [served.connect() for _ in range(5)]
    quiet = served.connect()
    quiet.sendall(b"a\n")
    quiet.setblocking(False)
    due: list[float] = []
    served.reactor.callLater(0, due.append, 1)

    def come() -> bool:
        for peer in busy:
            peer.sendall(b"a\n")
        try:
            return quiet.recv(9) == b"ok\n"
        except BlockingIOError:
            return False

    turns = 0
    while not come():
        served.reactor.iterate(0)
        turns += 1
        assert turns < 10
    assert due


class Timed:
    """A descriptor that is always readable, and whose turns take so long by a clock of the test."""

    def __init__(self, clock: Clock, opened: ExitStack, seconds: float) -> None:
        self._clock = clock
        self._ends = socket.socketpair()
        for each in self._ends:
            opened.enter_context(each)
        self._ends[1].send(b"x")
        self.seconds = seconds
        self.turns = 0
        self.bufferSize = descriptors.MOST

    def fileno(self) -> int:
        return self._ends[0].fileno()

    def doRead(self) -> None:
        self.turns += 1
        self._clock.advance(self.seconds)


LONG, SHORT = (descriptors.LIGHT + descriptors.SLICE) / 2, descriptors.LIGHT * 0.5


def test_heavy_ones_share_a_slice_of_each_turn(reactor: HandReactor, opened: ExitStack) -> None:
    clock = Clock()
    watching = Descriptors(reactor, clock.seconds)
    heavy = [Timed(clock, opened, LONG) for _ in range(5)]
    for each in heavy:
        watching.addReader(each)
    for turn in range(1, 21):
        before = clock.seconds()
        watching.doRead()
        assert clock.seconds() - before == pytest.approx(2 * LONG)
        if turn == 3:
            assert all(each.turns for each in heavy)
    assert min(each.turns for each in heavy) >= 20 // 3
    for each in heavy:
        watching.removeReader(each)


def test_light_ones_are_served_in_every_turn_and_before_the_heavy(
    reactor: HandReactor, opened: ExitStack
) -> None:
    clock = Clock()
    watching = Descriptors(reactor, clock.seconds)
    heavy = [Timed(clock, opened, LONG) for _ in range(4)]
    light = Timed(clock, opened, SHORT)
    for each in (light, *heavy):
        watching.addReader(each)
    for turn in range(1, 5):
        watching.doRead()
        assert light.turns == turn
    # One that takes long is light no more, and waits for its turn like the others.
    light.seconds = LONG
    for _ in range(5):
        watching.doRead()
    assert light.turns < 4 + 5
    for each in (light, *heavy):
        watching.removeReader(each)


def test_who_takes_longer_than_a_slice_is_read_in_smaller_pieces_down_to_the_least(
    reactor: HandReactor, opened: ExitStack
) -> None:
    clock = Clock()
    watching = Descriptors(reactor, clock.seconds)
    slow = Timed(clock, opened, descriptors.SLICE * 1.1)
    watching.addReader(slow)
    watching.doRead()
    assert slow.bufferSize == descriptors.MOST // 2
    for _ in range(20):
        watching.doRead()
    assert slow.bufferSize == descriptors.LEAST
    slow.seconds = (descriptors.LIGHT + descriptors.SLICE) / 2
    watching.doRead()
    assert slow.bufferSize == descriptors.LEAST
    slow.seconds = SHORT
    watching.doRead()
    assert slow.bufferSize == 2 * descriptors.LEAST
    watching.removeReader(slow)


def test_an_embedding_reactor_keeps_no_reader_when_nothing_is_watched(serve: Serve) -> None:
    served = serve(Ack)
    for _ in range(2):
        peer = served.connect()
        assert served.descriptors in served.reactor.getReaders()
        peer.close()
        served.reactor.until(lambda: not served.factory._connections)
        assert served.descriptors not in served.reactor.getReaders()


def test_who_closes_with_nothing_due_is_gone_in_the_same_turn(serve: Serve) -> None:
    served = serve(Ack)
    peer = served.connect()
    assert served.ask(peer) == b"ok\n"
    peer.close()
    assert select.select([served.descriptors], [], [], PATIENCE)[0]
    served.descriptors.doRead()
    assert not served.factory._connections


def test_numbers_of_descriptors_are_used_again(serve: Serve) -> None:
    served = serve(Ack)
    for _ in range(20):
        peer = served.connect()
        assert served.ask(peer) == b"ok\n"
        peer.close()
        served.reactor.until(lambda: not served.factory._connections)
    assert not any(served.descriptors._events) and not any(served.descriptors._watched)


def test_one_that_another_has_closed_in_the_same_turn_is_passed_over(serve: Serve) -> None:
    class Closing(LineServer):
        def answer(self, line: bytes) -> Answer:
            for each in list(self.factory._connections - {self}):
                transport: Any = each.transport
                transport.connectionLost(Failure(connectionDone.value))
            return line

    served = serve(Closing)
    peers = [served.connect() for _ in range(2)]
    for peer in peers:
        peer.sendall(b"a\n")
    served.descriptors.doRead()
    assert len(served.factory._connections) == 1
    assert served.factory.counters.lines == 1


class Pipe:
    """A descriptor as simple as can be; its number stays what it was."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.read = 0

    def fileno(self) -> int:
        return self.number

    def doRead(self) -> None:
        self.read += len(os.read(self.number, 1))


def test_one_that_has_gone_does_not_stop_another_of_its_number(
    reactor: HandReactor, opened: ExitStack
) -> None:
    out, into = os.pipe()
    for each in (out, into):
        opened.callback(os.close, each)
    watching = Descriptors(reactor)
    old, new = Pipe(out), Pipe(out)
    watching.addReader(new)
    watching.addReader(new)
    watching.removeReader(old)
    watching.removeWriter(new)
    os.write(into, b"x")
    reactor.until(lambda: new.read)
    watching.removeReader(new)
    assert (old.read, new.read) == (0, 1)
    reactor.removeReader(watching)  # type: ignore[arg-type, unused-ignore]
    watching.connectionLost(Failure(ConnectionError()))


def test_a_reactor_that_stops_closes_what_is_left(serve: Serve, log: Log) -> None:
    served = serve(Ack)
    peers = [served.connect() for _ in range(3)]
    served.reactor.removeReader(served.descriptors)  # type: ignore[arg-type, unused-ignore]
    served.descriptors.connectionLost(Failure(ConnectionError("the reactor stops")))
    for peer in peers:
        assert served.reactor.received(peer) == b""
    assert not served.factory._connections
