"""The way out of a stream: past the transport while the peer reads, through it when it does not."""

import gc
import socket
import struct
import weakref
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from sockservice.net.outbox import BUFFER_SIZE, Outbox
from sockservice.net.stream import StreamServer
from tests.conftest import PATIENCE, HandReactor


class Owner(Protocol):
    """Writes through an outbox, and takes note of what it is told."""

    transport: Any

    def __init__(self) -> None:
        self.drained: list[bool] = []
        self.lost: list[Failure] = []

    def connectionMade(self) -> None:
        self.outbox = Outbox(self.transport, lambda: self.drained.append(self.outbox.unsent))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason)
        self.outbox.end()


class Joined:
    """An owner on a real transport, and the socket at the other end."""

    def __init__(self, reactor: HandReactor) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as listening:
            self.peer = socket.create_connection(listening.getsockname(), PATIENCE)
            made, address = listening.accept()
        made.setblocking(False)
        self.owner = Owner()
        named: Any = self
        self.transport = StreamServer(made, self.owner, address, named, 1, reactor)
        self.owner.makeConnection(self.transport)
        self.outbox = self.owner.outbox

    # What the repr of Twisted's server transports names.
    _realPortNumber = 0

    def fill(self) -> bytes:
        """Write until the system takes no more; return what was written."""
        written = b""
        while not self.outbox.unsent:
            piece = b"%07d\n" % len(written) * 8192
            self.outbox.write(piece)
            written += piece
        return written


@pytest.fixture
def joined(reactor: HandReactor) -> Iterator[Joined]:
    made = Joined(reactor)
    with closing(made.peer):
        yield made
        if not made.owner.lost:
            made.transport.abortConnection()
            reactor.until(lambda: made.owner.lost)


def test_what_the_system_takes_leaves_without_a_turn_of_the_reactor(joined: Joined) -> None:
    joined.outbox.write(b"a\n")
    joined.outbox.write(b"b\n")
    assert joined.peer.recv(100) == b"a\nb\n"
    assert not joined.outbox.unsent
    assert joined.owner.drained == []


def test_what_it_does_not_take_follows_in_order_when_the_peer_reads(
    joined: Joined, reactor: HandReactor
) -> None:
    written = joined.fill()
    queued = joined.outbox.queued
    assert 0 < queued <= BUFFER_SIZE
    joined.outbox.write(b"behind\n")
    assert joined.outbox.queued == queued + len(b"behind\n")
    written += b"behind\n"
    assert reactor.received(joined.peer, len(written)) == written
    reactor.until(lambda: joined.owner.drained)
    assert joined.owner.drained == [False]
    assert joined.outbox.queued == 0
    joined.outbox.write(b"at once\n")
    assert joined.peer.recv(100) == b"at once\n"


def test_it_can_be_full_again_and_again(joined: Joined, reactor: HandReactor) -> None:
    for _ in range(3):
        written = joined.fill()
        assert reactor.received(joined.peer, len(written)) == written
        reactor.until(lambda: joined.owner.drained)
        del joined.owner.drained[:]


def test_a_broken_connection_is_found_out_by_the_transport(
    joined: Joined, reactor: HandReactor
) -> None:
    # Closed like this, it is reset at once.
    joined.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    joined.peer.close()
    joined.outbox.write(b"to nobody\n")
    assert joined.outbox.unsent
    reactor.until(lambda: joined.owner.lost)
    assert joined.outbox.unsent
    assert joined.outbox.queued == 0
    joined.outbox.write(b"later still\n")


def test_where_there_is_no_plain_socket_the_transport_says_when_it_has_enough() -> None:
    owner: Any = Owner()
    transport: Any = StringTransport()
    owner.makeConnection(transport)
    outbox = owner.outbox
    assert (transport.producer, transport.streaming) == (outbox, True)
    outbox.write(b"a\n")
    assert not outbox.unsent
    transport.producer.pauseProducing()
    outbox.write(b"b\n")
    assert (outbox.unsent, outbox.queued) == (True, BUFFER_SIZE + 2)
    transport.producer.resumeProducing()
    assert (outbox.unsent, outbox.queued, owner.drained) == (False, 0, [False])
    assert transport.value() == b"a\nb\n"
    outbox.release()
    assert transport.producer is None


def test_a_plain_socket_has_no_producer_to_be_released(joined: Joined) -> None:
    joined.outbox.release()
    assert joined.transport.producer is None


def test_an_ended_connection_leaves_nothing_for_the_garbage_collector() -> None:
    owner = Owner()
    owner.makeConnection(StringTransport())
    owner.connectionLost()
    left = weakref.ref(owner)
    gc.disable()
    try:
        del owner
        assert left() is None
    finally:
        gc.enable()
