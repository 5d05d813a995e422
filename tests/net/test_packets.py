"""Packets over UNIX sockets: each a line, each reply a packet, whatever the buffers hold."""

import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from sockservice import LineFactory, LineServer, connect
from sockservice.client.line import LineClient
from sockservice.net.stream import StreamPort
from sockservice.server.answers import Answer
from tests.conftest import PATIENCE, HandReactor, Log, Reactor, Running, received, turn, until
from tests.doubles import Mirror, Slow


class Packets:
    """A factory that serves packets, and connections to it."""

    def __init__(
        self,
        reactor: Reactor,
        ending: AsyncExitStack,
        path: Path,
        protocol: Callable[[], LineServer],
    ) -> None:
        self.reactor = reactor
        self._ending = ending
        self.path = str(path)
        self.servers: list[LineServer] = []
        self.factory = LineFactory(reactor, lambda: self._kept(protocol()), lineLimit=100_000)
        bound = ending.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)))
        bound.bind(self.path)
        port = StreamPort(reactor, bound, self.factory, 10)
        port.startListening()
        ending.push_async_callback(self.factory.drain)
        ending.callback(self.factory.cut)
        ending.callback(port.stopListening)

    def _kept(self, server: LineServer) -> LineServer:
        self.servers.append(server)
        return server

    async def connect(self) -> tuple[socket.socket, Any]:
        peer = self._ending.enter_context(
            closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        )
        peer.settimeout(PATIENCE)
        peer.connect(self.path)
        before = len(self.servers)
        await until(lambda: len(self.servers) > before)
        return peer, self.servers[-1]


Serve = Callable[[Callable[[], LineServer]], Packets]


@pytest.fixture
def serve(real: Reactor, ending: AsyncExitStack, tmp_path: Path) -> Serve:
    return lambda protocol: Packets(real, ending, tmp_path / "s", protocol)


async def test_each_packet_gets_a_packet_with_its_ending(serve: Serve) -> None:
    served = serve(Mirror)
    peer, _ = await served.connect()
    for packet in (b"a", b"b\nc\n", b"d\r\n", b"\n"):
        peer.send(packet)
    for packet in (b"a", b"b\nc\n", b"d\r\n", b"\n"):
        assert await received(peer, len(packet)) == packet


async def test_answers_that_come_together_are_packets_all_the_same(serve: Serve) -> None:
    served = serve(Slow)
    peer, server = await served.connect()
    peer.send(b"a")
    peer.send(b"b")
    await until(lambda: len(server.due) == 2)
    server.due[1].callback(b"second")
    server.due[0].callback(b"first")
    await until(lambda: server.transport not in served.reactor.getWriters())
    assert (peer.recv(100), peer.recv(100)) == (b"first", b"second")


async def test_a_packet_longer_than_the_limit_is_refused(serve: Serve) -> None:
    served = serve(Mirror)
    peer, _ = await served.connect()
    peer.send(b"x" * 100_001)
    refusal = b"error line longer than 100000 bytes"
    assert await received(peer, len(refusal)) == refusal


async def test_a_peer_that_does_not_read_is_not_read_and_gets_every_reply(serve: Serve) -> None:
    served = serve(Mirror)
    peer, server = await served.connect()
    peer.setblocking(False)
    endings = (b"", b"\n", b"\r\n")
    packets = [b"%4d" % n + bytes(range(256)) * 80 + endings[n % 3] for n in range(400)]
    sent = 0
    quiet = 0
    while quiet < 10:
        try:
            peer.send(packets[sent])
            sent, quiet = sent + 1, 0
        except BlockingIOError:
            await turn()
            quiet += 1
    assert server.transport not in served.reactor.getReaders()
    assert 2 < sent < 400
    replies: list[bytes] = []

    def come() -> bool:
        try:
            replies.append(peer.recv(30_000))
        except BlockingIOError:
            return False
        return len(replies) == sent

    while len(replies) < sent:
        await until(come)
    # Each reply ends as its packet did.
    assert replies == packets[:sent]


async def test_a_reply_longer_than_the_system_sends_ends_its_connection(
    serve: Serve, log: Log
) -> None:
    class Endless(LineServer):
        def answer(self, line: bytes) -> Answer:
            return b"x" * 2**24

    served = serve(Endless)
    peer, _ = await served.connect()
    peer.send(b"a")
    assert await received(peer) == b""
    assert [text for text in log.texts if " closed: lines=1 " in text]


async def test_nothing_is_written_to_a_peer_that_has_gone(serve: Serve, log: Log) -> None:
    served = serve(Slow)
    peer, server = await served.connect()
    peer.close()
    await until(lambda: [text for text in log.texts if " closed: lines=0 " in text])
    server.transport.write(b"late")
    assert server.transport not in served.reactor.getWriters()


async def test_a_peer_that_goes_with_packets_unread_is_lost(serve: Serve, log: Log) -> None:
    """Linux tells who still has packets to send of a reset."""
    served = serve(Mirror)
    peer, _ = await served.connect()
    peer.send(b"a")
    peer.send(b"b")
    await received(peer, 1)
    peer.close()
    await until(lambda: [text for text in log.texts if " closed: " in text])


async def test_the_client_asks_packets(serve: Serve) -> None:
    served = serve(Mirror)
    client = await connect(served.reactor, f"unix-seqpacket:{served.path}")
    assert isinstance(client, LineClient)
    for line in (b"hello", b"two\nlines", b"x" * 50_000):
        assert await client.ask(line) == line.removesuffix(b"\n")
    await client.close()


def test_who_is_turned_away_hears_it_though_it_was_not_read(
    running: Running, reactor: HandReactor, tmp_path: Path
) -> None:
    running.start("--listen", f"unix-seqpacket:{tmp_path}/s", "--max-connections", "1")
    first = running.local(tmp_path / "s", socket.SOCK_SEQPACKET)
    first.send(b"x")
    assert reactor.received(first, 2) == b"ok"
    second = running.local(tmp_path / "s", socket.SOCK_SEQPACKET)
    for _ in range(3):
        second.send(b"x")
    assert reactor.received(second).startswith(b"error busy: 1 connection, the limit")
