"""Listening ends on real loopback sockets, with a reactor turned by hand."""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure

from sockservice import Ack, DatagramPort, Echo, LineFactory
from sockservice.limits.admission import Admission, Limits
from sockservice.net.epoll import SLICE
from sockservice.net.stream import StreamPort
from sockservice.net.udp import mmsg as batches
from sockservice.server.answers import Answer
from sockservice.server.proxy import ProxyFactory
from tests.conftest import PATIENCE, HandReactor, Log


def overTLS(factory: LineFactory) -> Any:
    """Wrap a factory as TLS does."""
    return WrappingFactory(factory)


class Unwilling(socket.socket):
    """Refuses what the test says, each time once."""

    receiving: list[OSError]
    sending: list[OSError]
    accepting: list[OSError]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.receiving, self.sending, self.accepting = [], [], []

    def sendto(self, *args: Any) -> int:
        if self.sending:
            raise self.sending.pop(0)
        return super().sendto(*args)

    def accept(self) -> Any:
        if self.accepting:
            raise self.accepting.pop(0)
        return super().accept()


def unwilling(problems: list[OSError], call: Callable[..., int]) -> Callable[..., int]:
    """Give a call of the C library that fails as the test says."""

    def called(*args: Any) -> int:
        if not problems:
            return call(*args)
        ctypes.set_errno(problems.pop(0).errno or 0)
        return -1

    return called


FULL = BlockingIOError(errno.EAGAIN, "full")


class Datagrams:
    """A datagram server on a bound socket, and sockets to ask it with."""

    def __init__(
        self,
        reactor: HandReactor,
        opened: ExitStack,
        host: str,
        protocol: Any,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._reactor = reactor
        self._opened = opened
        self.bound = Unwilling(
            socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM
        )
        opened.enter_context(closing(self.bound))
        if ":" in host:
            self.bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.bound.bind((host, 0))
        self.number: int = self.bound.getsockname()[1]
        self.protocol = protocol
        self.port = DatagramPort(reactor, self.bound, protocol, clock)
        system = self.port._batches
        assert system is not None
        system._recvmmsg = unwilling(self.bound.receiving, system._recvmmsg)
        system._sendmmsg = unwilling(self.bound.sending, system._sendmmsg)
        self.port.startListening()
        opened.callback(self.port.stopListening)

    def peer(self, host: str, number: int = 0) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = self._opened.enter_context(closing(socket.socket(family, socket.SOCK_DGRAM)))
        made.bind((host, number))
        made.setblocking(False)
        return made

    def reply(self, peer: socket.socket) -> tuple[bytes, tuple[Any, ...]]:
        """Take turns until `peer` has a datagram; say where from."""
        got: list[tuple[bytes, tuple[Any, ...]]] = []

        def come() -> bool:
            try:
                got.append(peer.recvfrom(65536))
            except BlockingIOError:
                return False
            return True

        self._reactor.until(come)
        return got[0]

    @property
    def reading(self) -> bool:
        return self.port in self._reactor.getReaders()


Serve = Callable[..., Datagrams]


@pytest.fixture
def serve(reactor: HandReactor, opened: ExitStack) -> Serve:
    def served(
        host: str, protocol: Any = None, clock: Callable[[], float] = perf_counter
    ) -> Datagrams:
        return Datagrams(reactor, opened, host, protocol or Echo(), clock)

    return served


@pytest.mark.parametrize(("host", "longest"), [("127.0.0.1", 65507), ("::1", 65527)])
def test_datagrams_of_any_length_come_back_whole(serve: Serve, host: str, longest: int) -> None:
    served = serve(host)
    peer = served.peer(host)
    for length in (0, 1, 8192, 8193, 65507, longest):
        datagram = os.urandom(length)
        peer.sendto(datagram, (host, served.number))
        data, source = served.reply(peer)
        assert data == datagram
        assert source[:2] == (host, served.number)


@pytest.mark.parametrize(
    ("wildcard", "asked"),
    [("0.0.0.0", "127.0.0.2"), ("::", "127.0.0.2"), ("::", "::1"), ("0.0.0.0", "127.0.0.1")],
)
def test_a_reply_comes_from_the_address_that_was_asked(
    serve: Serve, wildcard: str, asked: str
) -> None:
    served = serve(wildcard)
    peer = served.peer("::1" if ":" in asked else "127.0.0.1")
    peer.sendto(b"x", (asked, served.number))
    data, source = served.reply(peer)
    assert (data, source[:2]) == (b"x", (asked, served.number))


def test_what_was_sent_to_a_broadcast_address_is_met_with_silence(serve: Serve) -> None:
    served = serve("0.0.0.0")
    peer = served.peer("127.0.0.1")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    peer.sendto(b"to many", ("127.255.255.255", served.number))
    peer.sendto(b"to one", ("127.0.0.1", served.number))
    assert served.reply(peer)[0] == b"to one"
    assert served.protocol.counters.suspect == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_what_seems_to_come_from_its_own_port_is_met_with_silence(serve: Serve, host: str) -> None:
    """One datagram forged so makes an echo that answers it answer itself for ever."""
    served = serve(host)
    if host == "0.0.0.0":
        served.bound.sendto(b"loop", ("127.0.0.1", served.number))
    else:
        served.peer("127.0.0.2", served.number).sendto(b"loop", (host, served.number))
    peer = served.peer("127.0.0.1")
    peer.sendto(b"x", ("127.0.0.1", served.number))
    assert served.reply(peer)[0] == b"x"
    counters = served.protocol.counters
    assert (counters.datagrams, counters.suspect) == (2, 1)


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", IPv4Address), ("::1", IPv6Address)])
def test_it_knows_the_address_it_is_bound_to(
    serve: Serve, host: str, address: type[IPv4Address] | type[IPv6Address]
) -> None:
    served = serve(host)
    assert served.port.getHost() == address("UDP", host, served.number)


@pytest.mark.parametrize(("passing", "turns"), [(SLICE, 3), (SLICE / 2, 2), (0.0, 1)])
def test_a_burst_leaves_others_their_turn(serve: Serve, passing: float, turns: int) -> None:
    """It is answered batch by batch, until a slice of time is over."""
    times = count()
    served = serve("127.0.0.1", clock=lambda: next(times) * passing)
    peer = served.peer("127.0.0.1")
    for _ in range(2 * batches.MOST + 10):
        peer.sendto(b"x", ("127.0.0.1", served.number))
    answered = [0]
    while answered[-1] < 2 * batches.MOST + 10:
        served.port.doRead()
        answered.append(served.protocol.counters.datagrams)
    assert len(answered) == turns + 1
    assert answered[1] == {3: batches.MOST, 2: 2 * batches.MOST, 1: answered[-1]}[turns]


def test_what_the_system_drops_is_counted_there(serve: Serve, reactor: HandReactor) -> None:
    served = serve("127.0.0.1")
    served.bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    assert served.port.dropped() == 0
    peer = served.peer("127.0.0.1")
    for _ in range(100):
        peer.sendto(b"x" * 500, ("127.0.0.1", served.number))
    dropped = served.port.dropped()
    assert 0 < dropped < 100
    reactor.until(lambda: served.protocol.counters.datagrams == 100 - dropped)
    assert served.port.dropped() == dropped
    served.bound.close()
    assert served.port.dropped() == 0


def test_nothing_is_read_while_a_reply_waits_for_room(serve: Serve, reactor: HandReactor) -> None:
    served = serve("127.0.0.1")
    served.bound.sending += [FULL, FULL]
    peer = served.peer("127.0.0.1")
    for datagram in (b"a", b"b"):
        peer.sendto(datagram, ("127.0.0.1", served.number))
    reactor.until(lambda: served.protocol.counters.datagrams)
    assert not served.reading
    assert served.protocol.counters.datagrams == 2
    served.port.doWrite()
    assert not served.reading
    served.port.doWrite()
    assert served.reading
    assert served.port not in reactor.getWriters()
    served.port.doWrite()
    assert [served.reply(peer)[0], served.reply(peer)[0]] == [b"a", b"b"]
    assert served.protocol.counters.unsendable == 0


def test_replies_that_come_while_one_waits_are_lost_and_counted(
    serve: Serve, reactor: HandReactor
) -> None:
    served = serve("127.0.0.1")
    peer = served.peer("127.0.0.1")
    served.bound.sending += [FULL]
    served.protocol.datagramReceived(b"a", peer.getsockname())
    served.protocol.datagramReceived(b"b", peer.getsockname())
    assert served.protocol.counters.unsendable == 1
    assert served.reply(peer)[0] == b"a"


def test_a_reply_that_waited_and_cannot_be_sent_holds_up_nothing(
    serve: Serve, reactor: HandReactor, log: Log
) -> None:
    served = serve("127.0.0.1")
    served.bound.sending += [FULL, OSError(errno.EPERM, "not permitted")]
    peer = served.peer("127.0.0.1")
    for datagram in (b"a", b"b"):
        peer.sendto(datagram, ("127.0.0.1", served.number))
    assert served.reply(peer)[0] == b"b"
    assert len([text for text in log.texts if "could not be sent" in text]) == 1


def test_reading_pauses_and_goes_on(serve: Serve, reactor: HandReactor) -> None:
    served = serve("127.0.0.1")
    peer = served.peer("127.0.0.1")
    served.port.pauseProducing()
    peer.sendto(b"a", ("127.0.0.1", served.number))
    assert not served.reading
    served.port.resumeProducing()
    assert served.reply(peer)[0] == b"a"


def test_a_pause_outlasts_a_reply_that_waited(serve: Serve) -> None:
    served = serve("127.0.0.1")
    peer = served.peer("127.0.0.1")
    served.bound.sending += [FULL]
    served.protocol.datagramReceived(b"a", peer.getsockname())
    served.port.pauseProducing()
    served.port.doWrite()
    assert not served.reading
    served.port.resumeProducing()
    assert served.reading


def test_a_reply_that_waits_outlasts_a_pause(serve: Serve) -> None:
    served = serve("127.0.0.1")
    peer = served.peer("127.0.0.1")
    served.port.pauseProducing()
    served.bound.sending += [FULL]
    served.protocol.datagramReceived(b"a", peer.getsockname())
    served.port.resumeProducing()
    assert not served.reading
    served.port.doWrite()
    assert served.reading


def test_a_pause_within_a_turn_ends_the_reading_at_once(serve: Serve) -> None:
    class Once(Echo):
        def answer(self, datagram: bytes, peer: Any) -> Answer:
            self.transport.pauseProducing()
            return datagram

    served = serve("127.0.0.1", Once())
    peer = served.peer("127.0.0.1")
    for _ in range(3):
        peer.sendto(b"x", ("127.0.0.1", served.number))
    served.port.doRead()
    assert served.protocol.counters.datagrams == 3  # those read in the same call
    peer.sendto(b"x", ("127.0.0.1", served.number))
    assert not served.reading
    served.port.resumeProducing()
    assert served.reading


def test_a_protocol_of_twisteds_gets_what_a_pause_has_left(serve: Serve) -> None:
    class Pausing(DatagramProtocol):
        got: ClassVar[list[bytes]] = []

        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            self.got.append(datagram)
            self.transport.pauseProducing()  # type: ignore[union-attr]

    pausing = Pausing()
    served = serve("127.0.0.1", pausing)
    peer = served.peer("127.0.0.1")
    for datagram in (b"a", b"b", b"c"):
        peer.sendto(datagram, ("127.0.0.1", served.number))
    served.port.doRead()
    assert pausing.got == [b"a"]
    served.port.resumeProducing()
    assert pausing.got == [b"a", b"b"]
    assert not served.reading
    served.port.resumeProducing()
    served.port.resumeProducing()
    assert pausing.got == [b"a", b"b", b"c"]


def test_an_error_that_an_earlier_reply_met_does_not_stop_the_port(serve: Serve) -> None:
    served = serve("127.0.0.1")
    peer = served.peer("127.0.0.1")
    served.bound.receiving += [OSError(errno.EHOSTUNREACH, "no route to host")]
    peer.sendto(b"x", ("127.0.0.1", served.number))
    assert served.reply(peer)[0] == b"x"


def test_a_protocol_that_raises_does_not_stop_the_port(
    serve: Serve, reactor: HandReactor, log: Log
) -> None:
    class Broken(Echo):
        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            if datagram == b"bad":
                raise ZeroDivisionError
            super().datagramReceived(datagram, addr)

    served = serve("127.0.0.1", Broken())
    peer = served.peer("127.0.0.1")
    peer.sendto(b"bad", ("127.0.0.1", served.number))
    peer.sendto(b"good", ("127.0.0.1", served.number))
    assert served.reply(peer)[0] == b"good"
    assert len(log.failures(ZeroDivisionError)) == 1


def test_a_protocol_that_raises_again_and_again_does_not_stop_the_port(
    serve: Serve, log: Log
) -> None:
    class Broken(Echo):
        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            if datagram == b"bad":
                raise ZeroDivisionError
            super().datagramReceived(datagram, addr)

    served = serve("127.0.0.1", Broken())
    peer = served.peer("127.0.0.1")
    for datagram in (b"bad", b"bad", b"bad", b"good"):
        peer.sendto(datagram, ("127.0.0.1", served.number))
    assert served.reply(peer)[0] == b"good"
    assert len(log.failures(ZeroDivisionError)) == 3
    assert served.reading


def test_a_protocol_that_raises_when_it_is_resumed_is_read_on(serve: Serve, log: Log) -> None:
    class Broken(Echo):
        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            if datagram == b"bad":
                raise ZeroDivisionError
            super().datagramReceived(datagram, addr)
            self.transport.pauseProducing()

    served = serve("127.0.0.1", Broken())
    peer = served.peer("127.0.0.1")
    for datagram in (b"good", b"bad", b"better"):
        peer.sendto(datagram, ("127.0.0.1", served.number))
    assert served.reply(peer)[0] == b"good"
    with pytest.raises(ZeroDivisionError):
        served.port.resumeProducing()
    assert served.reply(peer)[0] == b"better"


def test_without_memory_when_it_is_resumed_the_port_tries_again(
    serve: Serve, reactor: HandReactor
) -> None:
    class Starving(Echo):
        memory = True

        def datagramsReceived(self, received: list[Any]) -> list[Any]:
            if not self.memory:
                raise MemoryError
            self.transport.pauseProducing()
            given, received[1:] = received[1:], []
            replies = super().datagramsReceived(received)
            received += given
            return replies

    served = serve("127.0.0.1", Starving())
    peer = served.peer("127.0.0.1")
    for datagram in (b"a", b"b"):
        peer.sendto(datagram, ("127.0.0.1", served.number))
    assert served.reply(peer)[0] == b"a"
    served.protocol.memory = False
    served.port.resumeProducing()
    assert served.protocol.counters.starved == 1
    assert not served.reading
    served.protocol.memory = True
    reactor.advance(DatagramPort.RETRY)
    assert served.reply(peer)[0] == b"b"


@pytest.mark.parametrize("error", [0, errno.ECONNREFUSED])
def test_a_reply_that_waits_outlasts_an_error_of_the_socket(
    serve: Serve, reactor: HandReactor, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    served = serve("127.0.0.1")
    peer = served.peer("127.0.0.1")
    served.bound.sending += [FULL]
    served.protocol.datagramReceived(b"a", peer.getsockname())
    refused: list[bool] = []
    served.protocol.connectionRefused = lambda: refused.append(True)
    monkeypatch.setattr(Unwilling, "getsockopt", lambda *_: error)
    # What the reactor does of an error.
    reactor.removeReader(served.port)
    reactor.removeWriter(served.port)
    served.port.connectionLost(Failure(ConnectionDone()))
    assert not served.reading
    assert served.reply(peer)[0] == b"a"
    assert refused == [True] * bool(error)
    peer.sendto(b"b", ("127.0.0.1", served.number))
    assert served.reply(peer)[0] == b"b"


def test_replies_behind_one_that_waits_wait_as_well(serve: Serve) -> None:
    class Late(Echo):
        late: ClassVar[list[Any]] = []

        def answer(self, datagram: bytes, peer: Any) -> Answer:
            if datagram == b"a":
                self.late.append((b"late", peer))
                return None
            self.transport.write(*self.late.pop())
            return datagram

    served = serve("127.0.0.1", Late())
    served.bound.sending += [FULL, FULL]
    peer = served.peer("127.0.0.1")
    for datagram in (b"a", b"b"):
        peer.sendto(datagram, ("127.0.0.1", served.number))
    assert [served.reply(peer)[0], served.reply(peer)[0]] == [b"late", b"b"]


def test_a_port_that_leaves_reads_nothing_whoever_resumes(serve: Serve) -> None:
    served = serve("127.0.0.1")
    peer = served.peer("127.0.0.1")
    served.port.pauseProducing()
    served.port.leaveListening()
    served.port.resumeProducing()
    assert not served.reading
    served.bound.sending += [FULL]
    served.protocol.datagramReceived(b"a", peer.getsockname())
    assert served.reply(peer)[0] == b"a"
    assert not served.reading


def test_a_stopped_port_is_not_in_the_reactor(reactor: HandReactor, opened: ExitStack) -> None:
    served = Datagrams(reactor, ExitStack(), "127.0.0.1", Echo())
    served.bound.sending += [FULL]
    served.protocol.datagramReceived(b"a", ("127.0.0.1", 9))
    served.port.stopListening()
    served.port.connectionLost(Failure(ConnectionDone()))
    assert served.port not in [*reactor.getReaders(), *reactor.getWriters()]
    served.bound.close()


# Connections


class Streams:
    """A stream port on a bound TCP socket."""

    def __init__(self, reactor: HandReactor, opened: ExitStack, host: str, factory: Any) -> None:
        self.reactor = reactor
        self._opened = opened
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.bound = opened.enter_context(closing(Unwilling(self._family)))
        self.bound.bind((host, 0))
        self.port = StreamPort(reactor, self.bound, factory, 10)
        self.port.startListening()
        opened.callback(self.port.stopListening)
        if isinstance(factory, LineFactory):
            opened.callback(lambda: reactor.result(factory.drain()))
            opened.callback(factory.cut)

    def connect(self) -> socket.socket:
        peer = self._opened.enter_context(closing(socket.socket(self._family)))
        peer.settimeout(PATIENCE)
        peer.connect(self.bound.getsockname())
        return peer

    @property
    def reading(self) -> bool:
        return self.port in self.reactor.getReaders()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_connections_are_served_and_named(
    reactor: HandReactor, opened: ExitStack, host: str, log: Log
) -> None:
    streams = Streams(reactor, opened, host, LineFactory(reactor, Ack))
    peer = streams.connect()
    peer.sendall(b"a\n")
    assert reactor.received(peer, 3) == b"ok\n"
    written = f"[{host}]" if ":" in host else host
    assert f"{written}:{peer.getsockname()[1]} connected" in log.texts


def test_a_reset_is_no_half_close(reactor: HandReactor, opened: ExitStack, log: Log) -> None:
    """Else a torn line would be refused, logged and counted that nobody waits for."""
    factory = LineFactory(reactor, Ack)
    peer = Streams(reactor, opened, "127.0.0.1", factory).connect()
    peer.sendall(b"a\ntorn")
    assert reactor.received(peer, 3) == b"ok\n"
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    reactor.until(lambda: [text for text in log.texts if " closed: lines=1 refused=0" in text])
    assert (factory.counters.lines, factory.counters.refused) == (1, 0)


def test_a_burst_of_connections_leaves_others_their_turn(
    reactor: HandReactor, opened: ExitStack
) -> None:
    factory = LineFactory(reactor, Ack)
    streams = Streams(reactor, opened, "127.0.0.1", factory)
    streams.port.TURN = 2  # type: ignore[misc, unused-ignore]
    for _ in range(3):
        streams.connect()
    streams.port.doRead()
    assert factory.counters.connections == 2
    streams.port.doRead()
    assert factory.counters.connections == 3


def test_without_descriptors_it_waits_and_says_so_once(
    reactor: HandReactor, opened: ExitStack, log: Log
) -> None:
    factory = LineFactory(reactor, Ack)
    streams = Streams(reactor, opened, "127.0.0.1", factory)
    exhausted = OSError(errno.EMFILE, "Too many open files")
    streams.bound.accepting = [exhausted, exhausted]
    streams.connect()
    reactor.until(lambda: not streams.reading)
    reactor.advance(streams.port.RETRY)
    reactor.until(lambda: not streams.reading)
    assert factory.counters.connections == 0
    reactor.advance(streams.port.RETRY)
    reactor.until(lambda: factory.counters.connections)
    assert streams.reading
    said = [text for text in log.texts if "accept" in text]
    assert said == [
        "cannot accept connections: Too many open files; waiting",
        "accepting connections again",
    ]


def test_descriptors_that_run_out_again_and_again_do_not_fill_the_log(
    reactor: HandReactor, opened: ExitStack, log: Log
) -> None:
    factory = LineFactory(reactor, Ack)
    streams = Streams(reactor, opened, "127.0.0.1", factory)

    def runOut(times: int) -> list[str]:
        before = len(log.texts)
        for _ in range(times):
            served = factory.counters.connections
            streams.bound.accepting = [OSError(errno.EMFILE, "Too many open files")]
            streams.connect()
            reactor.until(lambda: not streams.reading)
            reactor.advance(streams.port.RETRY)
            reactor.until(lambda served=served: factory.counters.connections > served)  # type: ignore[misc]
        return [text for text in log.texts[before:] if "accept" in text]

    said = ["cannot accept connections: Too many open files; waiting"]
    said.append("accepting connections again")
    assert runOut(5) == said
    reactor.advance(streams.port.QUIET)
    assert runOut(5) == said


def test_a_port_stopped_while_it_waits_stays_stopped(
    reactor: HandReactor, opened: ExitStack
) -> None:
    streams = Streams(reactor, opened, "127.0.0.1", Factory())
    streams.bound.accepting = [OSError(errno.EMFILE, "Too many open files")]
    streams.port.doRead()
    streams.port.stopListening()
    reactor.advance(streams.port.RETRY)
    assert not streams.reading
    streams.port.startListening()


def test_a_connection_that_has_gone_already_is_nobodys_trouble(
    reactor: HandReactor, opened: ExitStack
) -> None:
    streams = Streams(reactor, opened, "127.0.0.1", LineFactory(reactor, Ack))
    streams.bound.accepting = [ConnectionAbortedError(errno.ECONNABORTED, "gone")]
    peer = streams.connect()
    peer.sendall(b"a\n")
    assert reactor.received(peer, 3) == b"ok\n"


def test_a_factory_may_turn_a_connection_away(reactor: HandReactor, opened: ExitStack) -> None:
    class Unfriendly(Factory):
        def buildProtocol(self, addr: Any) -> None:
            return None

    streams = Streams(reactor, opened, "127.0.0.1", Unfriendly())
    assert reactor.received(streams.connect()) == b""


def test_a_factory_that_raises_does_not_stop_the_port(
    reactor: HandReactor, opened: ExitStack, log: Log
) -> None:
    class Broken(Factory):
        def buildProtocol(self, addr: Any) -> None:
            raise ZeroDivisionError

    streams = Streams(reactor, opened, "127.0.0.1", Broken())
    for _ in range(2):
        assert reactor.received(streams.connect()) == b""
    assert len(log.failures(ZeroDivisionError)) == 2


def test_a_port_that_fails_at_a_connection_accepts_the_next(
    reactor: HandReactor, opened: ExitStack, log: Log
) -> None:
    class Starving(Factory):
        asked = 0

        def buildProtocol(self, addr: Any) -> None:
            self.asked += 1
            raise MemoryError

    def starved() -> bytes:
        raise ZeroDivisionError

    factory = Starving()
    streams = Streams(reactor, opened, "127.0.0.1", factory)
    streams.port._starved = starved
    for number in (1, 2):
        streams.connect()
        reactor.until(lambda number=number: factory.asked == number)  # type: ignore[misc]
    assert len(log.failures(ZeroDivisionError)) == 2


class Unwatching:
    """A reactor that takes no reader, as when there are too many in an epoll set."""

    def __init__(self, reactor: HandReactor, problem: Exception) -> None:
        self._reactor = reactor
        self._problem = problem

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def addReader(self, reader: Any) -> None:
        raise self._problem


NO_ROOM = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("problem", [NO_ROOM, MemoryError()], ids=["watches", "memory"])
@pytest.mark.parametrize("wrapped", [lambda factory: factory, ProxyFactory, overTLS])
def test_a_connection_that_cannot_be_made_holds_no_place(
    reactor: HandReactor,
    opened: ExitStack,
    log: Log,
    wrapped: Callable[[LineFactory], Any],
    problem: Exception,
) -> None:
    factory = LineFactory(reactor, Ack, admission=Admission(Limits(connections=1)))
    streams = Streams(reactor, opened, "127.0.0.1", wrapped(factory))
    streams.port._descriptors = Unwatching(reactor, problem)
    for _ in range(3):
        assert reactor.received(streams.connect()) == b""
    log.failures(OSError)
    assert factory.admission.refusal(None, 0.0) is None
    assert factory.counters.turnedAway == 0


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_unix_peer_is_named_after_its_process(
    reactor: HandReactor,
    opened: ExitStack,
    tmp_path: Path,
    kind: socket.SocketKind,
    log: Log,
) -> None:
    factory = LineFactory(reactor, Ack)
    bound = opened.enter_context(closing(socket.socket(socket.AF_UNIX, kind)))
    bound.bind(str(tmp_path / "s"))
    port = StreamPort(reactor, bound, factory, 10)
    port.startListening()
    peer = opened.enter_context(closing(socket.socket(socket.AF_UNIX, kind)))
    peer.connect(str(tmp_path / "s"))
    peer.sendall(b"a\n")
    assert reactor.received(peer, 3).startswith(b"ok")
    assert f"unix:pid={os.getpid()},uid={os.getuid()} connected" in log.texts
    port.stopListening()
    factory.cut()
    reactor.result(factory.drain())
