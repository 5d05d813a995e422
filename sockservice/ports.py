"""The listening ends: ports that Twisted has not, or not as they are needed here."""

import errno
import socket
import struct
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IReadDescriptor, IReadWriteDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.tcp import Server
from twisted.internet.unix import Server as LocalServer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.addresses import LocalPeer, scoped
from sockservice.batches import LONGEST, Batches
from sockservice.packets import PacketServer
from sockservice.sources import IP_PKTINFO

log = Logger()

_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid; unix(7), SO_PEERCRED

# Out of descriptors or memory: it passes, and until then each accept would fail.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class StreamServer(Server):
    """Twisted's server transport, read in one call instead of two, and closed in one turn."""

    def doRead(self) -> Any:
        try:
            data = self.socket.recv(self.bufferSize)
        except OSError:
            # It tells what has happened from what passes.
            return super().doRead()
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def readConnectionLost(self, reason: Failure) -> None:
        super().readConnectionLost(reason)
        if self.disconnecting:
            # Now, if nothing is left to send, and not when the system says that more could be.
            why = self.doWrite()
            if why:
                self.connectionLost(Failure(why))


@implementer(IReadDescriptor)
class StreamPort:
    """Accept connections on a bound socket, TCP or UNIX, and have `factory` serve them.

    Beyond Twisted's own ports: it takes any socket that was bound before, the
    `SOCK_SEQPACKET` kind too, says which process a UNIX peer is, and when the
    process is out of descriptors it says so once and pauses instead of spinning.
    `descriptors` watches its connections in the reactor's place, if given. The socket
    is closed by whoever bound it.
    """

    #: Connections accepted in one turn, before others get theirs, whom each costs about a
    #: round trip. One at a time a connection costs a fifth more of the processor.
    TURN = 2
    #: Seconds until accepting is tried again after descriptors ran out.
    RETRY = 0.5
    #: Seconds in which the log says at most once that they ran out: they may do so each time
    #: that one is free again.
    QUIET = 10.0

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
        self._exhausted = False  # as the log has it
        self._quietUntil = 0.0
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
            server: Any = StreamServer
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
        now = self.reactor.seconds()
        if not self._exhausted and now >= self._quietUntil:
            self._exhausted = True
            self._quietUntil = now + self.QUIET
            log.error("cannot accept connections: {reason}; waiting", reason=error.strerror)
        self.reactor.removeReader(self)
        self.reactor.callLater(self.RETRY, self._resume)

    def _resume(self) -> None:
        if self._listening:
            self.reactor.addReader(self)


@implementer(IReadWriteDescriptor)
class DatagramPort:
    """Serve a DatagramProtocol on a bound UDP or UNIX datagram socket.

    Beyond Twisted's own `udp.Port`: datagrams are never cut short; a reply to a
    :class:`~sockservice.sources.Source` leaves from the address the datagram was sent
    to, also on a wildcard address; IPv6 scopes are kept; nothing is read while a reply
    waits for room in the system's buffer. The socket is closed by whoever bound it.

    A :class:`~sockservice.datagrams.DatagramServer` gets UDP datagrams in batches.
    """

    #: Datagrams read in one turn from a UNIX socket, before others get theirs.
    TURN = 10

    def __init__(self, reactor: Any, bound: socket.socket, protocol: Any) -> None:
        self.reactor = reactor
        self.socket = bound
        self.protocol = protocol
        self._unread: list[tuple[bytes, Any]] = []  # received, but the protocol has paused
        self._unsent: list[tuple[bytes, Any]] = []
        self._paused = False
        self._local = bound.family == socket.AF_UNIX
        self._listening = False
        bound.setblocking(False)
        self._batches = None
        if not self._local:
            wildcard = bound.getsockname()[0] in ("0.0.0.0", "::")
            self._batches = Batches(bound, wildcard)
            if wildcard:
                bound.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
                if bound.family == socket.AF_INET6:
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        self._many = protocol.datagramsReceived if getattr(protocol, "batched", False) else None

    def startListening(self) -> None:
        """Begin to read."""
        self._listening = True
        self.protocol.makeConnection(self)
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
        if self._unsent:
            raise BlockingIOError(errno.EAGAIN, "a datagram is waiting already")
        try:
            self._send(datagram, addr)
        except BlockingIOError:
            if self._local:
                # The peer's queue is full, of which the system gives no notice.
                raise
            self._wait([(datagram, addr)])

    def pauseProducing(self) -> None:
        """Read nothing until resumeProducing."""
        self._paused = True
        self.reactor.removeReader(self)

    def resumeProducing(self) -> None:
        """Read again."""
        self._paused = False
        self._deliver()
        if not (self._paused or self._unsent):
            self.reactor.addReader(self)

    # What follows is called by the reactor.

    def fileno(self) -> int:
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return type(self.protocol).__name__

    def doRead(self) -> None:
        if self._batches is None:
            self._readEach()
            return
        for _ in range(self.TURN):
            try:
                # What a protocol that failed has left comes first.
                self._unread = self._unread or self._batches.receive()
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                # Only a connected socket is told.
                self.protocol.connectionRefused()
            except OSError:
                # What an earlier reply met on its way; it says nothing of the next.
                pass
            else:
                self._deliver()
                return

    def doWrite(self) -> None:
        while self._unsent:
            try:
                self._send(*self._unsent[0])
            except BlockingIOError:
                return
            except OSError:
                log.info("a datagram that had to wait could not be sent")
            del self._unsent[0]
        self.reactor.removeWriter(self)
        self._deliver()
        if not (self._paused or self._unsent):
            self.reactor.addReader(self)

    def connectionLost(self, reason: Failure) -> None:
        # The reactor takes an error that waits on the socket (an ICMP message) for
        # its end. Reading takes the error away; the socket is as good as before.
        if self._listening:
            self.doRead()
        if self._listening:
            self.reactor.addReader(self)

    def _readEach(self) -> None:
        """Read a UNIX socket, whose datagrams have few senders."""
        for _ in range(self.TURN):
            try:
                datagram, address = self.socket.recvfrom(LONGEST)
            except BlockingIOError:
                return
            except OSError:
                # What an earlier reply met on its way; it says nothing of the next.
                continue
            self.protocol.datagramReceived(datagram, address)
            if self._paused:
                return

    def _deliver(self) -> None:
        """Give the protocol what was read, and send what it replies."""
        while self._unread and not (self._paused or self._unsent):
            if self._many is None:
                self.protocol.datagramReceived(*self._unread.pop(0))
            else:
                self._reply(self._many(self._unread))

    def _reply(self, replies: list[tuple[bytes, Any]]) -> None:
        assert self._batches is not None
        while replies:
            try:
                sent = self._batches.send(replies)
            except BlockingIOError:
                self._wait(replies)
                return
            except OSError:
                # Too long, no route, not permitted: one peer's reply is lost, as
                # datagrams are, and nobody else's.
                self.protocol.unsendable()
                sent = 1
            replies = replies[sent:]

    def _wait(self, replies: list[tuple[bytes, Any]]) -> None:
        """Read nothing until the system has room for replies."""
        self._unsent = replies
        self.reactor.removeReader(self)
        self.reactor.addWriter(self)

    def _send(self, datagram: bytes, addr: Any) -> None:
        origin = getattr(addr, "origin", None)
        if origin is None:
            self.socket.sendto(datagram, addr)
        else:
            self.socket.sendmsg([datagram], [origin], 0, addr)
