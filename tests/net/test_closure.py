"""The two ends of a TLS connection, each on its own: in memory, then on real sockets."""

import re
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack, closing
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from sockservice import Ack, LineFactory, LineServer
from sockservice.limits.access import Access
from sockservice.limits.admission import Admission, Limits
from sockservice.net.tls.server import Wrapping
from sockservice.server.answers import Answer
from tests.certificates import Identity
from tests.conftest import PATIENCE, Children, Log, Running
from tests.doubles import Bye, Slow
from tests.net.test_tls import Client, listen

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]

#: A close_notify in the clear, as it stands before a handshake is done.
CLOSE_NOTIFY = b"\x15\x03\x03\x00\x02\x01\x00"


class Ending(Slow):
    """Counts how often its peer's end has come."""

    ends = 0

    def readConnectionLost(self) -> None:
        self.ends += 1
        super().readConnectionLost()


class Hasty(LineServer):
    def answer(self, line: bytes) -> Answer:
        self.transport.loseConnection()
        return b"too late"


class Peer:
    """A TLS client of Python's own, whose socket is in memory."""

    def __init__(
        self, authority: Identity, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ) -> None:
        context = ssl.create_default_context(cafile=str(authority.certKey))
        context.check_hostname = False
        context.minimum_version = context.maximum_version = version
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)
        #: Whether the server has sent its close_notify.
        self.told = False

    def shake(self) -> bool:
        """Go on with the handshake; say whether it is done."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def end(self) -> None:
        """Send a close_notify."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()

    def read(self) -> bytes:
        """Give what has come."""
        data = b""
        while not self.told:
            try:
                piece = self.tls.read(65536)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                # Python says so only who has ended TLS itself.
                piece = b""
            self.told = not piece
            data += piece
        return data


class Memory:
    """A line server in TLS on a transport in memory, and its peer."""

    def __init__(
        self,
        protocol: Callable[[], LineServer],
        authority: Identity,
        server: Identity,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        **limits: Any,
    ) -> None:
        self.clock = Clock()
        self.factory = LineFactory(self.clock, protocol, admission=Admission(Limits(**limits)))
        wrapping = Wrapping({"privateKey": str(server.privateKey), "certKey": str(server.certKey)})
        self.wire = StringTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", 1234))
        self.tls = wrapping(self.factory).buildProtocol(self.wire.getPeer())
        self.tls.makeConnection(self.wire)
        self.peer = Peer(authority, version)

    @property
    def lines(self) -> Any:
        return self.tls.wrappedProtocol

    def shake(self) -> "Memory":
        while not self.peer.shake():
            self.carry()
        self.carry()
        return self

    def carry(self) -> None:
        """Carry what either has sent to the other."""
        if data := self.peer.outgoing.read():
            self.tls.dataReceived(data)
        self.peer.incoming.write(self.wire.value())
        self.wire.clear()

    def send(self, data: bytes) -> None:
        self.peer.tls.write(data)
        self.carry()

    def choke(self, full: bool) -> None:
        """Let the transport have enough, or room again."""
        producer: Any = self.wire.producer
        if full:
            producer.pauseProducing()
        else:
            producer.resumeProducing()

    def end(self) -> None:
        """Have the peer end its direction of TLS."""
        self.peer.end()
        self.carry()

    @property
    def received(self) -> bytes:
        """What the peer has received since it last looked."""
        self.carry()
        return self.peer.read()

    @property
    def ended(self) -> bool:
        """Whether the server has ended TLS, as the peer has seen, and closes."""
        assert self.peer.told <= self.wire.disconnecting
        return self.peer.told


Made = Callable[..., Memory]


@pytest.fixture
def made(authority: Identity, server: Identity, monkeypatch: pytest.MonkeyPatch) -> Made:
    # Twisted's TLS asks for a reactor, and does nothing with it here.
    monkeypatch.setattr("twisted.internet.reactor", Clock(), raising=False)
    return lambda protocol, *version, **limits: Memory(
        protocol, authority, server, *version, **limits
    )


# The peer ends first


@pytest.mark.parametrize("version", VERSIONS)
def test_replies_awaited_when_the_peer_ends_tls_are_sent(
    made: Made, version: ssl.TLSVersion
) -> None:
    memory = made(Slow, version).shake()
    memory.send(b"a\nb\r\n")
    memory.end()
    assert (memory.received, memory.ended) == (b"", False)
    memory.lines.due[1].callback(b"two")
    assert (memory.received, memory.ended) == (b"", False)
    memory.lines.due[0].callback(b"one")
    assert memory.received == b"one\ntwo\r\n"
    assert memory.ended


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_however_the_stream_is_cut_the_end_stands_behind_the_lines(
    made: Made, version: ssl.TLSVersion, size: int
) -> None:
    memory = made(Slow, version).shake()
    for line in (b"a\n", b"b\n", b"torn"):
        memory.peer.tls.write(line)
    memory.peer.end()
    stream = memory.peer.outgoing.read()
    for at in range(0, len(stream), size):
        memory.tls.dataReceived(stream[at : at + size])
    for each, reply in zip(memory.lines.due, (b"one", b"two"), strict=True):
        each.callback(reply)
    assert memory.received == b"one\ntwo\nerror unterminated line\n"
    assert memory.ended


def test_a_peer_that_closes_tcp_without_ending_tls_is_answered_too(made: Made) -> None:
    memory = made(Slow).shake()
    memory.send(b"a\ntorn")
    memory.tls.readConnectionLost()
    assert not memory.wire.disconnecting
    memory.lines.due[0].callback(b"one")
    assert memory.received == b"one\nerror unterminated line\n"
    assert memory.ended


@pytest.mark.parametrize("says", [True, False])
def test_the_log_knows_whether_the_peer_had_ended_tls(made: Made, log: Log, says: bool) -> None:
    memory = made(Ack).shake()
    if says:
        memory.end()
    memory.tls.readConnectionLost()
    memory.tls.connectionLost(Failure(ConnectionDone()))
    (gone,) = [text for text in log.texts if " closed: lines=0 " in text]
    assert ("closed cleanly" if says else "in a non-clean fashion") in gone


@pytest.mark.parametrize("junk", [b"junk", CLOSE_NOTIFY, b"\x17\x03\x03\x00\x10" + bytes(16)])
def test_what_comes_behind_the_end_of_tls_is_not_looked_at(made: Made, junk: bytes) -> None:
    memory = made(Ending).shake()
    memory.send(b"a\n")
    memory.end()
    assert memory.wire.producerState == "paused"
    memory.tls.resumeProducing()
    assert memory.wire.producerState == "paused"
    memory.tls.dataReceived(junk * 1000)
    memory.tls.readConnectionLost()
    assert memory.lines.ends == 1
    memory.lines.due[0].callback(b"one")
    assert memory.received == b"one\n"
    assert memory.ended


def test_lines_behind_unread_replies_are_answered_after_the_end_of_tls(made: Made) -> None:
    memory = made(Ack).shake()
    memory.choke(True)
    memory.send(b"a\nb\n")
    memory.end()
    assert (memory.received, memory.ended) == (b"", False)
    memory.choke(False)
    assert memory.received == b"ok\nok\n"
    assert memory.ended


def test_a_peer_that_has_ended_tls_and_never_reads_is_cut_in_the_end(made: Made, log: Log) -> None:
    memory = made(Ack, idle=600).shake()
    memory.choke(True)
    memory.send(b"a\n")
    memory.end()
    for now in (0, 1, 599):
        memory.lines.inspect(now, 600, 60)
    assert not memory.wire.disconnected
    memory.lines.inspect(600, 600, 60)
    assert memory.wire.disconnected
    assert "192.0.2.1:1234 cut: idle for 600 seconds" in log.texts


def test_the_last_replies_are_not_waited_for_any_longer(made: Made) -> None:
    """They are out as far as the protocol knows, but may still be in the transport."""
    memory = made(Slow).shake()
    memory.send(b"a\n")
    memory.lines.inspect(0, 600, 60)
    memory.end()
    memory.lines.due[0].callback(b"one")
    for now in (600, 1199):
        memory.lines.inspect(now, 600, 60)
    assert memory.wire.disconnecting and not memory.wire.disconnected
    memory.lines.inspect(1200, 600, 60)
    assert memory.wire.disconnected


def test_a_connection_that_is_aborted_counts_as_cut(made: Made, log: Log) -> None:
    memory = made(Ack).shake()
    memory.tls.abortConnection()
    memory.tls.connectionLost(Failure(ConnectionAborted()))
    assert memory.factory.counters.cut == 1
    assert [
        text
        for text in log.texts
        if re.search("closed: lines=0 refused=0 after .* Connection was abo", text)
    ]
    memory.tls.loseConnection()


def test_a_peer_that_is_reset_after_the_end_of_tls_leaves_nothing(made: Made) -> None:
    memory = made(Slow).shake()
    memory.send(b"a\n")
    memory.end()
    due = memory.lines.due[0]
    due.addErrback(lambda _: None)
    memory.tls.connectionLost(Failure(ConnectionLost()))
    assert due.called
    assert memory.factory.counters.cut == 1
    assert memory.tls.getHandle() is None


# We end first


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("by", ["end", "tcp"])
def test_a_connection_closed_from_this_side_reads_on_until_the_peer_ends(
    made: Made, log: Log, version: ssl.TLSVersion, by: str
) -> None:
    memory = made(Bye, version).shake()
    memory.send(b"a\n")
    assert memory.received == b"bye\n"
    assert memory.peer.told and not memory.wire.disconnecting
    memory.send(b"c\n" * 1000)
    if by == "end":
        memory.peer.tls.unwrap()
        memory.carry()
    else:
        memory.tls.readConnectionLost()
    assert memory.wire.disconnecting
    memory.tls.connectionLost(Failure(ConnectionDone()))
    assert [
        text
        for text in log.texts
        if re.search("closed: lines=1 refused=0 after .* Connection was cl", text)
    ]


def test_a_protocol_may_close_the_transport_itself(made: Made) -> None:
    memory = made(Hasty).shake()
    memory.send(b"a\n")
    assert memory.received == b""
    assert memory.ended


def test_a_peer_that_does_not_end_is_waited_for_a_while(made: Made) -> None:
    memory = made(Bye).shake()
    memory.send(b"a\n")
    memory.clock.advance(4.9)
    for now in (600, 1300):
        memory.lines.inspect(now, 600, 60)
    assert not memory.wire.disconnecting and not memory.wire.disconnected
    memory.clock.advance(0.1)
    assert memory.wire.disconnecting
    assert memory.clock.getDelayedCalls() == []


@pytest.mark.parametrize("version", VERSIONS)
def test_whoever_is_turned_away_hears_why(made: Made, version: ssl.TLSVersion) -> None:
    access = Access(deny=[ip_network("192.0.2.0/24")])
    memory = made(Ack, version, access=access).shake()
    memory.send(b"a\n" * 1000)
    assert memory.received == b"error not allowed: 192.0.2.1\n"
    assert memory.peer.told and not memory.wire.disconnecting
    memory.peer.tls.unwrap()
    memory.carry()
    assert memory.wire.disconnecting


# Before there is TLS


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("access", [Access(), Access(deny=[ip_network("192.0.2.0/24")])])
@pytest.mark.parametrize("end", [CLOSE_NOTIFY, b"", b"junk" * 10])
def test_an_end_within_the_handshake_ends_the_connection(
    made: Made, begun: bool, access: Access, end: bytes
) -> None:
    memory = made(Ack, access=access)
    if begun:
        memory.peer.shake()
        memory.carry()
    if end:
        memory.tls.dataReceived(end)
    else:
        memory.tls.readConnectionLost()
    assert memory.wire.disconnecting
    memory.tls.connectionLost(Failure(ConnectionDone()))


# On real sockets


def test_lines_that_only_the_system_has_received_are_answered_over_tls(
    running: Running, opened: ExitStack, authority: Identity, server: Identity
) -> None:
    service = running.start(*listen(server.said))
    client = Client(running, opened, authority)
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.shake()
    assert client.socket.send(b"a\n" * 1000) == 2000
    assert client.socket.send(b"b\r\n" * 1000) == 3000
    stopping = running.stopping(service)
    assert client.receive(10_000) == b"ok\n" * 1000 + b"ok\r\n" * 1000
    assert client.receive(1) == b""
    client.socket.close()
    running.reactor.result(stopping)


@pytest.mark.parametrize("unwraps", [True, False])
def test_what_ended_before_the_service_does_is_answered_over_tls(
    running: Running,
    opened: ExitStack,
    authority: Identity,
    server: Identity,
    log: Log,
    unwraps: bool,
) -> None:
    service = running.start(*listen(server.said))
    client = Client(running, opened, authority)
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.shake()
    assert client.socket.send(b"whole\ntorn") == 10
    if unwraps:
        with pytest.raises(ssl.SSLWantReadError):
            client.socket.unwrap()
    else:
        # The system's call: Python's own lets go of TLS.
        socket.socket.shutdown(client.socket, socket.SHUT_WR)
    stopping = running.stopping(service)
    replies = b"ok\nerror unterminated line\n"
    assert client.receive(len(replies)) == replies
    running.reactor.result(stopping)
    assert [text for text in log.texts if text.startswith("ended: 1 connection, 0 of them cut")]


def test_packets_half_close_too(running: Running, log: Log, tmp_path: Path) -> None:
    running.start("--listen", f"tests.net.test_closure.Bye@unix-seqpacket:{tmp_path}/socket")
    peer = running.local(tmp_path / "socket", socket.SOCK_SEQPACKET)
    peer.send(b"a")
    assert running.reactor.received(peer) == b"bye"
    assert not [text for text in log.texts if " closed: " in text]
    peer.close()
    running.reactor.until(lambda: [text for text in log.texts if "closed: lines=1 " in text])


# The real process


@pytest.mark.parametrize("version", VERSIONS)
def test_every_line_before_the_end_of_tls_is_stored_and_acknowledged(
    children: Children, authority: Identity, server: Identity, version: ssl.TLSVersion
) -> None:
    service = children.serve("--store", "sqlite:lines.db", *listen(server.said))
    port = int(service.until(rb"ack listening on ssl:127.0.0.1:(\d+)")[1])
    peer = Peer(authority, version)
    with closing(socket.create_connection(("127.0.0.1", port), PATIENCE)) as plain:
        while not peer.shake():
            plain.sendall(peer.outgoing.read())
            peer.incoming.write(plain.recv(65536))
        peer.tls.write(b"a\n" * 20_000)
        peer.end()
        plain.sendall(peer.outgoing.read())
        replies = b""
        while data := plain.recv(65536):
            peer.incoming.write(data)
            replies += peer.read()
    assert replies == b"ok\n" * 20_000
    assert peer.told
    service.stop()
    assert re.search(rb"closed: lines=20000 refused=0 after .* closed cleanly", service.output)
    assert len(children.run("sockservice", "lines", "lines.db").stdout.split()) == 20_000
