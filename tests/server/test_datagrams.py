"""One datagram server on a transport in memory."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed

from sockservice import Counters, DatagramServer, Echo
from sockservice.server.answers import Answer
from sockservice.server.datagram import SILENT_PORTS
from tests.conftest import Log
from tests.doubles import PEER, DatagramWire

Sent = list[tuple[bytes, tuple[Any, ...]]]


class Scripted(DatagramServer):
    """Does to each datagram what the test says."""

    def __init__(self, does: Callable[[bytes], Any], **settings: Any) -> None:
        super().__init__(**settings)
        self._does = does

    def answer(self, datagram: bytes, peer: Any) -> Answer:
        answer: Answer = self._does(datagram)
        return answer


class Slow(DatagramServer):
    """Answers when the test does."""

    answerLimit = 3

    def __init__(self) -> None:
        super().__init__()
        self.due: list[Deferred[bytes | None]] = []
        self.cancelled: list[bytes] = []

    def answer(self, datagram: bytes, peer: Any) -> Answer:
        due = Deferred[bytes | None](lambda _: self.cancelled.append(datagram))
        self.due.append(due)
        return due


def joined(protocol: DatagramServer) -> DatagramWire:
    wire = DatagramWire()
    protocol.makeConnection(wire)
    return wire


@given(st.binary(max_size=100))
def test_any_datagram_comes_back(datagram: bytes) -> None:
    echo = Echo()
    wire = joined(echo)
    echo.datagramReceived(datagram, PEER)
    assert wire.written == [(datagram, PEER)]


@pytest.mark.parametrize(
    "peer",
    [
        pytest.param(("192.0.2.1", 5555), id="the port it listens on"),
        pytest.param(("::1", 5555, 0, 0), id="the port it listens on, IPv6"),
        *(pytest.param(("192.0.2.1", port), id=f"port {port}") for port in sorted(SILENT_PORTS)),
        pytest.param(("255.255.255.255", 40000), id="broadcast"),
        pytest.param(("224.0.0.1", 40000), id="multicast"),
        pytest.param(("239.255.255.250", 40000), id="multicast, last"),
        pytest.param(("240.0.0.1", 40000), id="reserved"),
        pytest.param(("0.0.0.0", 40000), id="this network"),
        pytest.param(("ff02::1", 40000, 0, 0), id="multicast, IPv6"),
        pytest.param(("::ffff:224.0.0.1", 40000, 0, 0), id="multicast, mapped"),
        pytest.param(("::ffff:0.1.2.3", 40000, 0, 0), id="this network, mapped"),
    ],
)
def test_what_could_start_a_loop_or_an_attack_is_met_with_silence(peer: tuple[Any, ...]) -> None:
    asked: list[bytes] = []
    server = Scripted(asked.append)
    wire = joined(server)
    server.datagramReceived(b"x", peer)
    assert (wire.written, asked) == ([], [])
    assert (server.counters.datagrams, server.counters.suspect) == (1, 1)


@pytest.mark.parametrize(
    "peer",
    [
        ("1.0.0.1", 40000),
        ("223.255.255.254", 1),
        ("::1", 65535, 0, 0),
        ("fe80::1", 40000, 0, 2),
        ("fc00::1", 40000, 0, 0),
        ("::ffff:192.0.2.1", 40000, 0, 0),
    ],
)
def test_any_one_host_is_answered(peer: tuple[Any, ...]) -> None:
    echo = Echo()
    wire = joined(echo)
    echo.datagramReceived(b"x", peer)
    assert wire.written == [(b"x", peer)]
    assert echo.counters.suspect == 0


def test_a_subclass_chooses_the_silent_ports() -> None:
    class Chosen(Echo):
        silentPorts = frozenset((40000,))

    chosen = Chosen()
    wire = joined(chosen)
    chosen.datagramReceived(b"x", ("192.0.2.1", 53))
    chosen.datagramReceived(b"y", PEER)
    assert wire.written == [(b"x", ("192.0.2.1", 53))]


def test_none_is_silence_and_an_empty_reply_an_empty_datagram() -> None:
    server = Scripted(lambda datagram: None if datagram == b"hush" else b"")
    wire = joined(server)
    server.datagramReceived(b"hush", PEER)
    server.datagramReceived(b"x", PEER)
    assert wire.written == [(b"", PEER)]


def test_the_answer_is_told_where_the_datagram_came_from() -> None:
    class Named(DatagramServer):
        def answer(self, datagram: bytes, peer: Any) -> Answer:
            return repr(peer[:2]).encode()

    named = Named()
    wire = joined(named)
    named.datagramReceived(b"x", PEER)
    assert wire.written == [(repr(PEER).encode(), PEER)]


def test_answers_that_come_later_go_to_their_own_peers() -> None:
    server = Slow()
    wire = joined(server)
    other = ("192.0.2.2", 40001)
    server.datagramReceived(b"a", PEER)
    server.datagramReceived(b"b", other)
    server.datagramReceived(b"c", PEER)
    server.due[1].callback(b"B")
    server.due[2].callback(None)
    server.due[0].callback(b"A")
    assert wire.written == [(b"B", other), (b"A", PEER)]


def test_a_coroutine_answers() -> None:
    async def answer(datagram: bytes) -> bytes:
        return await succeed(datagram.upper())

    server = Scripted(answer)
    wire = joined(server)
    server.datagramReceived(b"x", PEER)
    assert wire.written == [(b"X", PEER)]


@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
def test_an_exception_is_logged_and_answered(later: bool, log: Log) -> None:
    def answer(datagram: bytes) -> bytes:
        raise ZeroDivisionError

    async def laterAnswer(datagram: bytes) -> bytes:
        return answer(datagram)

    server = Scripted(laterAnswer if later else answer)
    wire = joined(server)
    server.datagramReceived(b"x", PEER)
    assert wire.written == [(b"error internal error", PEER)]
    assert len(log.failures(ZeroDivisionError)) == 1


@pytest.mark.parametrize("wrong", [7, "text", [b"list"]])
@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
def test_what_is_no_answer_is_an_internal_error(wrong: object, later: bool, log: Log) -> None:
    server = Scripted(lambda datagram: succeed(wrong) if later else wrong)
    wire = joined(server)
    server.datagramReceived(b"x", PEER)
    assert wire.written == [(b"error internal error", PEER)]
    assert len(log.failures(TypeError)) == 1


def test_a_server_without_an_answer_says_so_in_the_log(log: Log) -> None:
    server = DatagramServer()
    joined(server)
    server.datagramReceived(b"x", PEER)
    [failure] = log.failures(NotImplementedError)
    assert "DatagramServer has no answer()" in failure.getErrorMessage()


def test_no_more_datagrams_are_read_than_answers_may_be_awaited() -> None:
    server = Slow()
    wire = joined(server)
    for datagram in (b"a", b"b"):
        server.datagramReceived(datagram, PEER)
    assert not wire.paused
    server.datagramReceived(b"c", PEER)
    assert wire.paused
    server.due[1].callback(b"B")
    assert not wire.paused
    server.datagramReceived(b"d", PEER)
    assert wire.paused


def test_the_limit_of_awaited_answers_holds_however_many_datagrams_come_at_once() -> None:
    class Rest(DatagramWire):
        """Passes on what was read already, as a port does."""

        def __init__(self) -> None:
            super().__init__()
            self.unread: list[tuple[bytes, Any]] = []

        def pass_(self) -> None:
            while self.unread and not self.paused:
                server.datagramsReceived(self.unread)

        def resumeProducing(self) -> None:
            super().resumeProducing()
            self.pass_()

    server = Slow()
    wire = Rest()
    server.makeConnection(wire)
    wire.unread += [(b"%d" % number, PEER) for number in range(16)]
    wire.pass_()
    for settled in range(10):
        assert (len(server.due), wire.paused) == (settled + 3, True)
        server.due[settled].callback(None)


def test_answers_that_are_there_at_once_count_for_no_limit() -> None:
    class Quick(Slow):
        answerLimit = 1

        def answer(self, datagram: bytes, peer: Any) -> Answer:
            return succeed(datagram)

    server = Quick()
    wire = joined(server)
    wire.resumeProducing = lambda: pytest.fail("it was not paused")  # type: ignore[method-assign]
    received = [(b"a", PEER), (b"b", PEER)]
    server.datagramsReceived(received)
    assert (received, wire.paused) == ([], False)
    assert wire.written == [(b"a", PEER), (b"b", PEER)]


@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
def test_a_reply_that_cannot_be_sent_is_counted_and_nothing_more(later: bool) -> None:
    server = Scripted(lambda datagram: succeed(datagram) if later else datagram)
    wire = joined(server)
    wire.refusal = PermissionError(1, "Operation not permitted")
    server.datagramReceived(b"x", PEER)
    assert server.counters.unsendable == 1
    wire.refusal = None
    server.datagramReceived(b"y", PEER)
    assert wire.written == [(b"y", PEER)]
    assert server.counters.unsendable == 1


def test_drain_fires_when_every_awaited_answer_is_sent() -> None:
    server = Slow()
    wire = joined(server)
    server.datagramReceived(b"a", PEER)
    server.datagramReceived(b"b", PEER)
    drained = server.drain()
    server.due[1].callback(b"B")
    assert not drained.called
    server.due[0].callback(b"A")
    assert drained.called
    assert wire.written == [(b"B", PEER), (b"A", PEER)]


def test_drain_of_nothing_fires_at_once() -> None:
    server = Slow()
    joined(server)
    assert server.drain().called


def test_cut_awaits_nothing_any_longer() -> None:
    server = Slow()
    wire = joined(server)
    server.datagramReceived(b"a", PEER)
    drained = server.drain()
    server.cut()
    assert drained.called
    assert (wire.written, server.cancelled) == ([], [b"a"])


def test_what_is_awaited_is_cancelled_when_the_port_is_closed() -> None:
    server = Slow()
    wire = joined(server)
    for datagram in (b"a", b"b", b"c"):
        server.datagramReceived(datagram, PEER)
    server.doStop()
    assert wire.written == []
    assert sorted(server.cancelled) == [b"a", b"b", b"c"]
    assert wire.paused


def test_an_answer_given_instead_of_being_cancelled_troubles_nobody() -> None:
    async def answer(datagram: bytes) -> bytes:
        try:
            return await Deferred[bytes]()
        except CancelledError:
            return b"late"

    server = Scripted(answer)
    wire = joined(server)
    server.datagramReceived(b"x", PEER)
    server.doStop()
    assert wire.written == []


def test_verbose_logs_every_datagram_escaped_with_its_peer(log: Log) -> None:
    echo = Echo(verbose=True)
    joined(echo)
    echo.datagramReceived(b"a\n\x1b[31m{x}\xff", PEER)
    echo.datagramReceived(b"", ("::1", 40000, 0, 0))
    assert log.texts == [
        r"192.0.2.1:40000 datagram b'a\n\x1b[31m{x}\xff'",
        "[::1]:40000 datagram b''",
    ]


def test_without_verbose_no_datagram_is_logged(log: Log) -> None:
    echo = Echo()
    joined(echo)
    echo.datagramReceived(b"secret", PEER)
    echo.datagramReceived(b"secret", ("192.0.2.1", 0))
    assert log.texts == []


def test_servers_share_nothing_but_the_counters() -> None:
    counters = Counters()
    one, other = Echo(counters=counters), Echo(counters=counters)
    for server in (one, other):
        joined(server)
        server.datagramReceived(b"x", PEER)
    assert counters.datagrams == 2
    assert Echo().counters.datagrams == 0
