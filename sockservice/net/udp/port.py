"""A port for datagram sockets that are bound already."""

import errno
import socket
import struct
from collections.abc import Callable
from time import perf_counter
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.net.epoll import SLICE
from sockservice.net.udp.mmsg import LONGEST, MOST, Batches
from sockservice.net.udp.pktinfo import IP_PKTINFO

# Python's socket module has no name for it; asm-generic/socket.h. What it gives is nine numbers
# of 32 bits, linux/sock_diag.h, the last of which is SK_MEMINFO_DROPS.
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("9I")

log = Logger()


@implementer(IReadWriteDescriptor)
class DatagramPort:
    """Serves a DatagramProtocol on a bound UDP or UNIX datagram socket.

    Unlike Twisted's own `udp.Port` it never truncates a datagram; a reply to a
    :class:`~sockservice.net.udp.pktinfo.Source` leaves from the address the datagram was sent
    to, even on a wildcard address; IPv6 scopes are kept; nothing is read while a reply
    waits for room in the system's buffer. Whoever bound the socket closes it.

    A :class:`~sockservice.server.datagram.DatagramServer` gets UDP datagrams in batches.
    """

    #: Datagrams read from a UNIX socket in one turn.
    TURN = 10
    #: Seconds until the next attempt to read after memory ran out.
    RETRY = 0.5

    def __init__(
        self,
        reactor: Any,
        bound: socket.socket,
        protocol: Any,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.reactor = reactor
        self._clock = clock
        self.socket = bound
        self.protocol = protocol
        self._unread: list[tuple[bytes, Any]] = []  # received while the protocol was paused
        self._unsent: list[tuple[bytes, Any]] = []
        self._paused = False
        self._local = bound.family == socket.AF_UNIX
        self._open = self._listening = False
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
        """Start to read."""
        self._open = self._listening = True
        self.protocol.makeConnection(self)
        self.reactor.addReader(self)

    def leaveListening(self) -> None:
        """Read nothing new, whoever resumes: it is left to others on this socket."""
        self._listening = False
        self.reactor.removeReader(self)

    def stopListening(self) -> None:
        """Read and write no more."""
        self._open = self._listening = False
        self.reactor.removeReader(self)
        self.reactor.removeWriter(self)
        self.protocol.doStop()

    def getHost(self) -> IAddress:
        """Return the address the socket is bound to."""
        address = self.socket.getsockname()
        if self._local:
            return UNIXAddress(address)
        kind = IPv6Address if self.socket.family == socket.AF_INET6 else IPv4Address
        return kind("UDP", *address[:2])

    def dropped(self) -> int:
        """Return how many datagrams the system has dropped, modulo 2**32: the buffer was full.

        Of a UNIX socket it drops none; where the system does not tell, it is 0 as well.
        """
        try:
            told = self.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
            return int(_MEMINFO.unpack(told)[-1])
        except (OSError, struct.error):
            return 0

    def write(self, datagram: bytes, addr: Any) -> None:
        """Send `datagram` to `addr`.

        :raises OSError: The system does not send this datagram, or not to that address.
        """
        if self._unsent:
            raise BlockingIOError(errno.EAGAIN, "a datagram is waiting already")
        try:
            self._send(datagram, addr)
        except BlockingIOError:
            if self._local:
                # The peer's queue is full, and the system does not report when it has room.
                raise
            self._wait([(datagram, addr)])

    def pauseProducing(self) -> None:
        """Read nothing until resumeProducing."""
        self._paused = True
        self.reactor.removeReader(self)

    def resumeProducing(self) -> None:
        """Read again."""
        self._paused = False
        self._goOn()

    # What follows is called by the reactor.

    def fileno(self) -> int:
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return type(self.protocol).__name__

    def doRead(self) -> None:
        try:
            self._read()
        except MemoryError:
            self._starved()

    def _starved(self) -> None:
        """There is no memory: try again later, for now the next attempt would fail as well."""
        self.reactor.removeReader(self)
        self.reactor.callLater(self.RETRY, self._goOn)
        self.protocol.starved()

    def _goOn(self) -> None:
        """Pass on what has been read already, then read, unless something is in the way."""
        if not self._open:
            return
        try:
            self._deliver()
        except MemoryError:
            self._starved()
        except Exception:
            # The protocol's, and no reason to be deaf.
            self._readOn()
            raise
        else:
            self._readOn()

    @property
    def _free(self) -> bool:
        """Whether nothing is in the way of reading."""
        return self._listening and not (self._paused or self._unsent)

    def _readOn(self) -> None:
        if self._free:
            self.reactor.addReader(self)

    def _read(self) -> None:
        if self._batches is None:
            self._readEach()
            return
        ends = self._clock() + SLICE
        while self._readBatch() and self._free and self._clock() < ends:
            pass

    def _readBatch(self) -> bool:
        """Answer a batch of datagrams; say whether there may be more."""
        assert self._batches is not None
        try:
            # Datagrams that a failed protocol has left come first.
            self._unread = self._unread or self._batches.receive()
        except BlockingIOError:
            return False
        except ConnectionRefusedError:
            # Only a connected socket is told.
            self.protocol.connectionRefused()
            return True
        except OSError:
            # An error of an earlier reply; it does not concern the next.
            return True
        full = len(self._unread) >= MOST
        self._deliver()
        return full

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
        self._goOn()

    def connectionLost(self, reason: Failure) -> None:
        # The reactor takes a pending error of the socket (an ICMP message) for its end, and
        # what the protocol raises. It does not watch the socket any more, which is as good as
        # before once the error is read.
        if not self._open:
            return
        if self._unsent:
            self.reactor.addWriter(self)
        self._readOn()
        if self._unread or not self._free:
            # Not by reading datagrams.
            if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED:
                self.protocol.connectionRefused()
        else:
            self.doRead()

    def _readEach(self) -> None:
        """Read datagrams one by one, from a UNIX socket."""
        for _ in range(self.TURN):
            try:
                datagram, address = self.socket.recvfrom(LONGEST)
            except BlockingIOError:
                return
            except OSError:
                # An error of an earlier reply; it does not concern the next.
                continue
            self.protocol.datagramReceived(datagram, address)
            if self._paused:
                return

    def _deliver(self) -> None:
        """Pass what was read to the protocol, and send its replies."""
        try:
            while self._unread and not (self._paused or self._unsent):
                if self._many is None:
                    self.protocol.datagramReceived(*self._unread.pop(0))
                else:
                    self._reply(self._many(self._unread))
        except MemoryError:
            raise
        except Exception:
            # Of those behind it the system, which has given them, tells no more.
            if self._unread:
                self.reactor.callLater(0, self._goOn)
            raise

    def _reply(self, replies: list[tuple[bytes, Any]]) -> None:
        assert self._batches is not None
        while replies:
            try:
                sent = self._batches.send(replies)
            except BlockingIOError:
                self._wait(replies)
                return
            except OSError:
                # Too long, no route, not permitted: this reply is lost, as datagrams may be,
                # and no other.
                self.protocol.unsendable()
                sent = 1
            replies = replies[sent:]

    def _wait(self, replies: list[tuple[bytes, Any]]) -> None:
        """Stop reading until the system has room for `replies`."""
        # Behind one that came later than asked for, while these were made.
        self._unsent += replies
        self.reactor.removeReader(self)
        self.reactor.addWriter(self)

    def _send(self, datagram: bytes, addr: Any) -> None:
        origin = getattr(addr, "origin", None)
        if origin is None:
            self.socket.sendto(datagram, addr)
        else:
            self.socket.sendmsg([datagram], [origin], 0, addr)
