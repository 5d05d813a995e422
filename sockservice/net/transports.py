"""What a protocol has to know of the transport it writes to."""

import socket
from typing import Any

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper

from sockservice.net.seqpacket import PacketServer


def plainSocket(transport: object) -> socket.socket | None:
    """Give the socket to send on at once, or None where that isn't the transport's wire.

    Under TLS or in a test there is no such socket; a packet socket sends packets.
    """
    if isinstance(transport, PacketServer) or not isinstance(transport, Connection):
        return None
    return None if transport.TLS else transport.getHandle()


def halfCloses(transport: object) -> bool:
    """Say whether its sending half can be closed alone: in our TLS too."""
    # A wrapper of Twisted's passes on what it has not itself, and would cut TLS off.
    return hasattr(type(transport), "loseWriteConnection")


def wire(transport: Any) -> Any:
    """Give the transport at the bottom, under TLS for example."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def overTCP(transport: object) -> bool:
    """Say whether TCP carries it, in TLS or not."""
    bottom = wire(transport)
    if isinstance(bottom, Connection):
        # Twisted 23 says of UNIX sockets, too, that they are TCP.
        return bottom.socket.family in (socket.AF_INET, socket.AF_INET6)
    return bool(ITCPTransport.providedBy(bottom))


def tune(transport: Any) -> None:
    """Set what a connection that carries short lines wants.

    TCP_NODELAY: a reply does not wait for the acknowledgement of the one before.
    SO_KEEPALIVE: a peer that vanished without a word is noticed in the end.
    SO_OOBINLINE: a telnet client sends its Data Mark as urgent data, which the
    system would otherwise take out of the stream and leave half a command
    (RFC 854, "The TELNET Synch Signal"; tcp(7)).
    """
    if not overTCP(transport):
        return
    plain = plainSocket(transport)
    transport.setTcpNoDelay(True)
    transport.setTcpKeepAlive(True)
    if plain is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
