"""The listening ends: ports that Twisted has not, or not as they are needed here."""

import errno
import socket
import struct
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IReadDescriptor, IReadWriteDescriptor
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.tcp import Server
from twisted.internet.unix import Server as LocalServer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.addresses import LocalPeer, scoped
from sockservice.packets import PacketServer

log = Logger()

_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid; unix(7), SO_PEERCRED

# Out of descriptors or memory: it passes, and until then each accept would fail.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@implementer(IReadDescriptor)
class StreamPort:
    """Accept connections on a bound socket, TCP or UNIX, and have `factory` serve them.

    Beyond Twisted's own ports: it takes any socket that was bound before, the
    `SOCK_SEQPACKET` kind too, says which process a UNIX peer is, and when the
    process is out of descriptors it says so once and pauses instead of spinning.
    `descriptors` watches its connections in the reactor's place, if given. The socket
    is closed by whoever bound it.
    """

    #: Connections accepted in one turn, before others get theirs. Each costs them about a
    #: round trip; one at a time costs a connection a fifth more of the processor.
    TURN = 1
    #: Seconds until accepting is tried again after descriptors ran out.
    RETRY = 0.5

    def __init__(
        self,
        reactor: Any,
        bound: socket.socket,
        factory: Any,
        backlog: int,
        descriptors: Any = None,
    ) -> None:
        self.reactor = reactor
        self.socket = bound
        self.factory = factory
        self._descriptors = reactor if descriptors is None else descriptors
        self._backlog = backlog
        self._accepted = 0
        self._exhausted = False
        self._listening = False
        # What the repr of Twisted's server transports names.
        self._realPortNumber = bound.getsockname()
        bound.setblocking(False)

    def startListening(self) -> None:
        """Begin to accept."""
        self.socket.listen(self._backlog)
        self._listening = True
        self.factory.doStart()
        self.reactor.addReader(self)

    def stopListening(self) -> None:
        """Accept nothing more, but those whose connections the system has accepted already."""
        self._listening = False
        self.reactor.removeReader(self)
        for _ in range(self._backlog // self.TURN + 1):
            if not self._accept():
                break
        self.factory.doStop()

    # What follows is called by the reactor.

    def fileno(self) -> int:
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return "accept"

    def doRead(self) -> None:
        self._accept()

    def _accept(self) -> bool:
        """Accept connections; say whether there may be more."""
        for _ in range(self.TURN):
            try:
                made, address = self.socket.accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error)
                    return False
                # That one connection has gone already; accept(2).
                continue
            if self._exhausted:
                self._exhausted = False
                log.info("accepting connections again")
            self._serve(made, address)
        return True

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is stopping."""

    def _serve(self, made: socket.socket, address: Any) -> None:
        transport = None
        try:
            peer = self._peer(made, address)
            protocol = self.factory.buildProtocol(peer)
            if protocol is None:
                made.close()
                return
            self._accepted += 1
            server: Any = Server
            if made.family == socket.AF_UNIX:
                server = PacketServer if made.type == socket.SOCK_SEQPACKET else LocalServer
            transport = server(made, protocol, address, self, self._accepted, self._descriptors)
            protocol.makeConnection(transport)
        except Exception:
            log.failure("a connection could not be served")
            if transport is None:
                made.close()
            else:
                transport.abortConnection()

    def _peer(self, made: socket.socket, address: Any) -> IAddress:
        if made.family == socket.AF_INET:
            return IPv4Address("TCP", *address)
        if made.family == socket.AF_INET6:
            return IPv6Address("TCP", scoped(address), *address[1:])
        credentials = made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return LocalPeer(*_CREDENTIALS.unpack(credentials))

    def _pause(self, error: OSError) -> None:
        if not self._exhausted:
            self._exhausted = True
            log.error("cannot accept connections: {reason}; waiting", reason=error.strerror)
        self.reactor.removeReader(self)
        self.reactor.callLater(self.RETRY, self._resume)

    def _resume(self) -> None:
        if self._listening:
            self.reactor.addReader(self)


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
    """Serve a DatagramProtocol on a bound UDP or UNIX datagram socket.

    Beyond Twisted's own `udp.Port`: datagrams are never cut short; a reply to a
    :class:`Source` leaves from the address the datagram was sent to, also on a
    wildcard address; IPv6 scopes are kept; nothing is read while a reply waits
    for room in the system's buffer. The socket is closed by whoever bound it.
    """

    #: Datagrams read in one turn, before others get theirs: 0.2 ms or so, which a flood
    #: adds to the round trips of the others.
    TURN = 10

    def __init__(self, reactor: Any, bound: socket.socket, protocol: DatagramProtocol) -> None:
        self.reactor = reactor
        self.socket = bound
        self.protocol = protocol
        self._buffer = bytearray(65536)  # longer than any datagram (65,527 on IPv6)
        self._view = memoryview(self._buffer)
        self._unsent: tuple[bytes, Any] | None = None
        self._paused = False
        self._local = bound.family == socket.AF_UNIX
        self._wildcard = not self._local and bound.getsockname()[0] in ("0.0.0.0", "::")
        self._listening = False
        bound.setblocking(False)
        if self._wildcard:
            bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            if bound.family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)

    def startListening(self) -> None:
        """Begin to read."""
        self._listening = True
        self.protocol.makeConnection(self)  # type: ignore[arg-type]
        self.reactor.addReader(self)

    def stopListening(self) -> None:
        """Read and write no more."""
        self._listening = False
        self.reactor.removeReader(self)
        self.reactor.removeWriter(self)
        self.protocol.doStop()

    def getHost(self) -> IAddress:
        """Give the address the socket is bound to."""
        address = self.socket.getsockname()
        if self._local:
            return UNIXAddress(address)
        kind = IPv6Address if self.socket.family == socket.AF_INET6 else IPv4Address
        return kind("UDP", *address[:2])

    def write(self, datagram: bytes, addr: Any) -> None:
        """Send `datagram` to `addr`.

        :raises OSError: The system does not send this datagram, or not to there.
        """
        if self._unsent is not None:
            raise BlockingIOError(errno.EAGAIN, "a datagram is waiting already")
        try:
            self._send(datagram, addr)
        except BlockingIOError:
            if self._local:
                # The peer's queue is full, of which the system gives no notice.
                raise
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
        if self._listening:
            self.doRead()
        if self._listening:
            self.reactor.addReader(self)

    def _receive(self) -> tuple[int, Any]:
        if not self._wildcard:
            size, address = self.socket.recvfrom_into(self._buffer)
            return size, address if self._local else Source(address)
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

    def _send(self, datagram: bytes, addr: Any) -> None:
        origin = getattr(addr, "origin", None)
        if origin is None:
            self.socket.sendto(datagram, addr)
        else:
            self.socket.sendmsg([datagram], [origin], 0, addr)
