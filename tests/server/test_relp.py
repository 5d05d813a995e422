"""The RELP listener: acknowledgements of what is durable, and ends of sessions."""

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from sockservice import LineFactory
from sockservice.errors import StoreError
from sockservice.limits.counters import Counters
from sockservice.server.relp import Relp
from sockservice.store.groupcommit import Store
from tests.conftest import HandReactor
from tests.doubles import Wire
from tests.server.gate import Gate
from tests.wire.test_relp import CLOSED, OPEN, WELCOME, frame

ADDRESS = IPv4Address("TCP", "192.0.2.1", 40000)


@pytest.fixture
def factory(reactor: HandReactor, store: Store) -> LineFactory:
    return LineFactory(reactor, Relp, store=store, listener="l", counters=Counters(), lineLimit=100)


class Peer:
    """A connection of a RELP client."""

    def __init__(self, reactor: HandReactor, factory: LineFactory) -> None:
        self._reactor = reactor
        self.wire = Wire(peerAddress=ADDRESS)
        self.server = factory.buildProtocol(ADDRESS)
        self.server.makeConnection(self.wire)

    def send(self, *frames: bytes) -> None:
        self.server.dataReceived(b"".join(frames))

    def heard(self, size: int) -> bytes:
        """Wait for so many bytes."""
        data = bytearray()

        def come() -> bool:
            data.extend(self.wire.sent())
            return len(data) >= size or bool(self.wire.cut)

        self._reactor.until(come)
        return bytes(data)

    def ended(self) -> bytes:
        """Wait for the end; give what is sent before."""
        self._reactor.until(lambda: self.wire.disconnecting or self.wire.cut)
        return bytes(self.wire.sent())


@pytest.fixture
def peer(reactor: HandReactor, factory: LineFactory) -> Peer:
    return Peer(reactor, factory)


def ok(*numbers: int) -> bytes:
    return b"".join(b"%d rsp 6 200 OK\n" % number for number in numbers)


def test_messages_are_acknowledged_by_number_once_they_are_durable(
    peer: Peer, engine: Gate, reactor: HandReactor, factory: LineFactory
) -> None:
    engine.open_.clear()
    peer.send(OPEN, frame(2, b"syslog", b"<13>one\n"), frame(3, b"syslog", b"<13>two"))
    reactor.iterate(0.01)
    assert bytes(peer.wire.sent()) == WELCOME
    engine.open_.set()
    assert peer.heard(len(ok(2, 3))) == ok(2, 3)
    assert engine.lines == [b"<13>one", b"<13>two"]
    peer.send(frame(4, b"close"))
    assert peer.ended() == b"4 rsp 0\n" + CLOSED
    assert (factory.counters.lines, factory.counters.acknowledged) == (2, 2)


def test_the_answer_to_a_close_waits_for_those_before(peer: Peer, engine: Gate) -> None:
    peer.send(OPEN, frame(2, b"syslog", b"<13>one"), frame(3, b"close"))
    assert peer.ended() == WELCOME + ok(2) + b"3 rsp 0\n" + CLOSED
    assert engine.lines == [b"<13>one"]


def test_what_can_not_be_stored_now_is_not_answered_and_ends_the_session(
    peer: Peer, engine: Gate, factory: LineFactory
) -> None:
    peer.send(OPEN, frame(2, b"syslog", b"<13>one"))
    peer.heard(len(WELCOME + ok(2)))
    engine.problem = StoreError("disk full", retry=True)
    peer.send(frame(3, b"syslog", b"<13>two"), frame(4, b"syslog", b"<13>three"))
    assert peer.ended() == b"0 serverclose 27 error not stored: disk full\n"
    peer.send(frame(5, b"syslog", b"<13>four"))
    assert engine.lines == [b"<13>one"]
    assert factory.counters.refused == 2


def test_only_what_never_can_be_stored_is_answered_500(peer: Peer, engine: Gate) -> None:
    peer.send(
        OPEN,
        frame(2, b"syslog", b"<13>one"),
        frame(3, b"syslog", b"x" * 101),
        frame(4, b"syslog", b"<13>two"),
    )
    said = WELCOME + ok(2) + b"3 rsp 30 500 line longer than 100 bytes\n" + ok(4)
    assert peer.heard(len(said)) == said
    assert engine.lines == [b"<13>one", b"<13>two"]


def test_what_is_no_session_is_told_so_behind_the_answers_due(peer: Peer) -> None:
    peer.send(OPEN, frame(2, b"syslog", b"<13>one"), b"rubbish\n")
    why = b"error not RELP: a frame begins with a number, a command and a length"
    assert peer.ended() == WELCOME + ok(2) + b"0 serverclose %d %b\n" % (len(why), why)


def test_an_idle_session_stays(peer: Peer, factory: LineFactory) -> None:
    peer.send(OPEN)
    peer.server.inspect(100_000.0, 600, 30)
    assert not peer.wire.disconnecting
    peer.send(b"2 syslog 5 ab")
    peer.server.inspect(200_000.0, 600, 30)
    peer.server.inspect(200_031.0, 600, 30)
    assert peer.wire.disconnecting


def test_a_drain_answers_all_that_has_arrived(
    peer: Peer, engine: Gate, reactor: HandReactor
) -> None:
    engine.open_.clear()
    peer.send(OPEN, frame(2, b"syslog", b"<13>one"))
    peer.server.finish()
    reactor.iterate(0.01)
    assert not peer.wire.disconnecting
    engine.open_.set()
    assert peer.ended() == WELCOME + ok(2)


def test_a_session_that_ends_before_its_answers_is_counted(
    peer: Peer, engine: Gate, factory: LineFactory
) -> None:
    engine.open_.clear()
    peer.send(OPEN, frame(2, b"syslog", b"<13>one"))
    peer.server.connectionLost(Failure(ConnectionDone()))
    assert factory.counters.cut == 1


def test_who_ends_the_session_and_never_reads_is_cut_when_it_is_idle(
    reactor: HandReactor, factory: LineFactory
) -> None:
    peer = Peer(reactor, factory)
    peer.send(OPEN)
    peer.wire.full = True
    peer.send(frame(2, b"syslog", b"<13>one"), frame(3, b"close"))
    reactor.until(lambda: peer.server._outbox.unsent)
    for now in (0.0, 9.0):
        peer.server.inspect(now, 10, 0)
    assert not peer.wire.cut
    peer.server.inspect(10.0, 10, 0)
    assert peer.wire.cut
    assert factory.counters.timedOut == 1


def test_who_may_send_on_is_never_idle(reactor: HandReactor, factory: LineFactory) -> None:
    peer = Peer(reactor, factory)
    peer.send(OPEN)
    peer.wire.full = True
    peer.send(frame(2, b"syslog", b"<13>one"))
    reactor.until(lambda: peer.server._outbox.unsent)
    for now in (0.0, 1e6):
        peer.server.inspect(now, 10, 60)
    assert not (peer.wire.cut or peer.wire.disconnecting)
