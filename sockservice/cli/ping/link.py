"""The transport of probes: lines, packets or datagrams."""

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import DatagramProtocol, Protocol, connectionDone
from twisted.python.failure import Failure

from sockservice.client.datagram import DatagramClient
from sockservice.client.explain import lost
from sockservice.client.framed import Framed
from sockservice.client.line import REPLY_LIMIT, LineClient
from sockservice.client.requests import Discarded
from sockservice.client.takeover import attach
from sockservice.net.seqpacket import PacketServer
from sockservice.net.tls.client import refusal
from sockservice.net.transports import tune
from sockservice.wire.chunks import Packets
from sockservice.wire.framer import Framer
from sockservice.wire.framing import LF, Control, Framing, Lines


class Link:
    """Carries probes; tells of replies, refusals and its end through callbacks.

    `ended` gets why, and whether a certificate of ours was refused.
    """

    def __init__(self) -> None:
        self.received: Callable[[bytes], None] = lambda data: None
        self.refused: Callable[[], None] = lambda: None
        self.ended: Callable[[str, bool], None] = lambda why, refused: None

    def send(self, probe: bytes) -> None:
        """Send one probe.

        :raises BlockingIOError: There is no room for it now.
        :raises OSError: It can't be sent.
        """

    def close(self) -> None:
        """Close the connection or socket."""


class LineLink(Link, Protocol):
    """Probes as lines, or as packets of one line each."""

    transport: Any

    def __init__(self, framing: Callable[[int], Framing] = Framer) -> None:
        super().__init__()
        self._made = framing

    def connectionMade(self) -> None:
        packets = isinstance(self.transport, PacketServer)
        self._framed = Framed(Packets if packets else self._made, REPLY_LIMIT, LF)
        # A probe must not wait for another to fill a packet.
        tune(self.transport)

    def send(self, probe: bytes) -> None:
        self.transport.write(self._framed.encoded(probe))

    def close(self) -> None:
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        for item in self._framed.items(data):
            if isinstance(item, Control):
                self.transport.write(item.data)
                continue
            lines = item.lines if isinstance(item, Lines) else [Discarded(b"reply " + item.reason)]
            for line in lines:
                self.received(line)
        if self._framed.broken:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert reason.value is not None
        self.ended(self._framed.broken or lost(reason), bool(refusal(reason.value)))


class DatagramLink(Link, DatagramProtocol):
    """Probes as datagrams; every datagram that arrives is passed on, duplicates included."""

    noisy = False
    transport: Any

    def __init__(self, peer: tuple[Any, ...]) -> None:
        super().__init__()
        self._peer = peer

    def startProtocol(self) -> None:
        self._socket = self.transport.socket

    def send(self, probe: bytes) -> None:
        try:
            self.transport.write(probe, self._peer)
        except ConnectionRefusedError:
            # The error is that of an earlier one; this one has not been sent.
            self.refused()
            self.transport.write(probe, self._peer)

    def close(self) -> None:
        self.transport.stopListening()
        self._socket.close()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received(datagram)

    def connectionRefused(self) -> None:
        self.refused()


def linked(
    client: LineClient | DatagramClient, framing: Callable[[int], Framing] = Framer
) -> LineLink | DatagramLink:
    """Return the link over the connection of a client that has not been used yet."""
    link = DatagramLink(client.peer) if isinstance(client, DatagramClient) else LineLink(framing)
    attach(client, link)
    return link
