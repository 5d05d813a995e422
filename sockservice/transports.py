"""What Twisted's transports lack."""

import errno
import ipaddress
import socket
import struct
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorFDSet, IReadWriteDescriptor, ITCPTransport
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

log = Logger()


def plainSocket(transport: object) -> socket.socket | None:
    """Give the socket to send on at once, or None where that isn't the transport's wire.

    Under TLS, a proxy wrapper or a test there is no such socket.
    """
    if isinstance(transport, Connection) and not transport.TLS:
        return transport.getHandle()
    return None


def tune(transport: object) -> None:
    """Set what a connection that carries short lines wants.

    TCP_NODELAY: a reply does not wait for the acknowledgement of the one before.
    SO_KEEPALIVE: a peer that vanished without a word is noticed in the end.
    SO_OOBINLINE: a telnet client sends its Data Mark as urgent data, which the
    system would otherwise take out of the stream and leave half a command
    (RFC 854, "The TELNET Synch Signal"; tcp(7)).
    """
    if not ITCPTransport.providedBy(transport):
        return
    plain = plainSocket(transport)
    if plain is not None and plain.family not in (socket.AF_INET, socket.AF_INET6):
        return
    transport.setTcpNoDelay(True)
    transport.setTcpKeepAlive(True)
    if plain is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


class Source(tuple[Any, ...]):
    """Where a datagram came from, as a socket address, and where it had been sent to."""

    #: Control message that makes a reply leave from where the datagram was sent to.
    origin: tuple[int, int, bytes] | None = None
    #: Whether it was sent to a broadcast or multicast address.
    toMany = False


# Python 3.11's socket module has neither name; linux/in.h.
_IP_PKTINFO = 8
_IN_PKTINFO = struct.Struct("=I4s4s")  # interface, our address, its destination; ip(7)
_IN6_PKTINFO = struct.Struct("=16sI")  # its destination, interface; RFC 3542, 6.2
_LINK_LOCAL = b"\xfe\x80"


@implementer(IReadWriteDescriptor)
class DatagramPort:
    """Serve a DatagramProtocol on a bound UDP socket, IPv4 or IPv6.

    Beyond Twisted's own `udp.Port`: datagrams are never cut short; a reply to a
    :class:`Source` leaves from the address the datagram was sent to, also on a
    wildcard address; IPv6 scopes are kept; nothing is read while a reply waits
    for room in the system's buffer. The socket belongs to the port.
    """

    #: Datagrams read in one turn, before others get theirs.
    TURN = 64

    def __init__(self, reactor: IReactorFDSet, bound: socket.socket, protocol: DatagramProtocol):
        self.reactor = reactor
        self.socket = bound
        self.protocol = protocol
        self._buffer = bytearray(65536)  # longer than any datagram (65,527 on IPv6)
        self._view = memoryview(self._buffer)
        self._unsent: tuple[bytes, tuple[Any, ...]] | None = None
        self._paused = False
        self._wildcard = ipaddress.ip_address(bound.getsockname()[0]).is_unspecified
        bound.setblocking(False)
        if self._wildcard:
            bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            if bound.family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)

    def startListening(self) -> None:
        """Begin to read."""
        self.protocol.makeConnection(self)  # type: ignore[arg-type]
        self.reactor.addReader(self)

    def stopListening(self) -> None:
        """Read no more and close the socket, at once."""
        self.reactor.removeReader(self)
        self.reactor.removeWriter(self)
        self.protocol.doStop()
        self.socket.close()

    def getHost(self) -> IPv4Address | IPv6Address:
        """Give the address the socket is bound to."""
        host, port = self.socket.getsockname()[:2]
        address = IPv6Address if self.socket.family == socket.AF_INET6 else IPv4Address
        return address("UDP", host, port)

    def write(self, datagram: bytes, addr: tuple[Any, ...]) -> None:
        """Send `datagram` to `addr`.

        :raises OSError: The system does not send this datagram, or not to there.
        """
        if self._unsent is not None:
            raise BlockingIOError(errno.EAGAIN, "a datagram is waiting already")
        try:
            self._send(datagram, addr)
        except BlockingIOError:
            self._unsent = datagram, addr
            self.reactor.removeReader(self)
            self.reactor.addWriter(self)

    def pauseProducing(self) -> None:
        """Read nothing until resumeProducing."""
        self._paused = True
        self.reactor.removeReader(self)

    def resumeProducing(self) -> None:
        """Read again."""
        self._paused = False
        if self._unsent is None:
            self.reactor.addReader(self)

    # What follows is called by the reactor.

    def fileno(self) -> int:
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return type(self.protocol).__name__

    def doRead(self) -> None:
        received = self.protocol.datagramReceived
        for _ in range(self.TURN):
            try:
                size, source = self._receive()
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                # Only a connected socket is told.
                self.protocol.connectionRefused()
                continue
            except OSError:
                # What an earlier reply met on its way; it says nothing of the next.
                continue
            received(bytes(self._view[:size]), source)
            if self._paused or self._unsent is not None:
                return

    def doWrite(self) -> None:
        if self._unsent is None:
            return
        try:
            self._send(*self._unsent)
        except BlockingIOError:
            return
        except OSError:
            log.info("a datagram that had to wait could not be sent")
        self._unsent = None
        self.reactor.removeWriter(self)
        if not self._paused:
            self.reactor.addReader(self)

    def connectionLost(self, reason: Failure) -> None:
        # The reactor takes an error that waits on the socket (an ICMP message) for
        # its end. Reading takes the error away; the socket is as good as before.
        if self.socket.fileno() >= 0:
            self.doRead()
        if self.socket.fileno() >= 0:
            self.reactor.addReader(self)

    def _receive(self) -> tuple[int, Source]:
        if not self._wildcard:
            size, address = self.socket.recvfrom_into(self._buffer)
            return size, Source(address)
        size, ancillary, _, address = self.socket.recvmsg_into([self._buffer], 128)
        source = Source(address)
        for level, kind, data in ancillary:
            if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                target, interface = _IN6_PKTINFO.unpack(data)
                source.toMany = target[0] == 0xFF
                if not target.startswith(_LINK_LOCAL):
                    interface = 0  # any that leads there
                source.origin = level, kind, _IN6_PKTINFO.pack(target, interface)
            elif level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
                _, ours, target = _IN_PKTINFO.unpack(data)
                source.toMany = ours != target
                if self.socket.family == socket.AF_INET:
                    source.origin = level, kind, _IN_PKTINFO.pack(0, ours, target)
        return size, source

    def _send(self, datagram: bytes, addr: tuple[Any, ...]) -> None:
        origin = getattr(addr, "origin", None)
        if origin is None:
            self.socket.sendto(datagram, addr)
        else:
            self.socket.sendmsg([datagram], [origin], 0, addr)
