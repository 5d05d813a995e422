"""The session listener: hello, lines, takeovers, and refusals that end the connection."""

import re
from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from sockservice import Ack, LineFactory, LineServer
from sockservice.errors import StoreError
from sockservice.limits.counters import Counters
from sockservice.net.addresses import LocalPeer
from sockservice.server.session import Session
from sockservice.store.groupcommit import Store
from sockservice.testing import MemoryStore, Pair
from tests.conftest import HandReactor
from tests.doubles import Wire
from tests.server.gate import Gate

OPENED = re.compile(
    rb"session/1 (new|old) position=(\d+) crc=([0-9a-f]{8}) limit=(\d+) epoch=(\d+)"
)
FULL = StoreError("disk full", retry=True)


class Peer:
    """A connection to the listener, from a port of its own."""

    def __init__(
        self, reactor: HandReactor, factory: LineFactory, port: int, address: Any = None
    ) -> None:
        self._reactor = reactor
        address = address or IPv4Address("TCP", "192.0.2.1", port)
        self.wire = Wire(peerAddress=address)
        self.server: LineServer = factory.buildProtocol(address)
        self.server.makeConnection(self.wire)

    def send(self, data: bytes) -> None:
        self.server.dataReceived(data)

    def heard(self) -> bytes:
        """Wait for what is said next."""
        self._reactor.until(lambda: self.wire.writes or self.wire.cut)
        return self.wire.sent()

    def ask(self, data: bytes) -> bytes:
        self.send(data)
        return self.heard()

    def all(self, data: bytes, replies: int) -> list[bytes]:
        """Send, and wait for so many replies."""
        self.send(data)
        said = b""
        while said.count(b"\n") < replies:
            said += self.heard()
        return said.splitlines()

    def open(self, name: bytes = b"demo", more: bytes = b"") -> tuple[int, int]:
        """Open a session; give its position and its checksum."""
        found = OPENED.match(self.ask(b"session/1 " + name + more + b"\n"))
        assert found
        return int(found[2]), int(found[3], 16)

    @property
    def closing(self) -> bool:
        return self.wire.disconnecting or self.wire.cut

    def gone(self) -> None:
        self.server.connectionLost(Failure(ConnectionLost()))


Connect = Callable[..., Peer]


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def connect(reactor: HandReactor, store: Store, counters: Counters) -> Connect:
    def connected(port: int = 1, address: Any = None, **settings: Any) -> Peer:
        given = {"store": store, "listener": "tcp:192.0.2.9:5556", "counters": counters}
        factory = LineFactory(reactor, Session, **{**given, **settings})
        return Peer(reactor, factory, port, address)

    return connected


def test_lines_behind_a_hello_are_acknowledged_and_counted(
    connect: Connect, engine: Gate, counters: Counters
) -> None:
    peer = connect(50312)
    assert peer.open() == (0, 0)
    assert peer.all(b"one\ntwo\r\n", 2) == [b"ok", b"ok"]
    assert engine.kept == [
        ("192.0.2.1:50312 session demo", "tcp:192.0.2.9:5556", line) for line in (b"one", b"two")
    ]
    assert connect(2).open() == (2, crc32(b"one\ntwo\n"))
    assert (counters.sessionsOpened, counters.lines, counters.acknowledged) == (2, 4, 4)


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_the_same_comes_of_it_however_it_arrives(connect: Connect, engine: Gate, size: int) -> None:
    peer = connect()
    stream = b"session/1 demo at=0\r\none\r\n\ntwo\nthree\n"
    for at in range(0, len(stream), size):
        peer.send(stream[at : at + size])
    first, *oks = peer.all(b"", 5)
    assert first.startswith(b"session/1 new position=0 ")
    assert oks == [b"ok"] * 4
    assert engine.lines == [b"one", b"", b"two", b"three"]


def test_a_line_may_hold_any_bytes(connect: Connect, engine: Gate) -> None:
    peer = connect()
    peer.open()
    assert peer.all(b"\xff\xf4\xff\xfd\x06\0\r\x80\nsession/1 demo\n", 2) == [b"ok", b"ok"]
    assert engine.lines == [b"\xff\xf4\xff\xfd\x06\0\r\x80", b"session/1 demo"]


@pytest.mark.parametrize("behind", [b"", b"lost\n" * 3])
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"hello", b"error session: the first line is no hello, which is: session/1 NAME\n"),
        (b"session/9 demo", b"error session: version 9 is not known, 1 is\n"),
        (b"session/1 demo at=7", b"error session: its position is 0, not 7\n"),
        (b"GET / HTTP/1.1", b"error this is no web server\n"),
        (b"x" * 101, b"error line longer than 100 bytes\n"),
    ],
)
def test_whoever_opens_no_session_is_told_and_stores_nothing(
    connect: Connect, engine: Gate, line: bytes, said: bytes, behind: bytes
) -> None:
    peer = connect(lineLimit=100)
    assert peer.ask(line + b"\n" + behind) == said
    peer.send(b"later\n")
    assert peer.closing
    assert engine.kept == []


@pytest.mark.parametrize("end", [b"torn", b"x" * 101 + b"\n", b"x" * 300 + b"\nbehind\n"])
def test_behind_a_line_that_is_refused_nothing_is_stored(
    connect: Connect, engine: Gate, counters: Counters, end: bytes
) -> None:
    peer = connect(lineLimit=100)
    peer.open()
    engine.open_.clear()
    peer.send(b"first\nsecond\n" + end)
    peer.send(b"\nthird\n" if end != b"torn" else b"")
    if end == b"torn":
        peer.server.readConnectionLost()
    engine.open_.set()
    *oks, last = peer.all(b"", 3)
    assert oks == [b"ok", b"ok"]
    said = b"unterminated line" if end == b"torn" else b"line longer than 100 bytes"
    assert last == b"error " + said
    assert peer.closing
    assert connect(2).open()[0] == 2
    assert engine.lines == [b"first", b"second"]
    assert counters.refused == 1


def test_of_a_pipeline_that_fails_in_the_middle_nothing_behind_is_stored_or_answered(
    connect: Connect, engine: Gate, reactor: HandReactor
) -> None:
    peer = connect()
    peer.open()
    assert peer.ask(b"a\n") == b"ok\n"
    engine.open_.clear()
    peer.send(b"b1\nb2\n")
    reactor.iterate(0)
    engine.problem = FULL
    engine.open_.set()
    peer.send(b"c1\nc2\n")
    peer.send(b"d1\n")
    assert peer.heard() == b"error not stored: disk full\n"
    engine.problem = None
    for _ in range(5):
        reactor.iterate(0.01)
    assert peer.wire.sent() == b""
    assert peer.closing
    assert engine.lines == [b"a"]
    reactor.advance(1)  # the store tries again
    assert connect(2).open()[0] == 1


def test_where_nobody_knows_the_sender_asks_again(
    connect: Connect, engine: Gate, reactor: HandReactor
) -> None:
    peer = connect()
    peer.open()
    engine.problem = StoreError("no answer", retry=True, certain=False)
    assert peer.ask(b"a\nb\n") == b"error unknown: no answer\n"
    assert peer.closing
    engine.problem = None
    assert connect(2).ask(b"session/1 demo\n") == b"error not stored: no answer\n"
    reactor.advance(1)  # the store tries again
    again = connect(3).ask(b"session/1 demo\n")
    assert again.startswith(b"session/1 old position=2 ")
    assert engine.lines == [b"a", b"b"]


# Takeovers


def test_the_newer_connection_wins_and_the_older_is_told(
    connect: Connect, engine: Gate, counters: Counters
) -> None:
    older, newer = connect(1), connect(2)
    older.open()
    assert older.ask(b"a\n") == b"ok\n"
    assert newer.open() == (1, crc32(b"a\n"))
    assert older.wire.sent() == b"error session: taken over by 192.0.2.1:2\n"
    assert older.closing
    older.send(b"late\n")
    assert newer.ask(b"b\n") == b"ok\n"
    assert engine.lines == [b"a", b"b"]
    assert (counters.sessionsTakenOver, counters.sessionsRefused) == (1, 0)


def test_lines_before_the_claim_are_acknowledged_and_those_behind_are_not(
    connect: Connect, engine: Gate, reactor: HandReactor
) -> None:
    older, newer = connect(1), connect(2)
    older.open()
    engine.open_.clear()
    older.send(b"a\n")
    reactor.iterate(0)
    older.send(b"b\n")
    newer.send(b"session/1 demo\nc\n")
    older.send(b"d\n")
    engine.open_.set()
    assert newer.all(b"", 2)[0].startswith(b"session/1 old position=2 ")
    assert older.wire.sent() == b"ok\nok\nerror session: taken over by 192.0.2.1:2\n"
    assert engine.lines == [b"a", b"b", b"c"]


def test_in_another_process_the_older_learns_it_at_its_next_line(
    connect: Connect, engine: Gate, store: Store, counters: Counters
) -> None:
    older, newer = connect(1), connect(2)
    older.open()
    store.holders.clear()  # those of the other process
    newer.open()
    assert older.ask(b"a\nb\n") == b"error session: taken over by 192.0.2.1:2\n"
    assert older.closing
    assert engine.lines == []
    assert counters.sessionsTakenOver == 1


def test_an_older_that_does_not_read_is_cut(connect: Connect) -> None:
    older, newer = connect(1), connect(2)
    older.open()
    older.wire.full = True
    older.server.factory.acceptHttp = True
    older.send(b"a\n")
    older.heard()
    newer.open()
    assert older.wire.cut


def test_whoever_goes_before_its_session_is_open_holds_none(
    connect: Connect, engine: Gate, reactor: HandReactor, store: Store
) -> None:
    peer = connect()
    engine.open_.clear()
    peer.send(b"session/1 demo\n")
    reactor.iterate(0)
    peer.gone()
    engine.open_.set()
    assert connect(2).open()[0] == 0
    assert len(store.holders) == 1


def test_who_has_gone_holds_its_session_no_more(connect: Connect, store: Store) -> None:
    older, newer = connect(1), connect(2)
    older.open()
    newer.open()
    older.gone()
    assert len(store.holders) == 1
    newer.gone()
    assert store.holders == {}


# Owners and limits


def test_a_unix_user_owns_its_sessions(connect: Connect) -> None:
    def user(number: int) -> Peer:
        return connect(address=LocalPeer(7, number, 100))

    user(1000).open()
    denied = b"error session: it belongs to another\n"
    assert user(1001).ask(b"session/1 demo\n") == denied
    assert connect().ask(b"session/1 demo\n") == denied
    user(1000).open()


def test_a_certificates_subject_owns_its_sessions(connect: Connect) -> None:
    def holder(subject: str | None) -> Peer:
        peer = connect()
        peer.server.subject = subject
        return peer

    holder("CN=alice").open()
    for other in (None, "CN=mallory", "uid=0"):
        assert holder(other).ask(b"session/1 demo\n") == b"error session: it belongs to another\n"
    holder("CN=alice").open()


def test_the_limit_of_a_line_is_that_of_the_sessions_beginning(
    connect: Connect, engine: Gate
) -> None:
    assert connect(lineLimit=50).ask(b"session/1 demo\n").split()[4] == b"limit=50"
    larger = connect(lineLimit=1000)
    larger.open()
    assert larger.ask(b"x" * 51 + b"\n") == b"error line longer than 50 bytes\n"
    refused = connect(lineLimit=49).ask(b"session/1 demo\n")
    assert refused == b"error session: lines up to 50 bytes, the limit is 49\n"
    assert engine.lines == []


def test_more_sessions_than_may_be_are_refused_for_now(
    connect: Connect, engine: Gate, counters: Counters
) -> None:
    engine.keepSessions(most=1)
    connect().open(b"one")
    assert connect().ask(b"session/1 two\n") == b"error busy: 1 session, the limit\n"
    assert counters.sessionsRefused == 1


def test_an_idle_session_is_told_and_may_be_opened_again(
    connect: Connect, reactor: HandReactor
) -> None:
    peer = connect()
    peer.open()
    peer.server.inspect(reactor.seconds(), 600, 60)  # notes the line
    peer.server.inspect(reactor.seconds() + 601, 600, 60)
    assert peer.heard() == b"error idle for 600 seconds\n"
    assert peer.closing
    connect(2).open()


def test_what_has_arrived_when_the_service_stops_is_stored_and_acknowledged(
    connect: Connect, engine: Gate, reactor: HandReactor
) -> None:
    peer = connect()
    engine.open_.clear()
    peer.send(b"session/1 demo\na\nb\n")
    peer.server.finish()
    reactor.iterate(0)
    engine.open_.set()
    assert peer.all(b"", 3)[1:] == [b"ok", b"ok"]
    assert peer.closing
    assert engine.lines == [b"a", b"b"]


def test_acknowledgements_end_with_the_first_that_fails() -> None:
    class StrictAck(Ack):
        refusalEnds = True

    store = MemoryStore()
    pair = Pair(StrictAck, store=store)
    store.problem = FULL
    pair.client.transport.write(b"a\nb\nc\n")
    pair.flush()
    assert pair.told() == [b"error not stored: disk full"]


def test_sessions_are_tried_in_memory() -> None:
    pair = Pair(Session)
    assert pair.reply(b"session/1 demo").startswith(b"session/1 new position=0 ")
    assert pair.reply(b"one") == b"ok"
    another = pair.another()
    assert another.reply(b"session/1 demo").startswith(b"session/1 old position=1 ")
    assert pair.told() == [b"error session: taken over by 192.0.2.1:50001"]


def test_a_connection_that_has_ended_is_left_alone(connect: Connect, engine: Gate) -> None:
    older = connect(1)
    older.open()
    older.server.connectionLost(Failure(ConnectionDone()))
    connect(2).open()
    assert older.wire.sent() == b""
