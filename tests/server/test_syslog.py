"""The syslog listeners: what can't be stored is held, in order, and what is lost is counted."""

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from sockservice import LineFactory
from sockservice.errors import StoreError
from sockservice.limits.counters import Counters
from sockservice.server import syslog
from sockservice.server.ack import Ack
from sockservice.server.syslog import Syslog, SyslogDatagrams
from sockservice.store import groupcommit
from sockservice.store.groupcommit import Store
from tests.conftest import HandReactor, Log
from tests.doubles import DatagramWire, Wire
from tests.server.gate import Gate

ADDRESS = IPv4Address("TCP", "192.0.2.1", 40000)
FULL = StoreError("disk full", retry=True)


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def factory(reactor: HandReactor, store: Store, counters: Counters) -> LineFactory:
    return LineFactory(reactor, Syslog, store=store, listener="l", counters=counters, lineLimit=100)


@pytest.fixture
def wire(factory: LineFactory) -> Wire:
    wire = Wire(peerAddress=ADDRESS)
    server = factory.buildProtocol(ADDRESS)
    server.makeConnection(wire)
    wire.protocol = server
    return wire


def test_messages_are_stored_and_never_answered(
    wire: Wire, engine: Gate, reactor: HandReactor, counters: Counters
) -> None:
    wire.protocol.dataReceived(b"<13>one\n7 <13>two" + b"<13>" + b"x" * 100 + b"\n<13>three\n")
    reactor.until(lambda: len(engine.lines) == 3)
    assert engine.lines == [b"<13>one", b"<13>two", b"<13>three"]
    reactor.until(lambda: counters.answered == 4)
    assert (counters.lines, counters.refused, counters.silent, counters.acknowledged) == (
        4,
        1,
        3,
        0,
    )
    assert bytes(wire.sent()) == b""


def test_what_is_no_syslog_is_told_so(wire: Wire, engine: Gate, reactor: HandReactor) -> None:
    wire.protocol.dataReceived(b"<13>one\nhello\n")
    reactor.until(lambda: wire.disconnecting)
    assert bytes(wire.sent()) == b"error not syslog: a frame begins with < or a length\n"
    assert engine.lines == [b"<13>one"]


def test_what_can_not_be_stored_is_held_and_stored_in_order(
    wire: Wire, engine: Gate, reactor: HandReactor
) -> None:
    engine.problem = FULL
    wire.protocol.dataReceived(b"<13>one\n")
    for _ in range(20):
        reactor.advance(0.3)
        reactor.iterate(0.01)
    wire.protocol.dataReceived(b"<13>two\n<13>three\n")
    engine.problem = None
    reactor.until(lambda: len(engine.lines) == 3, passing=0.3)
    assert engine.lines == [b"<13>one", b"<13>two", b"<13>three"]
    assert not wire.disconnecting


def test_who_sends_on_is_not_read_while_nothing_can_be_stored(
    wire: Wire, engine: Gate, reactor: HandReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syslog, "HELD", 1000)
    engine.problem = FULL
    sent = 0
    while not wire.paused:
        wire.protocol.dataReceived(b"<13>%07d\n" % sent * 10)
        sent += 10
        reactor.iterate(0)
        assert sent < 1000
    engine.problem = None
    reactor.until(lambda: len(engine.lines) == sent, passing=0.3)
    reactor.until(lambda: not wire.paused)


def test_many_are_held_back_before_one_is_closed_to_make_room(
    factory: LineFactory, engine: Gate, reactor: HandReactor, counters: Counters
) -> None:
    factory.memory.most = 40_000
    engine.problem = FULL
    wires, sent = [], 0
    for _ in range(50):
        wires.append(wire := Wire(peerAddress=ADDRESS))
        wire.protocol = factory.buildProtocol(ADDRESS)
        wire.protocol.makeConnection(wire)
    for _ in range(20):
        for wire in wires:
            if not wire.paused:
                wire.protocol.dataReceived(b"<13>%07d\n" % sent * 10)
                sent += 10
        reactor.iterate(0)
    assert all(wire.paused for wire in wires)
    engine.problem = None
    reactor.until(lambda: len(engine.lines) == sent, passing=0.3)
    reactor.until(lambda: not any(wire.paused for wire in wires))
    assert counters.lost == 0 and not any(wire.disconnecting for wire in wires)


def test_who_has_been_stored_while_others_fill_the_store_is_read_again_after_them(
    wire: Wire,
    engine: Gate,
    store: Store,
    reactor: HandReactor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(syslog, "HELD", 100)
    monkeypatch.setattr(groupcommit, "PENDING_LIMIT", 1000)
    other = Wire(peerAddress=ADDRESS)
    other.protocol = LineFactory(reactor, Ack, store=store).buildProtocol(ADDRESS)
    other.protocol.makeConnection(other)
    engine.open_.clear()
    wire.protocol.dataReceived(b"<13>%07d\n" % 1 * 10)
    assert wire.paused
    reactor.until(engine.reached.is_set)
    other.protocol.dataReceived(b"%07d\n" % 2 * 200)
    assert store.full
    reactor.iterate(0)
    engine.open_.set()
    reactor.until(lambda: len(engine.lines) == 210 and not store.full)
    assert not wire.paused


def test_the_end_of_the_stream_waits_for_what_is_held(
    wire: Wire, engine: Gate, reactor: HandReactor
) -> None:
    engine.problem = FULL
    wire.protocol.dataReceived(b"<13>one\n")
    reactor.iterate(0.01)
    wire.protocol.readConnectionLost()
    for _ in range(5):
        reactor.advance(0.3)
    assert not wire.disconnecting
    engine.problem = None
    reactor.until(lambda: wire.disconnecting, passing=0.3)
    assert engine.lines == [b"<13>one"]


@pytest.mark.parametrize("works", [True, False])
def test_a_connection_that_is_lost_has_its_messages_tried_a_last_time(
    wire: Wire, engine: Gate, reactor: HandReactor, counters: Counters, log: Log, works: bool
) -> None:
    engine.problem = FULL
    wire.protocol.dataReceived(b"<13>one\n<13>two\n")
    reactor.until(lambda: wire.protocol._pause is not None)
    reactor.advance(0.5)  # the store would try again, the connection not yet
    engine.problem = None if works else FULL
    wire.protocol.connectionLost(Failure(ConnectionLost()))
    reactor.until(lambda: engine.lines or counters.lost)
    assert engine.lines == ([b"<13>one", b"<13>two"] if works else [])
    assert counters.lost == (0 if works else 2)
    said = [text for text in log.texts if "lost, for" in text]
    assert said == (
        []
        if works
        else [
            "192.0.2.1:40000: 2 syslog messages lost, for the connection ended: "
            "not stored: disk full"
        ]
    )


def test_what_was_received_is_stored_though_the_connection_is_lost(
    wire: Wire, engine: Gate, reactor: HandReactor, counters: Counters
) -> None:
    """Much of it has not been looked at, since nobody knows what became of the first."""
    engine.open_.clear()
    sent = [b"<13>%d" % number for number in range(3 * Syslog.answerLimit)]
    wire.protocol.dataReceived(b"\n".join(sent) + b"\n<13>torn")
    reactor.iterate(0)
    assert counters.lines < len(sent)
    wire.protocol.connectionLost(Failure(ConnectionLost()))
    engine.open_.set()
    reactor.until(lambda: counters.answered)
    reactor.until(lambda: len(engine.lines) == len(sent))
    reactor.until(lambda: counters.answered == len(sent))
    assert engine.lines == sent
    assert (counters.lines, counters.silent, counters.acknowledged) == (len(sent), len(sent), 0)
    assert counters.lost == 0


@pytest.mark.parametrize("stays", [True, False])
def test_messages_of_which_the_store_says_nothing_are_lost_and_counted(
    wire: Wire,
    engine: Gate,
    store: Store,
    reactor: HandReactor,
    counters: Counters,
    log: Log,
    stays: bool,
) -> None:
    engine.open_.clear()
    wire.protocol.dataReceived(b"<13>one\n<13>two\n")
    reactor.iterate(0)
    wire.protocol.dataReceived(b"<13>three\n")
    wire.protocol.connectionLost(Failure(ConnectionLost()))
    if stays:
        engine.open_.set()
        reactor.until(lambda: counters.answered == 3)
    store.giveUp()
    engine.open_.set()
    reactor.until(lambda: len(engine.lines) == 3)
    assert counters.lost == (0 if stays else 3)
    said = [text for text in log.texts if "lost, for" in text]
    why = "lost, for the connection ended: unknown: the service stops"
    assert said == (
        []
        if stays
        else [
            f"192.0.2.1:40000: 2 syslog messages {why}",
            f"192.0.2.1:40000: 1 syslog message {why}",
        ]
    )


@pytest.fixture
def datagrams(reactor: HandReactor, store: Store, counters: Counters) -> SyslogDatagrams:
    made = SyslogDatagrams(clock=reactor, store=store, counters=counters, listener="l")
    made.makeConnection(DatagramWire())
    return made


@pytest.mark.parametrize("peer", [("192.0.2.1", 514), ("192.0.2.1", 7), None, "/run/a"])
def test_a_datagram_is_stored_wherever_it_comes_from_and_never_answered(
    datagrams: SyslogDatagrams, engine: Gate, reactor: HandReactor, counters: Counters, peer: object
) -> None:
    datagrams.datagramReceived(b"<13>one\n", peer)
    reactor.until(lambda: engine.lines)
    assert engine.lines == [b"<13>one"]
    assert datagrams.transport.written == []
    assert counters.suspect == 0


def test_datagrams_are_held_while_they_can_not_be_stored(
    datagrams: SyslogDatagrams, engine: Gate, reactor: HandReactor, counters: Counters
) -> None:
    engine.problem = FULL
    for number in range(3):
        datagrams.datagramReceived(b"<13>%d" % number, ("192.0.2.1", 40000))
    for _ in range(10):
        reactor.advance(0.3)
        reactor.iterate(0.01)
    engine.problem = None
    reactor.until(lambda: len(engine.lines) == 3, passing=0.3)
    assert counters.lost == 0


def test_datagrams_that_are_held_at_the_end_are_lost_and_counted(
    datagrams: SyslogDatagrams, engine: Gate, reactor: HandReactor, counters: Counters, log: Log
) -> None:
    engine.problem = FULL
    datagrams.datagramReceived(b"<13>one", ("192.0.2.1", 40000))
    drained = datagrams.drain()
    for _ in range(10):
        reactor.advance(0.3)
        reactor.iterate(0.01)
    assert not drained.called
    datagrams.cut()
    assert drained.called
    assert counters.lost == 1
    assert "192.0.2.1:40000: a syslog message lost: not stored: disk full" in log.texts
