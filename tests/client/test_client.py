"""The clients, joined to real servers: in memory, then over the loopback."""

import errno
import socket
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectionRefusedError, TCPTimedOutError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.test import iosim

from sockservice import (
    Ack,
    DatagramClient,
    DatagramPort,
    Echo,
    LineClient,
    LineFactory,
    LineServer,
    TimedOut,
    Unanswered,
    connect,
)
from sockservice.client.farewell import DOUBT
from sockservice.client.hostport import hostAndPort
from sockservice.client.line import REPLY_LIMIT, UNASKED_LIMIT
from sockservice.client.requests import Discarded
from tests.conftest import PATIENCE, ClosedNumber, HandReactor, Reactor, failure, until
from tests.doubles import Mirror, Outcome, Slow


class Pair:
    """A client and a server, joined in memory."""

    def __init__(self, protocol: Callable[[], LineServer]) -> None:
        self.clock = Clock()
        self.client = LineClient(self.clock)
        self.server = LineFactory(self.clock, protocol).buildProtocol(None)
        self._pump = iosim.connect(
            self.server,
            iosim.makeFakeServer(self.server),
            self.client,
            iosim.makeFakeClient(self.client),
        )

    def flush(self) -> None:
        """Let all bytes arrive."""
        self._pump.flush()

    def drop(self) -> None:
        """Have the server's end close."""
        self.server.transport.loseConnection()
        self.flush()


def test_each_line_gets_its_own_reply() -> None:
    pair = Pair(Mirror)
    outcomes = [Outcome(pair.client.ask(b"%d" % number)) for number in range(2500)]
    assert pair.client.outstanding == 2500
    pair.flush()
    assert [outcome.value for outcome in outcomes] == [b"%d" % number for number in range(2500)]
    assert pair.client.outstanding == 0


@given(st.lists(st.binary(max_size=8).filter(lambda line: b"\n" not in line), max_size=8))
def test_a_line_holds_any_byte_but_lf_and_no_line_is_changed(lines: list[bytes]) -> None:
    # What telnet clients send is theirs; see docs/protocol.md.
    lines = [b"." + line for line in lines]
    pair = Pair(Mirror)
    outcomes = [Outcome(pair.client.ask(line)) for line in lines]
    pair.flush()
    assert [outcome.value for outcome in outcomes] == lines


@pytest.mark.parametrize("line", [b"", b"\r", b"a\r", b"\r\r", b"a\0\xff"])
def test_a_line_that_could_be_taken_for_its_ending_arrives_whole(line: bytes) -> None:
    pair = Pair(Slow)
    pair.client.ask(line)
    pair.flush()
    slow = pair.server
    assert isinstance(slow, Slow)
    assert slow.asked == [line]


@pytest.mark.parametrize("line", [b"\n", b"a\n", b"a\r\nb"])
def test_a_line_with_an_lf_is_two_and_is_not_sent(line: bytes) -> None:
    pair = Pair(Slow)
    with pytest.raises(ValueError, match="a line holds no LF"):
        pair.client.ask(line)
    pair.flush()
    assert pair.server.lines == 0
    assert pair.client.outstanding == 0


def test_a_reply_that_does_not_come_in_time_fails_its_line_alone() -> None:
    pair = Pair(Slow)
    slow = pair.server
    assert isinstance(slow, Slow)
    first, second = Outcome(pair.client.ask(b"a", 2.5)), Outcome(pair.client.ask(b"b", 10))
    pair.flush()
    pair.clock.advance(2.4)
    assert not first.came
    pair.clock.advance(0.2)
    assert isinstance(first.error, TimedOut)
    assert str(first.error) == "no reply within 2.5 seconds"
    assert pair.client.outstanding == 1
    slow.due[0].callback(b"A")
    slow.due[1].callback(b"B")
    pair.flush()
    assert second.value == b"B"


def test_no_timer_outlives_its_line() -> None:
    pair = Pair(Mirror)
    answered = Outcome(pair.client.ask(b"a", 5))
    pair.flush()
    given_up = pair.client.ask(b"b", 5)
    cancelled = Outcome(given_up)
    given_up.cancel()
    lost = Outcome(pair.client.ask(b"c", 5))
    pair.client.connectionLost()
    late = Outcome(pair.client.ask(b"d", 5))
    assert pair.clock.getDelayedCalls() == []
    assert answered.value == b"a"
    assert all(isinstance(each.error, Unanswered) for each in (lost, late))
    assert isinstance(cancelled.error, CancelledError)


def test_the_reply_to_a_cancelled_line_is_given_to_no_other() -> None:
    pair = Pair(Mirror)
    asked = pair.client.ask(b"a")
    first, second = Outcome(asked), Outcome(pair.client.ask(b"b"))
    asked.cancel()
    assert isinstance(first.error, CancelledError)
    assert pair.client.outstanding == 1
    pair.flush()
    assert second.value == b"b"


def test_every_outstanding_line_fails_when_the_connection_ends() -> None:
    pair = Pair(Slow)
    outcomes = [Outcome(pair.client.ask(line)) for line in (b"a", b"b")]
    pair.flush()
    ended = [Outcome(pair.client.disconnected()) for _ in range(2)]
    assert not ended[0].came
    pair.drop()
    for outcome in outcomes:
        assert isinstance(outcome.error, Unanswered)
        assert str(outcome.error).startswith("connection lost: ")
    assert [outcome.value for outcome in ended] == [None, None]
    assert pair.client.outstanding == 0
    assert Outcome(pair.client.disconnected()).value is None


def test_nothing_can_be_asked_when_the_connection_has_ended() -> None:
    pair = Pair(Mirror)
    pair.drop()
    error = Outcome(pair.client.ask(b"a")).error
    assert isinstance(error, Unanswered)
    assert str(error).startswith("connection lost: ")
    assert Outcome(pair.client.close()).came


def test_what_is_asked_when_a_line_fails_fails_too() -> None:
    pair = Pair(Slow)
    again: list[Outcome] = []
    asked = pair.client.ask(b"a")
    asked.addErrback(lambda _: again.append(Outcome(pair.client.ask(b"a"))))
    pair.flush()
    pair.drop()
    assert isinstance(again[0].error, Unanswered)


def test_close_waits_for_the_replies_outstanding() -> None:
    pair = Pair(Slow)
    slow = pair.server
    assert isinstance(slow, Slow)
    asked = Outcome(pair.client.ask(b"a"))
    pair.flush()
    closed = Outcome(pair.client.close())
    pair.flush()
    assert not closed.came
    refused = Outcome(pair.client.ask(b"b"))
    assert str(refused.error) == "the connection is closed"
    slow.due[0].callback(b"A")
    pair.flush()
    assert asked.value == b"A"
    assert closed.came
    assert slow.asked == [b"a"]


def test_close_waits_no_longer_than_for_the_last_timeout() -> None:
    pair = Pair(Slow)
    asked = Outcome(pair.client.ask(b"a", 3))
    closed = Outcome(pair.client.close())
    pair.flush()
    pair.clock.advance(3)
    pair.flush()
    assert isinstance(asked.error, TimedOut)
    assert closed.came


def test_close_with_nothing_outstanding_closes_and_may_be_called_again() -> None:
    pair = Pair(Mirror)
    outcomes = [Outcome(pair.client.close()) for _ in range(2)]
    pair.flush()
    assert [outcome.value for outcome in outcomes] == [None, None]


def test_a_line_nobody_asked_for_is_no_reply_to_the_next() -> None:
    class Curious(LineClient):
        heard: list[bytes]

        def unasked(self, line: bytes) -> None:
            super().unasked(line)
            self.heard.append(line)

    client = Curious(Clock())
    client.heard = []
    transport = iosim.makeFakeClient(client)
    client.makeConnection(transport)
    client.dataReceived(b"welcome\r\nhello\n")
    asked = Outcome(client.ask(b"a"))
    assert not asked.came
    client.dataReceived(b"ok\n")
    assert asked.value == b"ok"
    assert client.heard == [b"welcome", b"hello"]


def test_a_reply_that_is_too_long_fails_its_line_alone() -> None:
    pair = Pair(Slow)
    slow = pair.server
    assert isinstance(slow, Slow)
    first, second = Outcome(pair.client.ask(b"a")), Outcome(pair.client.ask(b"b"))
    pair.flush()
    slow.due[0].callback(b"x" * (REPLY_LIMIT + 1))
    slow.due[1].callback(b"x" * REPLY_LIMIT)
    pair.flush()
    assert isinstance(first.error, Unanswered)
    assert str(first.error) == f"reply line longer than {REPLY_LIMIT} bytes"
    assert second.value == b"x" * REPLY_LIMIT
    pair.client.dataReceived(b"x" * (REPLY_LIMIT + 1) + b"\n")
    assert Outcome(pair.client.ask(b"c")).came is False


# Over the loopback


class Loopback:
    """Servers on the loopback, and clients connected to them."""

    def __init__(self, reactor: Reactor, ending: AsyncExitStack) -> None:
        self.reactor = reactor
        self._ending = ending

    def lines(self, host: str) -> int:
        factory = LineFactory(self.reactor, Ack)
        port = self.reactor.listenTCP(0, factory, interface=host)
        self._ending.push_async_callback(factory.drain)
        self._ending.callback(factory.cut)
        self._ending.push_async_callback(port.stopListening)
        number: int = port.getHost().port
        return number

    def datagrams(self, host: str) -> int:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = self._ending.enter_context(closing(socket.socket(family, socket.SOCK_DGRAM)))
        bound.bind((host, 0))
        port = DatagramPort(self.reactor, bound, Echo())
        port.startListening()
        self._ending.callback(port.stopListening)
        number: int = bound.getsockname()[1]
        return number

    async def connect(self, target: str) -> Any:
        client = await connect(self.reactor, target)
        self._ending.push_async_callback(client.close)
        return client


@pytest.fixture
def loopback(real: Reactor, ending: AsyncExitStack) -> Loopback:
    return Loopback(real, ending)


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("127.0.0.1", "tcp:127.0.0.1:{}"),
        ("127.0.0.1", "tcp:localhost:{}"),
        ("::1", "tcp:[::1]:{}"),
        ("127.0.0.1", "tcp:host=127.0.0.1:port={}"),
        ("127.0.0.1", "tcp:127.0.0.1:{}:timeout=5"),
    ],
)
async def test_connect_reaches_a_line_server(loopback: Loopback, host: str, target: str) -> None:
    client = await loopback.connect(target.format(loopback.lines(host)))
    assert isinstance(client, LineClient)
    assert await client.ask(b"hello", 5) == b"ok"


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("127.0.0.1", "udp:127.0.0.1:{}"),
        ("127.0.0.1", "udp:localhost:{}"),
        ("::1", "udp:[::1]:{}"),
    ],
)
async def test_connect_reaches_a_datagram_server(
    loopback: Loopback, host: str, target: str
) -> None:
    client = await loopback.connect(target.format(loopback.datagrams(host)))
    assert isinstance(client, DatagramClient)
    for datagram in (b"hello", b"", b"x" * 65507):
        assert await client.ask(datagram) == datagram


def test_connecting_where_nobody_listens_fails(
    reactor: HandReactor, closed_number: ClosedNumber
) -> None:
    target = f"tcp:127.0.0.1:{closed_number(socket.SOCK_STREAM)}"
    outcome = Outcome(connect(reactor, target))
    # The endpoint waits a little for other addresses of the host.
    reactor.until(lambda: outcome.came, passing=0.1)
    assert isinstance(outcome.error, ConnectionRefusedError)


@pytest.mark.parametrize("datagrams", [[b"a"], [b"a", b"b"], [b"a", b"b", b"c"]])
async def test_every_datagram_fails_where_nobody_listens(
    loopback: Loopback, datagrams: list[bytes], closed_number: ClosedNumber
) -> None:
    client = await loopback.connect(f"udp:127.0.0.1:{closed_number(socket.SOCK_DGRAM)}")
    outcomes = [Outcome(client.ask(each)) for each in datagrams]
    await until(lambda: not client.outstanding)
    for outcome in outcomes:
        assert isinstance(outcome.error, Unanswered)
        assert not isinstance(outcome.error, TimedOut)
        assert "refused" in str(outcome.error)


async def test_a_datagram_longer_than_any_is_not_sent(loopback: Loopback) -> None:
    client = await loopback.connect(f"udp:127.0.0.1:{loopback.datagrams('127.0.0.1')}")
    error = await failure(client.ask(b"x" * 65508))
    assert isinstance(error, Unanswered)
    assert str(error) == "not sent: Message too long"


async def test_a_closed_datagram_client_fails_what_is_asked_of_it(loopback: Loopback) -> None:
    client = await loopback.connect(f"udp:127.0.0.1:{loopback.datagrams('127.0.0.1')}")
    pending = Outcome(client.ask(b"a"))
    await client.close()
    await client.close()
    assert isinstance(pending.error, Unanswered)
    assert str(pending.error) == "the socket is closed"
    assert str(Outcome(client.ask(b"b")).error) == "not sent: the socket is closed"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("localhost:5555", ("localhost", 5555)),
    ],
)
def test_a_host_and_a_port_are_read(text: str, expected: tuple[str, int]) -> None:
    assert hostAndPort(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("localhost", "'localhost' is not HOST:PORT"),
        ("", "'' is not HOST:PORT"),
        (":5555", "':5555' is not HOST:PORT"),
        ("a:", "'a:' is not HOST:PORT"),
        ("a:0", "'a:0' is not HOST:PORT"),
        ("a:65536", "'a:65536' is not HOST:PORT"),
        ("a:-1", "'a:-1' is not HOST:PORT"),
        ("a:\u0665", "'a:\u0665' is not HOST:PORT"),
        ("[]:5", "'[]:5' is not HOST:PORT"),
        ("::1:5555", "write an IPv6 address in brackets: [::1]:5555"),
    ],
)
def test_what_is_no_host_and_port_is_told_apart(text: str, why: str) -> None:
    with pytest.raises(ValueError) as problem:
        hostAndPort(text)
    assert str(problem.value) == why


@pytest.mark.parametrize("target", ["tcp:", "udp:nowhere", "nonsense:x", "", "tcp:::1:5555"])
async def test_what_is_no_target_is_a_value_error(real: Reactor, target: str) -> None:
    assert isinstance(await failure(connect(real, target)), ValueError)


async def test_a_name_that_nothing_has_fails(real: Reactor) -> None:
    """RFC 6761 keeps `.invalid` from ever having an address."""
    error = await failure(connect(real, "udp:nowhere.invalid:5555"))
    assert isinstance(error, OSError)


# Lines that answer none


async def all_of(client: LineClient, got: list[bytes]) -> None:
    async for line in client.lines():
        got.append(line)


def pushed(clock: Clock | None = None) -> tuple[LineClient, StringTransport]:
    client = LineClient(clock or Clock())
    wire = StringTransport()
    client.makeConnection(wire)
    return client, wire


def test_lines_nobody_asked_for_are_iterated_until_the_end() -> None:
    client, _ = pushed()
    client.dataReceived(b"before\n")
    got: list[bytes] = []
    done = Outcome(Deferred.fromCoroutine(all_of(client, got)))
    assert got == [b"before"]
    client.dataReceived(b"a\nb\n")
    asked = Outcome(client.ask(b"x"))
    client.dataReceived(b"reply\nc\n")
    assert (got, asked.value) == ([b"before", b"a", b"b", b"c"], b"reply")
    assert not done.came
    client.connectionLost()
    assert done.value is None


def test_the_latest_lines_are_kept_while_nobody_reads_them() -> None:
    client, wire = pushed()
    client.dataReceived(b"".join(b"%d\n" % number for number in range(UNASKED_LIMIT + 5)))
    assert wire.producerState == "producing"
    got: list[bytes] = []
    client.connectionLost()
    Outcome(Deferred.fromCoroutine(all_of(client, got)))
    assert got == [b"%d" % number for number in range(6, UNASKED_LIMIT + 5)]


def test_nothing_is_read_while_too_many_lines_wait_for_a_slow_reader() -> None:
    client, wire = pushed()
    lines = client.lines()
    gate: list[Deferred[None]] = []
    got: list[bytes] = []

    async def slowly() -> None:
        async for line in lines:
            got.append(line)
            if len(got) == 1:
                gate.append(Deferred())
                await gate[0]

    Outcome(Deferred.fromCoroutine(slowly()))
    client.dataReceived(b"first\n")
    client.dataReceived(b"x\n" * (UNASKED_LIMIT + 3))
    assert wire.producerState == "paused"
    gate[0].callback(None)
    assert wire.producerState == "producing"
    assert len(got) == UNASKED_LIMIT + 4


def test_abort_closes_at_once_and_may_be_called_again() -> None:
    pair = Pair(Slow)
    asked = Outcome(pair.client.ask(b"a"))
    outcomes = [Outcome(pair.client.abort())]
    pair.flush()
    outcomes.append(Outcome(pair.client.abort()))
    assert isinstance(asked.error, Unanswered)
    assert [outcome.value for outcome in outcomes] == [None, None]


def test_a_lookup_that_takes_too_long_fails(
    reactor: HandReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    let = threading.Event()

    def getaddrinfo(*_: object) -> Any:
        assert let.wait(PATIENCE)
        return [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", ("192.0.2.1", 5555))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    outcome = Outcome(connect(reactor, "udp:slow.invalid:5555", timeout=2))
    reactor.advance(2.1)
    reactor.until(lambda: outcome.came)
    let.set()
    assert isinstance(outcome.error, TCPTimedOutError)
    assert outcome.error.osError == errno.ETIMEDOUT
    assert "not connected within 2 seconds" in str(outcome.error)


@pytest.mark.parametrize("scheme", ["unix-datagram", "unix-seqpacket"])
async def test_a_unix_socket_that_is_not_there_is_a_connect_error(
    real: Reactor, tmp_path: Path, scheme: str
) -> None:
    error = await failure(connect(real, f"{scheme}:{tmp_path}/none"))
    assert isinstance(error, ConnectError)
    assert error.osError == errno.ENOENT


async def test_unix_datagrams_come_back(real: Reactor, opened: ExitStack, tmp_path: Path) -> None:
    bound = opened.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)))
    bound.bind(f"{tmp_path}/s")
    port = DatagramPort(real, bound, Echo())
    port.startListening()
    opened.callback(port.stopListening)
    client = await connect(real, f"unix-datagram:{tmp_path}/s")
    for datagram in (b"hello", b"", b"x" * 60_000):
        assert await client.ask(datagram) == datagram
    assert client.transport.getHost() is not None
    await client.close()


async def test_a_packet_that_is_too_long_is_told(
    real: Reactor, opened: ExitStack, tmp_path: Path
) -> None:
    bound = opened.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)))
    bound.bind(f"{tmp_path}/s")
    bound.listen()
    client = await connect(real, f"unix-seqpacket:{tmp_path}/s")
    transport: Any = client.transport
    transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5000)
    error = await failure(client.ask(b"x" * 100_000))
    assert str(error) == "connection lost: Message too long"


# Many lines at once


def test_lines_asked_at_once_get_their_replies_in_order() -> None:
    pair = Pair(Mirror)
    lines = [b"%d" % number for number in range(2500)]
    got: list[bytes] = []
    before = Outcome(pair.client.ask(b"before"))
    done = Outcome(pair.client.askAll(lines, got.extend))
    after = Outcome(pair.client.ask(b"after"))
    assert pair.client.outstanding == 2502
    pair.flush()
    assert (before.value, got, after.value) == (b"before", lines, b"after")
    assert (done.value, pair.client.outstanding) == (None, 0)
    assert Outcome(pair.client.askAll([], got.extend)).value is None


@pytest.mark.parametrize("lines", [[b"\n"], [b"a", b"b\nc"], [b"a\n", b"b"]])
def test_none_of_the_lines_is_sent_when_one_holds_an_lf(lines: list[bytes]) -> None:
    client, wire = pushed()
    with pytest.raises(ValueError, match="a line holds no LF"):
        client.askAll(lines, print)
    assert (wire.value(), client.outstanding) == (b"", 0)


def test_lines_end_as_they_must() -> None:
    client = LineClient(Clock(), ending=b"\r\n")
    wire = StringTransport()
    client.makeConnection(wire)
    client.askAll([b"a", b""], print)
    client.ask(b"b")
    assert wire.value() == b"a\r\n\r\nb\r\n"
    client, wire = pushed()
    client.askAll([b"a", b"b\r", b""], print)
    assert wire.value() == b"a\nb\r\r\n\n"


def test_lines_asked_at_once_time_out_when_nothing_comes() -> None:
    clock = Clock()
    client, _ = pushed(clock)
    got: list[bytes] = []
    first = Outcome(client.askAll([b"a", b"b", b"c"], got.extend, 5))
    later = Outcome(client.askAll([b"d"], got.extend, 5))
    clock.advance(4)
    client.dataReceived(b"A\n")
    clock.advance(4)
    assert (first.came, got) == (False, [b"A"])
    clock.advance(1)
    for outcome in (first, later):
        assert isinstance(outcome.error, TimedOut)
        assert str(outcome.error) == "no reply within 5 seconds"
    assert client.outstanding == 0
    # What comes late is nobody else's.
    asked = Outcome(client.ask(b"e"))
    client.dataReceived(b"B\nC\nD\nE\n")
    assert (asked.value, got) == (b"E", [b"A"])
    assert clock.getDelayedCalls() == []


def test_a_reply_that_never_ends_is_no_reply() -> None:
    clock = Clock()
    client, _ = pushed(clock)
    asked = Outcome(client.askAll([b"a"], print, 5))
    for _ in range(5):
        clock.advance(1)
        client.dataReceived(b"more")
    assert isinstance(asked.error, TimedOut)


def test_replies_that_wait_when_the_time_is_over_are_taken() -> None:
    """As those do that came while the process was stopped: timers go off before all is read."""
    clock = Clock()
    client, _ = pushed(clock)
    got: list[bytes] = []
    many = Outcome(client.askAll([b"a", b"b"], got.extend, 5))
    one = Outcome(client.ask(b"c", 5))
    clock.callLater(5, client.dataReceived, b"A\nB\nC\n")
    clock.advance(5)
    assert (got, many.value, one.value) == ([b"A", b"B"], None, b"C")
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("why", ["busy: 1 connection, the limit", "not allowed: a", "idle for 9"])
def test_a_farewell_is_the_reply_to_no_line(why: str) -> None:
    clock = Clock()
    client, _ = pushed(clock)
    got: list[bytes] = []
    first, many = Outcome(client.ask(b"a")), Outcome(client.askAll([b"b", b"c"], got.extend, 5))
    client.dataReceived(f"A\nerror {why}\n".encode())
    assert (first.value, many.came) == (b"A", False)
    client.connectionLost()
    assert str(many.error) == f"the server ended the connection: error {why}"
    assert (client.refusal, got, client.outstanding) == (f"error {why}", [], 0)
    assert clock.getDelayedCalls() == []


def test_a_farewell_before_anything_was_asked_is_no_line_of_its_own() -> None:
    client, _ = pushed()
    got: list[bytes] = []
    done = Outcome(Deferred.fromCoroutine(all_of(client, got)))
    client.dataReceived(b"error busy: \x1b" + b"x" * 1000 + b"\n")
    client.connectionLost()
    assert (got, done.value) == ([], None)
    assert client.refusal == r"error busy: \x1b" + "x" * 187


@pytest.mark.parametrize("more", [b"ok\n", b"o", b"x" * (REPLY_LIMIT + 1) + b"\n"])
def test_what_begins_like_a_farewell_is_a_reply_if_more_comes(more: bytes) -> None:
    client, _ = pushed()
    asked = [Outcome(client.ask(line)) for line in (b"a", b"b")]
    client.dataReceived(b"error busy: a\n")
    assert not asked[0].came
    client.dataReceived(more)
    assert asked[0].value == b"error busy: a"
    client.connectionLost()
    assert client.refusal == ""


def test_what_begins_like_a_farewell_is_a_reply_if_the_connection_goes_on() -> None:
    clock = Clock()
    client, _ = pushed(clock)
    asked = Outcome(client.ask(b"a"))
    client.dataReceived(b"error busy: a\n")
    clock.advance(DOUBT)
    assert asked.value == b"error busy: a"


def test_lines_asked_at_once_fail_when_the_connection_ends() -> None:
    clock = Clock()
    client, _ = pushed(clock)
    got: list[bytes] = []
    done = Outcome(client.askAll([b"a", b"b"], got.extend, 5))
    client.dataReceived(b"A\n")
    client.connectionLost()
    assert str(done.error) == "connection lost: closed by the server"
    assert (got, client.outstanding) == ([b"A"], 0)
    assert isinstance(Outcome(client.askAll([b"c"], got.extend, 5)).error, Unanswered)
    assert clock.getDelayedCalls() == []


def test_what_is_said_of_a_reply_too_long_is_not_taken_for_the_servers() -> None:
    client, _ = pushed()
    got: list[bytes] = []
    client.askAll([b"a", b"b"], got.extend)
    client.dataReceived(b"x" * (REPLY_LIMIT + 1) + b"\nB\n")
    assert got == [b"reply line longer than %d bytes" % REPLY_LIMIT, b"B"]
    assert [isinstance(each, Discarded) for each in got] == [True, False]


def test_there_is_room_until_the_transport_says_otherwise() -> None:
    client, wire = pushed()
    assert Outcome(client.ready()).came
    producer: Any = wire.producer
    producer.pauseProducing()
    waiting = [Outcome(client.ready()) for _ in range(2)]
    assert [each.came for each in waiting] == [False, False]
    producer.resumeProducing()
    assert [each.came for each in waiting] == [True, True]
    producer.pauseProducing()
    last = Outcome(client.ready())
    client.connectionLost()
    assert last.came


def test_closing_waits_for_lines_asked_at_once() -> None:
    pair = Pair(Slow)
    slow = pair.server
    assert isinstance(slow, Slow)
    done = Outcome(pair.client.askAll([b"a", b"b"], print))
    closed = Outcome(pair.client.close())
    pair.flush()
    for due in slow.due:
        assert not closed.came
        due.callback(b"ok")
        pair.flush()
    assert (done.came, closed.came) == (True, True)
