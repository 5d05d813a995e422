"""PROXY headers: whatever way they are cut, and whatever is wrong with them."""

import socket
import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from sockservice import LineFactory
from sockservice.limits.admission import Admission, Limits
from sockservice.limits.lograte import Journal
from sockservice.limits.rejection import PATIENCE
from sockservice.server.proxy import ProxyFactory, ProxyHeader
from sockservice.wire.proxyheader import HEADER_LIMIT, parsed
from tests.conftest import HandReactor, Log, Running, Serving
from tests.doubles import Outcome, Whose, Wire

PROXY = "192.0.2.1:4321"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1_4 = b"PROXY TCP4 198.51.100.7 198.51.100.9 40000 555\r\n"
V1_6 = b"PROXY TCP6 2001:db8::7 2001:db8::9 40000 555\r\n"


def v2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def addresses(host: str, port: int) -> bytes:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    packed = socket.inet_pton(family, host)
    return packed + bytes(len(packed)) + struct.pack("!HH", port, 555)


V2_4 = v2(0x21, 0x11, addresses("198.51.100.7", 40000))
V2_6 = v2(0x21, 0x21, addresses("2001:db8::7", 40000) + b"\x03\0\x04crc!")

HEADERS = [
    pytest.param(V1_4, "198.51.100.7:40000", id="v1, IPv4"),
    pytest.param(V1_6, "[2001:db8::7]:40000", id="v1, IPv6"),
    pytest.param(b"PROXY UNKNOWN\r\n", PROXY, id="v1, unknown"),
    pytest.param(b"PROXY UNKNOWN ffff:: :: 1 2\r\n", PROXY, id="v1, unknown with more"),
    pytest.param(V2_4, "198.51.100.7:40000", id="v2, IPv4"),
    pytest.param(V2_6, "[2001:db8::7]:40000", id="v2, IPv6 and a TLV"),
    pytest.param(v2(0x20, 0, b""), PROXY, id="v2, local"),
    pytest.param(v2(0x20, 0x11, addresses("198.51.100.7", 1)), PROXY, id="v2, local, addresses"),
    pytest.param(v2(0x21, 0x31, bytes(216)), PROXY, id="v2, unix"),
    pytest.param(v2(0x21, 0, b""), PROXY, id="v2, unspecified"),
]
EVERY = [(each.values[0], each.values[1]) for each in HEADERS]


class Proxied:
    """A connection from a proxy, in memory."""

    def __init__(self, factory: LineFactory | None = None) -> None:
        self.wire = Wire(peerAddress=IPv4Address("TCP", "192.0.2.1", 4321))
        self.factory = factory or LineFactory(Clock(), Whose)
        self.first = ProxyFactory(self.factory).buildProtocol(self.wire.getPeer())
        self.wire.protocol = self.first
        self.first.makeConnection(self.wire)

    def send(self, data: bytes) -> None:
        """Give bytes to whichever protocol has the connection now."""
        self.wire.protocol.dataReceived(data)

    def lose(self) -> None:
        self.wire.protocol.connectionLost(Failure(ConnectionError("gone")))

    @property
    def sent(self) -> bytes:
        data: bytes = self.wire.value()
        return data


@pytest.mark.parametrize(("header", "peer"), HEADERS)
def test_the_peer_is_the_one_that_the_header_names(header: bytes, peer: str) -> None:
    proxied = Proxied()
    proxied.send(header + b"a\r\nb\n")
    assert proxied.sent == f"{peer} a\r\n{peer} b\n".encode()
    byByte = Proxied()
    for byte in header:
        byByte.send(bytes([byte]))
        assert byByte.sent == b""
    byByte.send(b"a\n")
    assert byByte.sent == f"{peer} a\n".encode()


@given(st.sampled_from(EVERY), st.data())
def test_a_header_cut_anywhere_is_the_same_header(
    example: tuple[bytes, str], data: st.DataObject
) -> None:
    header, peer = example
    stream = header + b"one\nPROXY TCP4 two\n" + SIGNATURE.replace(b"\n", b"") + b"\n"
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    whole, cut = Proxied(), Proxied()
    whole.send(stream)
    for a, b in pairwise(sorted([0, *places, len(stream)])):
        if a != b:
            cut.send(stream[a:b])
    assert cut.sent == whole.sent
    assert cut.sent.startswith(f"{peer} one\n{peer} PROXY TCP4 two\n".encode())


@given(st.ip_addresses(), st.integers(0, 65535))
def test_any_address_is_read(address: object, port: int) -> None:
    host = str(address)
    wide = ":" in host
    one = b"PROXY TCP%d %s %s %d 1\r\n" % (6 if wide else 4, host.encode(), host.encode(), port)
    two = v2(0x21, 0x21 if wide else 0x11, addresses(host, port))
    for header in (one, two):
        found = parsed(header + b"rest")
        assert found is not None and found.peer is not None
        assert found.length == len(header)
        assert found.peer[1] == port
        family = socket.AF_INET6 if wide else socket.AF_INET
        assert socket.inet_pton(family, found.peer[0]) == socket.inet_pton(family, host)


MALFORMED = [
    (b"GET / HTTP/1.0\r\n", "no PROXY header"),
    (b"PROXX", "no PROXY header"),
    (b"\r\n\r\n\0\r\nQUIZ", "no PROXY header"),
    (b"proxy TCP4 ", "no PROXY header"),
    (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", "a malformed PROXY header, version 1"),
    (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "a malformed PROXY header, version 1"),
    (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "a malformed PROXY header, version 1"),
    (b"PROXY TCP4 1.2.3.4 1.2.3.4 x 2\r\n", "a malformed PROXY header, version 1"),
    (b"PROXY UNKNOWN" + b"x" * 100, "a malformed PROXY header, version 1"),
    (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "a malformed PROXY header, version 1"),
    (b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", "a PROXY header with a malformed address"),
    (b"PROXY TCP4 ::1 ::1 1 2\r\n", "a PROXY header with a malformed address"),
    (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", "a PROXY header with a malformed address"),
    (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", "a PROXY header with a malformed port"),
    (v2(0x11, 0x11, bytes(12)), "a PROXY header of an unknown version or command"),
    (v2(0x22, 0x11, bytes(12)), "a PROXY header of an unknown version or command"),
    (v2(0x21, 0x11, bytes(11)), "a PROXY header too short for its addresses"),
    (v2(0x21, 0x21, bytes(35)), "a PROXY header too short for its addresses"),
]


@pytest.mark.parametrize(("received", "why"), MALFORMED)
def test_a_malformed_header_is_refused(received: bytes, why: str, log: Log) -> None:
    proxied = Proxied()
    proxied.send(received)
    assert proxied.sent == f"error {why}\n".encode()
    assert proxied.wire.disconnecting
    assert log.texts == [f"{PROXY} refused: {why}"]


def test_a_refused_peer_is_not_told_again_when_it_goes(log: Log) -> None:
    proxied = Proxied()
    proxied.send(b"GET / HTTP/1.0\r\n")
    proxied.lose()
    assert log.texts == [f"{PROXY} refused: no PROXY header"]


def test_a_header_of_the_longest_kind_is_taken() -> None:
    header = b"PROXY UNKNOWN " + b"x" * (107 - 16) + b"\r\n"
    assert len(header) == 107
    found = parsed(header)
    assert found is not None
    assert found.length == 107


@pytest.mark.parametrize("header", [V1_4[:-1], V2_6[:-1], V2_4[:13]])
def test_a_peer_that_goes_in_the_middle_of_its_header_is_told(header: bytes, log: Log) -> None:
    proxied = Proxied()
    proxied.send(header)
    proxied.lose()
    assert log.texts == [f"{PROXY} closed in the middle of its PROXY header"]


@pytest.mark.parametrize("header", [V1_4[:-1], V2_6[:-1], V2_4[:13]])
def test_who_ends_in_the_middle_of_its_header_is_told_so(header: bytes, log: Log) -> None:
    proxied = Proxied()
    proxied.send(header)
    proxied.first.readConnectionLost()
    assert proxied.sent == b"error unfinished PROXY header\n"
    assert proxied.wire.disconnecting
    assert log.texts == [f"{PROXY} refused: unfinished PROXY header"]
    proxied.lose()
    assert proxied.factory.counters.turnedAway == 1
    assert proxied.factory.admission._connections == 0


def test_who_is_in_the_middle_of_its_header_when_the_service_stops_is_told_so(log: Log) -> None:
    proxied = Proxied()
    proxied.send(V2_6[:20])
    drained = proxied.factory.drain()
    assert proxied.sent == b"error unfinished PROXY header\n"
    assert log.texts == [f"{PROXY} refused: unfinished PROXY header"]
    assert not drained.called
    proxied.lose()
    assert drained.called
    assert proxied.factory.counters.turnedAway == 1
    assert proxied.factory.admission._connections == 0


@pytest.mark.parametrize("end", ["readConnectionLost", "finish"])
def test_who_ends_before_its_header_is_told_nothing(end: str, log: Log) -> None:
    proxied = Proxied()
    getattr(proxied.first, end)()
    assert (proxied.sent, proxied.wire.disconnecting, log.texts) == (b"", True, [])


async def test_the_end_of_the_stream_within_a_header_is_answered_at_once(
    serving: Serving,
) -> None:
    serving.start("--listen", "haproxy:tcp:0:interface=127.0.0.1")
    [(_, host, port)] = serving.addresses
    assert await serving.ask(host, port, V2_6[:20]) == b"error unfinished PROXY header\n"
    assert await serving.ask(host, port, b"") == b""


def test_a_check_whether_the_port_is_open_is_not_told(log: Log) -> None:
    Proxied().lose()
    assert log.texts == []


def test_a_factory_may_turn_a_peer_away() -> None:
    class Unfriendly(LineFactory):
        def buildProtocol(self, addr: IAddress | None) -> None:
            return None

    proxied = Proxied(Unfriendly(Clock(), Whose))
    proxied.send(V1_4)
    assert proxied.wire.disconnecting
    proxied.lose()
    assert proxied.factory.admission._connections == 0


async def test_the_real_peer_is_in_the_log_and_the_half_close_is_seen(
    serving: Serving, log: Log
) -> None:
    serving.start("--listen", "haproxy:tcp:0:interface=127.0.0.1")
    [(_, host, port)] = serving.addresses
    assert await serving.ask(host, port, V2_6 + b"a\nb") == b"ok\nerror unterminated line\n"
    assert "[2001:db8::7]:40000 connected" in log.texts
    assert await serving.ask(host, port, b"GET / HTTP/1.0\r\n\r\n") == b"error no PROXY header\n"


# Limits


def limited(**limits: Any) -> LineFactory:
    return LineFactory(Clock(), Whose, admission=Admission(Limits(**limits)))


def test_a_header_longer_than_any_is_refused_before_it_has_come() -> None:
    longest = v2(0x21, 0x11, addresses("198.51.100.7", 1) + bytes(HEADER_LIMIT - 28))
    assert len(longest) == HEADER_LIMIT
    proxied = Proxied()
    proxied.send(longest + b"a\n")
    assert proxied.sent == b"198.51.100.7:1 a\n"
    proxied = Proxied()
    proxied.send(v2(0x21, 0x11, bytes(HEADER_LIMIT - 15))[:16])
    assert proxied.sent == b"error a PROXY header longer than 4096 bytes\n"


def test_who_sends_no_header_in_time_is_told_so() -> None:
    factory = limited(unfinished=5)
    factory.startFactory()
    proxied = Proxied(factory)
    proxied.send(V1_4[:20])
    factory.reactor.pump([1.0] * 4)
    assert proxied.sent == b""
    factory.reactor.pump([1.0] * 2)
    assert proxied.sent == b"error no PROXY header for 5 seconds\n"
    proxied.lose()
    factory.stopFactory()
    assert factory.reactor.getDelayedCalls() == []


def test_without_a_limit_a_header_is_waited_for() -> None:
    factory = limited(idle=5)
    factory.startFactory()
    proxied = Proxied(factory)
    factory.reactor.pump([1.0] * 99)
    proxied.send(V1_4 + b"a\n")
    assert proxied.sent == b"198.51.100.7:40000 a\n"
    factory.stopFactory()


def turnedAway(factory: LineFactory) -> bool:
    return not isinstance(ProxyFactory(factory).buildProtocol(None), ProxyHeader)


@pytest.mark.parametrize("sent", [b"", V1_4[:20], V1_4, V1_4 + b"a\n"])
def test_a_connection_counts_from_its_first_moment_to_its_last(sent: bytes) -> None:
    factory = limited(connections=1)
    proxied = Proxied(factory)
    assert turnedAway(factory)
    if sent:
        proxied.send(sent)
        assert turnedAway(factory)
    proxied.lose()
    assert not turnedAway(factory)


def test_a_refused_connection_counts_no_more() -> None:
    factory = limited(connections=1)
    Proxied(factory).send(b"nonsense")
    assert factory.counters.turnedAway == 1
    assert not turnedAway(factory)


def test_the_limits_of_a_source_are_those_of_the_peer_that_the_header_names() -> None:
    factory = limited(connectionsPerSource=1)
    first, second, other = Proxied(factory), Proxied(factory), Proxied(factory)
    first.send(V1_4 + b"a\n")
    second.send(V1_4 + b"a\n")
    other.send(V1_6 + b"a\n")
    assert first.sent.endswith(b" a\n") and other.sent.endswith(b" a\n")
    assert second.sent == (
        b"error busy: 1 connection from 198.51.100.7, the limit; try again later\n"
    )


def test_who_is_idle_behind_a_proxy_is_told_to_make_room(
    running: Running, reactor: HandReactor
) -> None:
    running.start("--listen", "haproxy:tcp:0:interface=127.0.0.1", "--idle-timeout", "5")
    [(_, host, port)] = running.addresses
    peer = running.peer(host, port)
    peer.sendall(V2_4 + b"a\n")
    assert reactor.received(peer, 3) == b"ok\n"
    for _ in range(8):
        reactor.advance(1)
    assert reactor.received(peer) == b"error idle for 5 seconds\n"


def test_a_refusal_is_heard_by_who_sends_more(running: Running, reactor: HandReactor) -> None:
    """A reset would destroy it; where it comes, the second send fails."""
    running.start("--listen", "haproxy:tcp:0:interface=127.0.0.1")
    [(_, host, port)] = running.addresses
    peer = running.peer(host, port)
    peer.sendall(b"x" * 300_000)
    said = b"error no PROXY header\n"
    assert reactor.received(peer, len(said)) == said
    for _ in range(5):
        peer.send(b"more")
        reactor.iterate(0)
    peer.shutdown(socket.SHUT_WR)
    assert reactor.received(peer) == b""


def test_what_was_received_behind_a_proxy_is_answered_when_the_service_stops(
    running: Running, reactor: HandReactor
) -> None:
    service = running.start("--listen", "haproxy:tcp:0:interface=127.0.0.1")
    [(_, host, port)] = running.addresses
    unread, silent, torn = (running.peer(host, port) for _ in range(3))
    for _ in range(5):
        reactor.iterate(0)  # accepts them
    unread.sendall(V2_4 + b"a\n" * 50_000)
    torn.sendall(V1_4[:20])
    stopping = running.stopping(service)
    assert reactor.received(unread) == b"ok\n" * 50_000
    assert reactor.received(silent) == b""
    assert reactor.received(torn) == b"error unfinished PROXY header\n"
    unread.close()
    torn.close()
    reactor.result(stopping)


def test_who_has_sent_no_header_does_not_keep_the_service_from_stopping(
    running: Running, reactor: HandReactor
) -> None:
    service = running.start("--listen", "haproxy:tcp:0:interface=127.0.0.1")
    [(_, host, port)] = running.addresses
    peer = running.peer(host, port)
    peer.sendall(V1_4[:20])
    for _ in range(5):
        reactor.iterate(0)
    stopped = Outcome(running.stopping(service))
    reactor.until(lambda: stopped.came, passing=0.1)
    assert reactor.now < PATIENCE + 1
    assert reactor.received(peer) == b"error unfinished PROXY header\n"


def test_a_flood_of_refused_headers_is_summed_up(log: Log) -> None:
    clock = Clock()
    factory = LineFactory(clock, Whose, journal=Journal(clock, 2))
    for _ in range(5):
        Proxied(factory).send(b"nonsense")
        torn = Proxied(factory)
        torn.send(V1_4[:20])
        torn.lose()
    assert len([text for text in log.texts if " refused: no PROXY header" in text]) == 2
    clock.advance(10)
    assert log.texts[-2:] == [
        "3 more in 10 seconds: PROXY headers refused",
        "3 more in 10 seconds: closed in a PROXY header",
    ]


def test_the_service_waits_until_who_has_sent_no_header_is_gone() -> None:
    proxied = Proxied()
    drained = proxied.factory.drain()
    assert proxied.wire.disconnecting
    assert not drained.called
    proxied.lose()
    assert drained.called


def test_a_protocol_that_can_not_be_made_counts_no_connection(log: Log) -> None:
    def broken() -> Whose:
        raise ZeroDivisionError

    admission = Admission(Limits(connections=1))
    for _ in range(3):
        proxied = Proxied(LineFactory(Clock(), broken, admission=admission))
        with pytest.raises(ZeroDivisionError):
            proxied.send(V1_4)
        # As the reactor does then.
        proxied.lose()
    served = [Proxied(LineFactory(Clock(), Whose, admission=admission)) for _ in range(2)]
    served[0].send(V1_4 + b"a\n")
    assert served[0].sent == b"198.51.100.7:40000 a\n"
    assert served[1].sent.startswith(b"error busy")


def test_a_drain_waits_for_no_connection_that_fails_in_its_first_lines() -> None:
    class Fails(Whose):
        def dataReceived(self, data: bytes) -> None:
            raise ZeroDivisionError

    proxied = Proxied(LineFactory(Clock(), Fails))
    with pytest.raises(ZeroDivisionError):
        proxied.send(V1_4 + b"a\n")
    proxied.lose()
    assert Outcome(proxied.factory.drain()).came
