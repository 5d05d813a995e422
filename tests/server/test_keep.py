"""How protocols store lines: replies that wait until what they answer is durable."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure

from sockservice import Ack, DatagramServer, LineFactory, LineServer
from sockservice.errors import StoreError
from sockservice.server.answers import Answer
from sockservice.server.builtin import AckDatagrams, DatagramLines
from sockservice.store import groupcommit as commit
from sockservice.store.groupcommit import Store
from tests.conftest import HandReactor, Log
from tests.doubles import PEER, DatagramWire, Wire
from tests.server.gate import Gate

FULL = StoreError("disk full", retry=True)
BROKEN = StoreError("I/O error", retry=False)
LISTENER = "tcp:192.0.2.9:555"


Connect = Callable[..., tuple[LineServer, Wire]]


@pytest.fixture
def connect(reactor: HandReactor, store: Store) -> Connect:
    """Connect a protocol, Ack if nothing else is said, to a transport in memory."""

    def connected(
        protocol: Callable[[], LineServer] = Ack, **settings: Any
    ) -> tuple[LineServer, Wire]:
        given: dict[str, Any] = {"store": store, "listener": LISTENER} | settings
        factory = LineFactory(reactor, protocol, **given)
        wire = Wire()
        server = factory.buildProtocol(wire.getPeer())
        assert isinstance(server, LineServer)
        server.makeConnection(wire)
        return server, wire

    return connected


class Keeping(LineServer):
    """Stores what begins with `!`, and says so."""

    async def answer(self, line: bytes) -> bytes:
        if line.startswith(b"!"):
            await self.keep([line])
            return b"kept " + line[1:]
        return b"not kept"


# Replies and durability


def test_no_line_is_acknowledged_before_it_is_durable(
    reactor: HandReactor, connect: Connect, engine: Gate
) -> None:
    server, wire = connect()
    engine.open_.clear()
    server.dataReceived(b"a\nb\n")
    for _ in range(5):
        reactor.iterate(0)
    assert (wire.sent(), engine.kept) == (b"", [])
    engine.open_.set()
    reactor.until(lambda: wire.writes)
    assert wire.sent() == b"ok\nok\n"
    assert engine.lines == [b"a", b"b"]


def test_lines_that_came_together_are_acknowledged_with_one_write(
    reactor: HandReactor, connect: Connect, engine: Gate
) -> None:
    server, wire = connect()
    server.dataReceived(b"line\n" * 500)
    reactor.until(lambda: wire.writes)
    assert wire.writes == [b"ok\n" * 500]


def test_what_is_stored_says_when_from_whom_and_where(
    reactor: HandReactor, connect: Connect, engine: Gate
) -> None:
    server, wire = connect(wall=lambda: 1_700_000_000.25)
    server.dataReceived(b"\0\xfe\rx\r\n")
    reactor.until(lambda: wire.writes)
    assert engine.kept == [("192.0.2.1:40000", LISTENER, b"\0\xfe\rx")]
    assert engine.received == [1_700_000_000_250_000]


def test_each_line_is_acknowledged_with_its_own_ending(
    reactor: HandReactor, connect: Connect, engine: Gate
) -> None:
    server, wire = connect()
    server.dataReceived(b"a\nb\r\n\r\nc\n")
    reactor.until(lambda: len(engine.kept) == 4 and len(b"".join(wire.writes)) == 14)
    assert wire.sent() == b"ok\nok\r\nok\r\nok\n"
    assert engine.lines == [b"a", b"b", b"", b"c"]


def test_what_is_refused_before_it_could_be_stored_keeps_its_place(
    reactor: HandReactor, connect: Connect, engine: Gate
) -> None:
    server, wire = connect(lineLimit=5)
    engine.open_.clear()
    server.dataReceived(b"a\ntoo long\nb\n")
    reactor.iterate(0)
    assert wire.sent() == b""
    engine.open_.set()
    reactor.until(lambda: b"".join(wire.writes).count(b"\n") == 3)
    assert wire.sent() == b"ok\nerror line longer than 5 bytes\nok\n"
    assert engine.lines == [b"a", b"b"]


def test_a_last_line_that_may_be_torn_is_not_stored(
    reactor: HandReactor, connect: Connect, engine: Gate
) -> None:
    server, wire = connect()
    server.dataReceived(b"whole\ntorn")
    IHalfCloseableProtocol(server).readConnectionLost()
    reactor.until(lambda: wire.disconnecting)
    assert wire.sent() == b"ok\nerror unterminated line\n"
    assert engine.lines == [b"whole"]


def test_without_a_store_lines_are_acknowledged_at_once(connect: Connect) -> None:
    server, wire = connect(store=None)
    server.dataReceived(b"a\nb\n")
    assert wire.sent() == b"ok\nok\n"


# Failures


def test_lines_that_cannot_be_stored_are_refused_and_the_connection_goes_on(
    reactor: HandReactor, connect: Connect, engine: Gate
) -> None:
    server, wire = connect()
    engine.problem = FULL
    server.dataReceived(b"a\nb\n")
    reactor.until(lambda: wire.writes)
    assert wire.sent() == b"error not stored: disk full\n" * 2
    server.dataReceived(b"c\r\n")  # at once, until it is tried again
    assert wire.sent() == b"error not stored: disk full\r\n"
    engine.problem = None
    reactor.advance(commit.RETRY_FIRST)
    server.dataReceived(b"d\n")
    reactor.until(lambda: wire.writes)
    assert wire.sent() == b"ok\n"
    assert engine.lines == [b"d"]
    assert (server.lines, server.refused, server.factory.counters.refused) == (4, 3, 3)
    assert not wire.disconnecting


def test_lines_of_which_nobody_knows_are_told_so_and_those_behind_them_are_not_stored(
    reactor: HandReactor, connect: Connect, engine: Gate
) -> None:
    server, wire = connect()
    engine.problem = StoreError("I/O error", retry=False, certain=False)
    server.dataReceived(b"a\nb\r\n")
    reactor.until(lambda: wire.writes)
    server.dataReceived(b"c\n")
    assert wire.sent() == (
        b"error unknown: I/O error\nerror unknown: I/O error\r\nerror not stored: I/O error\n"
    )
    assert (server.lines, server.refused) == (3, 3)


def test_the_log_says_it_once_and_not_for_each_line(
    reactor: HandReactor, connect: Connect, engine: Gate, log: Log
) -> None:
    server, wire = connect()
    engine.problem = FULL
    for _ in range(3):
        server.dataReceived(b"a\nb\n")
        reactor.until(lambda: wire.writes)
        wire.sent()
        reactor.advance(2)
    assert len([text for text in log.texts if "disk full" in text]) == 1


def test_after_a_failure_for_good_no_line_is_ever_acknowledged(
    reactor: HandReactor, connect: Connect, engine: Gate
) -> None:
    server, wire = connect()
    engine.problem = BROKEN
    server.dataReceived(b"a\n")
    reactor.until(lambda: wire.writes)
    engine.problem = None
    reactor.advance(3600)
    server.dataReceived(b"b\n")
    other, otherWire = connect()
    other.dataReceived(b"c\n")
    assert wire.sent() == b"error not stored: I/O error\n" * 2
    assert otherWire.sent() == b"error not stored: I/O error\n"
    assert engine.kept == []


# Flow


def test_nothing_more_is_read_while_the_store_is_full(
    reactor: HandReactor, connect: Connect, engine: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "PENDING_LIMIT", 10)
    (server, wire), (other, otherWire) = connect(), connect()
    engine.open_.clear()
    server.dataReceived(b"12345\n")
    assert not wire.paused
    server.dataReceived(b"67890\r\nmore\nand more\r\n")
    assert wire.paused
    # It has come already, in spite of the pause.
    server.dataReceived(b"last\n")
    # To whoever comes it is as full.
    other.dataReceived(b"other\nb\r\n")
    assert otherWire.paused
    engine.open_.set()
    reactor.until(lambda: len(engine.kept) == 7)
    reactor.until(lambda: not (wire.paused or otherWire.paused))
    reactor.until(lambda: b"".join(wire.writes).count(b"\n") == 5)
    assert wire.sent() == b"ok\nok\r\nok\nok\r\nok\n"
    assert otherWire.sent() == b"ok\nok\r\n"
    ours = [line for line in engine.lines if line not in (b"other", b"b")]
    assert ours == [b"12345", b"67890", b"more", b"and more", b"last"]


def test_nothing_more_is_read_from_the_moment_the_store_is_full(
    reactor: HandReactor, connect: Connect, engine: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "PENDING_LIMIT", 5)
    server, wire = connect()
    engine.open_.clear()
    server.dataReceived(b"12345\n")
    assert wire.paused
    engine.open_.set()
    reactor.until(lambda: not wire.paused)
    assert wire.sent() == b"ok\n"


def test_who_goes_while_the_store_is_full_holds_up_nobody(
    reactor: HandReactor, connect: Connect, engine: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "PENDING_LIMIT", 5)
    (server, wire), (other, otherWire) = connect(), connect()
    engine.open_.clear()
    server.dataReceived(b"12345\nnever\r\n")
    other.dataReceived(b"other\n")
    server.connectionLost(Failure(ConnectionDone()))
    engine.open_.set()
    reactor.until(lambda: otherWire.writes)
    assert (wire.sent(), otherWire.sent()) == (b"", b"ok\n")
    assert engine.lines == [b"12345", b"other"]


def test_replies_go_out_after_a_half_close_although_the_store_was_full(
    reactor: HandReactor, connect: Connect, engine: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "PENDING_LIMIT", 5)
    server, wire = connect()
    engine.open_.clear()
    server.dataReceived(b"12345\nb\r\nc\n")
    IHalfCloseableProtocol(server).readConnectionLost()
    assert not wire.disconnecting
    engine.open_.set()
    reactor.until(lambda: wire.disconnecting)
    assert wire.sent() == b"ok\nok\r\nok\n"
    assert engine.lines == [b"12345", b"b", b"c"]


def test_draining_stores_and_acknowledges_all_that_was_received(
    reactor: HandReactor, connect: Connect, engine: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "PENDING_LIMIT", 5)
    server, wire = connect()
    engine.open_.clear()
    server.dataReceived(b"12345\nb\r\nc\n")
    server.finish()
    engine.open_.set()
    reactor.until(lambda: wire.disconnecting)
    assert wire.sent() == b"ok\nok\r\nok\n"
    assert engine.lines == [b"12345", b"b", b"c"]


def test_who_goes_before_his_line_is_durable_is_not_missed(
    reactor: HandReactor, connect: Connect, engine: Gate
) -> None:
    server, wire = connect()
    other, otherWire = connect()
    engine.open_.clear()
    server.dataReceived(b"a\n")
    other.dataReceived(b"b\n")
    server.connectionLost(Failure(ConnectionDone()))
    engine.open_.set()
    reactor.until(lambda: otherWire.writes)
    assert (wire.sent(), otherWire.sent()) == (b"", b"ok\n")
    assert engine.lines == [b"a", b"b"]  # at least once


# Subclasses


def test_a_subclass_stores_what_it_chooses(
    reactor: HandReactor, connect: Connect, engine: Gate
) -> None:
    server, wire = connect(Keeping)
    engine.open_.clear()
    server.dataReceived(b"!a\nb\n!c\n")
    reactor.iterate(0)
    assert wire.sent() == b""
    engine.open_.set()
    reactor.until(lambda: b"".join(wire.writes).count(b"\n") == 3)
    assert wire.sent() == b"kept a\nnot kept\nkept c\n"
    assert engine.kept == [
        ("192.0.2.1:40000", LISTENER, b"!a"),
        ("192.0.2.1:40000", LISTENER, b"!c"),
    ]
    engine.problem = FULL
    server.dataReceived(b"!d\ne\n")
    reactor.until(lambda: b"".join(wire.writes).count(b"\n") == 2)
    assert wire.sent() == b"error not stored: disk full\nnot kept\n"


def test_who_stores_in_a_service_without_a_store_is_told(connect: Connect, log: Log) -> None:
    server, wire = connect(Keeping, store=None)
    server.dataReceived(b"!a\nb\n")
    assert wire.sent() == b"error internal error\nnot kept\n"
    [failure] = log.failures(RuntimeError)
    assert failure.getErrorMessage() == "this service has no store; start it with --store"


def test_refused_lines_take_no_memory(reactor: HandReactor, connect: Connect, engine: Gate) -> None:
    server, wire = connect(Keeping)
    engine.problem = FULL
    server.dataReceived(b"!a\n")
    reactor.until(lambda: wire.writes)
    for _ in range(100):
        server.dataReceived(b"!a\n")
    entries, traceback = 0, FULL.__traceback__
    while traceback is not None:
        entries, traceback = entries + 1, traceback.tb_next
    assert entries < 100


# DatagramWire


Serve = Callable[..., tuple[DatagramServer, DatagramWire]]


@pytest.fixture
def serve(reactor: HandReactor, store: Store) -> Serve:
    """Serve datagrams in memory."""

    def served(
        protocol: Callable[..., DatagramServer] = AckDatagrams, **settings: Any
    ) -> tuple[DatagramServer, DatagramWire]:
        given = {"clock": reactor, "store": store, "listener": "udp:192.0.2.9:555"} | settings
        wire = DatagramWire()
        server = protocol(**given)
        server.makeConnection(wire)
        return server, wire

    return served


def test_a_datagram_is_acknowledged_when_it_is_durable(
    reactor: HandReactor, serve: Serve, engine: Gate
) -> None:
    server, wire = serve(wall=lambda: 1_700_000_000.25)
    engine.open_.clear()
    server.datagramReceived(b"a\nb\0", PEER)
    server.datagramReceived(b"", ("::1", 7777, 0, 0))
    for _ in range(5):
        reactor.iterate(0)
    assert wire.written == []
    engine.open_.set()
    reactor.until(lambda: len(wire.written) == 2)
    assert wire.written == [(b"ok", PEER), (b"ok", ("::1", 7777, 0, 0))]
    assert engine.kept == [
        ("192.0.2.1:40000", "udp:192.0.2.9:555", b"a\nb\0"),
        ("[::1]:7777", "udp:192.0.2.9:555", b""),
    ]
    assert engine.received == [1_700_000_000_250_000] * 2


def test_a_datagram_of_which_nobody_knows_is_told_so(
    reactor: HandReactor, serve: Serve, engine: Gate
) -> None:
    server, wire = serve()
    engine.problem = StoreError("I/O error", retry=False, certain=False)
    server.datagramReceived(b"a", PEER)
    reactor.until(lambda: wire.written)
    assert wire.written == [(b"error unknown: I/O error", PEER)]


def test_a_datagram_that_cannot_be_stored_is_refused(
    reactor: HandReactor, serve: Serve, engine: Gate
) -> None:
    server, wire = serve()
    engine.problem = FULL
    server.datagramReceived(b"a", PEER)
    reactor.until(lambda: wire.written)
    server.datagramReceived(b"b", PEER)
    assert wire.written == [(b"error not stored: disk full", PEER)] * 2
    engine.problem = None
    reactor.advance(commit.RETRY_FIRST)
    server.datagramReceived(b"c", PEER)
    reactor.until(lambda: len(wire.written) == 3)
    assert wire.written[-1] == (b"ok", PEER)
    assert engine.lines == [b"c"]


def test_no_datagram_is_read_while_too_many_are_not_durable(
    reactor: HandReactor, serve: Serve, engine: Gate
) -> None:
    server, wire = serve()
    engine.open_.clear()
    for number in range(server.answerLimit):
        assert not wire.paused
        server.datagramReceived(b"%d" % number, PEER)
    assert wire.paused
    engine.open_.set()
    reactor.until(lambda: len(wire.written) == server.answerLimit)
    assert not wire.paused


def test_draining_stores_and_acknowledges_the_datagrams_received(
    reactor: HandReactor, serve: Serve, engine: Gate
) -> None:
    server, wire = serve()
    server.datagramReceived(b"a", PEER)
    reactor.result(server.drain())
    assert (wire.written, engine.lines) == ([(b"ok", PEER)], [b"a"])


def test_without_a_store_datagrams_are_acknowledged_at_once(serve: Serve) -> None:
    server, wire = serve(store=None)
    server.datagramReceived(b"a", PEER)
    assert wire.written == [(b"ok", PEER)]


class KeepingDatagrams(DatagramServer):
    """Stores every datagram."""

    def answer(self, datagram: bytes, peer: Any) -> Answer:
        kept: Deferred[None] = self.keep(datagram, peer)
        return kept.addCallback(lambda _: b"kept")


def test_a_subclass_that_stores_datagrams(reactor: HandReactor, serve: Serve, engine: Gate) -> None:
    server, wire = serve(KeepingDatagrams)
    server.datagramReceived(b"a", PEER)
    reactor.until(lambda: wire.written)
    assert (wire.written, engine.lines) == ([(b"kept", PEER)], [b"a"])


def test_who_stores_datagrams_without_a_store_is_told(serve: Serve, log: Log) -> None:
    server, wire = serve(KeepingDatagrams, store=None)
    server.datagramReceived(b"a", PEER)
    assert wire.written == [(b"error internal error", PEER)]
    [failure] = log.failures(RuntimeError)
    assert failure.getErrorMessage() == "this service has no store; start it with --store"


def test_a_line_server_that_serves_datagrams_stores_them_with_their_peers(
    reactor: HandReactor, serve: Serve, engine: Gate
) -> None:
    server, wire = serve(lambda **settings: DatagramLines(Keeping, **settings))
    engine.open_.clear()
    server.datagramReceived(b"!a", PEER)
    server.datagramReceived(b"!b", ("192.0.2.2", 2222))
    engine.open_.set()
    reactor.until(lambda: len(wire.written) == 2)
    assert wire.written == [(b"kept a", PEER), (b"kept b", ("192.0.2.2", 2222))]
    assert engine.kept == [
        ("192.0.2.1:40000", "udp:192.0.2.9:555", b"!a"),
        ("192.0.2.2:2222", "udp:192.0.2.9:555", b"!b"),
    ]


def test_a_line_server_keeps_datagrams_while_the_store_is_full(
    reactor: HandReactor, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "PENDING_LIMIT", 2)
    server, wire = serve(lambda **settings: DatagramLines(Keeping, **settings))
    server.datagramReceived(b"!a", PEER)
    server.datagramReceived(b"!b", PEER)
    reactor.until(lambda: len(wire.written) == 2)
    assert wire.written == [(b"kept a", PEER), (b"kept b", PEER)]


class KeepingLate(LineServer):
    """Stores a line when something else has come, by a coroutine or by callbacks."""

    datagrams = True

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []

    def answer(self, line: bytes) -> Answer:
        before: Deferred[None] = Deferred()
        self.waiting.append(before)
        if line == b"go":
            for each in self.waiting:
                each.callback(None)
        if line == b"a":
            return self._kept(before, line)
        return before.addCallback(lambda _: self._keep(line))

    def _keep(self, line: bytes) -> Deferred[bytes]:
        return self.keep([line]).addCallback(lambda _: self.peer.encode())

    async def _kept(self, before: Deferred[None], line: bytes) -> bytes:
        await before
        return await self._keep(line)


def test_a_datagram_that_waits_is_stored_under_its_own_peer(
    reactor: HandReactor, serve: Serve, engine: Gate
) -> None:
    server, wire = serve(lambda **settings: DatagramLines(KeepingLate, **settings))
    peers = [(b"a", ("192.0.2.1", 1)), (b"b", ("192.0.2.2", 2)), (b"go", ("192.0.2.3", 3))]
    for datagram, peer in peers:
        server.datagramReceived(datagram, peer)
    reactor.until(lambda: len(wire.written) == 3)
    assert sorted(wire.written) == [
        (b"192.0.2.1:1", ("192.0.2.1", 1)),
        (b"192.0.2.2:2", ("192.0.2.2", 2)),
        (b"192.0.2.3:3", ("192.0.2.3", 3)),
    ]
    assert sorted((line, peer) for peer, _, line in engine.kept) == [
        (b"a", "192.0.2.1:1"),
        (b"b", "192.0.2.2:2"),
        (b"go", "192.0.2.3:3"),
    ]
