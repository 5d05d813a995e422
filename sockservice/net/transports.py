"""Query and tune the transports of protocols."""

import socket
from typing import Any, Protocol

from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper

from sockservice.net.seqpacket import PacketServer


class Transport(Protocol):
    """What Twisted's stream transports have in common, as no interface of theirs says."""

    def write(self, data: bytes) -> None: ...

    def loseConnection(self) -> None: ...

    def abortConnection(self) -> None: ...

    def getPeer(self) -> IAddress: ...

    def getHost(self) -> IAddress: ...

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def registerProducer(self, producer: Any, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...


def plainSocket(transport: object) -> socket.socket | None:
    """Return the socket on which data can be sent past the transport, or None.

    Under TLS or in memory there is no such socket; nor may packets be sent in parts.
    """
    if isinstance(transport, PacketServer) or not isinstance(transport, Connection):
        return None
    return None if transport.TLS else transport.getHandle()


def halfCloses(transport: object) -> bool:
    """Return whether the sending half of a transport can be closed alone, as in our TLS."""
    # By its class: Twisted's wrappers delegate missing methods, which would cut off TLS.
    return hasattr(type(transport), "loseWriteConnection")


def wire(transport: Any) -> Any:
    """Return the innermost transport, under TLS for example."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def overTCP(transport: object) -> bool:
    """Return whether the transport is TCP, with TLS or without."""
    bottom = wire(transport)
    if isinstance(bottom, Connection):
        # In Twisted 23 UNIX sockets claim to be TCP, too.
        return bottom.socket.family in (socket.AF_INET, socket.AF_INET6)
    return bool(ITCPTransport.providedBy(bottom))


def tune(transport: Any) -> None:
    """Set the options for a connection that carries short lines, unless it has them already."""
    bottom = wire(transport)
    if getattr(bottom, "tuned", False) or not overTCP(transport):
        return
    plain = plainSocket(transport)
    transport.setTcpNoDelay(True)
    transport.setTcpKeepAlive(True)
    if plain is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def tuneSocket(bound: socket.socket) -> None:
    """Set these options on a TCP socket, so that connections accepted on it have them.

    TCP_NODELAY: a reply does not wait for the acknowledgement of the one before.
    SO_KEEPALIVE: a peer that vanished silently is noticed in the end.
    SO_OOBINLINE: a telnet client sends its Data Mark as urgent data, which the
    system would otherwise take out of the stream and leave half a command
    (RFC 854, "The TELNET Synch Signal"; tcp(7)).
    """
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
