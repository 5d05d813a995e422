"""A listening port for stream sockets that are bound already."""

import errno
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from sys import intern
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Server
from twisted.internet.unix import Server as LocalServer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.net.addresses import LocalPeer, scoped
from sockservice.net.seqpacket import PacketServer
from sockservice.net.transports import tuneSocket

log = Logger()


_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid; unix(7), SO_PEERCRED

# Out of descriptors or memory: it passes, and until then each accept would fail.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class StreamServer(Server):
    """Twisted's server transport, with one call less for each read and one turn for closing."""

    #: Whether its socket has the options of `tune`, from the one it was accepted on.
    tuned = True

    _ending = False  # the peer has closed its half, and the protocol is being told

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        # Two texts that few are ever asked for: an eighth of an idle connection.
        self.logstr = self.repstr = ""
        # Connections of one host share its text: a twentieth.
        self.hostname = intern(str(self.hostname))
        self.client = (self.hostname, *self.client[1:])

    def logPrefix(self) -> str:
        """Return what stands before what the reactor logs of this connection."""
        return f"{self._getLogPrefix(self.protocol)},{self.sessionno},{self.hostname}"

    def __repr__(self) -> str:
        name = type(self.protocol).__name__
        return f"<{name} #{self.sessionno} on {self.server._realPortNumber}>"

    def doRead(self) -> Any:
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            # Not to be read for once more: a reset is reported once, and then as an end.
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    @property
    def _unsent(self) -> bool:
        """Whether anything is left to send, or may come to be."""
        return bool(self.dataBuffer or self._tempDataBuffer or self.producer)

    def loseConnection(self) -> None:
        idle = self._ending and self.connected and not (self.disconnecting or self.TLS)
        if idle and not self._unsent:
            # There is no need to wait until the socket can be written.
            self.disconnecting = True
        else:
            super().loseConnection()

    def readConnectionLost(self, reason: Failure) -> None:
        self._ending = True
        super().readConnectionLost(reason)
        self._ending = False
        if self.disconnecting:
            # At once if nothing is left to send, not when the socket is found to be writable.
            if not self._unsent:
                self.connectionLost(reason)
            elif why := self.doWrite():
                self.connectionLost(Failure(why))


@implementer(IReadDescriptor)
class StreamPort:
    """Accepts connections on a bound socket, TCP or UNIX, which `factory` serves.

    Unlike Twisted's own ports it takes any bound socket, `SOCK_SEQPACKET` too, identifies
    the process of a UNIX peer, and when the process is out of descriptors logs that once
    and pauses instead of spinning. `descriptors`, if given, watches its connections in
    place of the reactor. `starved` is told of each connection that there is no memory for, and
    returns the bytes to send it. Whoever bound the socket closes it.
    """

    #: Connections accepted in one turn, in some 0.3 ms, by which others are delayed. With two at a
    #: time a connection takes a third more processor time; sixteen give little, and delay twice
    #: as long.
    TURN = 8
    #: Seconds until the next attempt to accept after descriptors ran out.
    RETRY = 0.5
    #: Seconds in which this is logged at most once: they may run out whenever one becomes
    #: free.
    QUIET = 10.0

    def __init__(
        self,
        reactor: Any,
        bound: socket.socket,
        factory: Any,
        backlog: int,
        descriptors: Any = None,
        starved: Callable[[], bytes] = bytes,
    ) -> None:
        self.reactor = reactor
        self.socket = bound
        self.factory = factory
        self._descriptors = reactor if descriptors is None else descriptors
        self._starved = starved
        self._backlog = backlog
        # Asked of a socket, each time it becomes a member of an enumeration.
        self._family = int(bound.family)
        self._accepted = 0
        self._exhausted = False  # as last logged
        self._lacking = False  # descriptors, at the last attempt
        self._rest = 0  # how many are accepted at the end
        self._quietUntil = 0.0
        self._listening = False
        # Used by the repr of Twisted's server transports.
        self._realPortNumber = bound.getsockname()
        bound.setblocking(False)

    @property
    def lacking(self) -> bool:
        """Whether the last attempt to accept a connection failed for want of descriptors."""
        return self._lacking

    def startListening(self) -> None:
        """Start to accept.

        :raises OSError: Another socket listens there by now.
        """
        self.hold()
        if self._family != socket.AF_UNIX:
            # Once here instead of on each connection, which inherits them.
            tuneSocket(self.socket)
        self._listening = True
        self.factory.doStart()
        self.reactor.addReader(self)

    def hold(self) -> None:
        """Let the system take connections, for whoever accepts them on this socket.

        :raises OSError: Another socket listens there by now.
        """
        self.socket.listen(self._backlog)

    def leaveListening(self) -> None:
        """Stop accepting; the connections in the backlog are left to others on this socket."""
        self._listening = False
        self.reactor.removeReader(self)

    def stopListening(self) -> bool:
        """Stop accepting, after the connections in the backlog, unless they were left.

        Return whether that is all; else descriptors ran out, and `acceptRest` goes on.
        """
        done = True
        if self._listening:
            self.leaveListening()
            self._rest = self._backlog
            done = self.acceptRest()
        self.factory.doStop()
        return done

    def acceptRest(self) -> bool:
        """Accept what is left in the backlog; return whether that is all."""
        while self._rest > 0 and self._accept():
            self._rest -= self.TURN
        return not self._lacking

    def cutRest(self) -> int:
        """Close what is left in the backlog; return how many that were."""
        closed = 0
        with suppress(OSError):
            while closed < self._backlog:
                self.socket.accept()[0].close()
                closed += 1
        return closed

    # What follows is called by the reactor.

    def fileno(self) -> int:
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return "accept"

    def doRead(self) -> None:
        self._accept()

    def _accept(self) -> bool:
        """Accept some connections; return whether there may be more."""
        for _ in range(self.TURN):
            try:
                made, address = self.socket.accept()
            except BlockingIOError:
                self._lacking = False
                return False
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._lacking = True
                    self._pause(os.strerror(error.errno))
                    return False
                # That connection has already gone; accept(2).
                continue
            except MemoryError:
                self._pause(os.strerror(errno.ENOMEM))
                return False
            self._lacking = False
            if self._exhausted:
                self._exhausted = False
                log.info("accepting connections again")
            self._serve(made, address)
        return True

    def connectionLost(self, reason: Failure) -> None:
        """Accept on: what has failed was one connection, unless the reactor is stopping."""
        if self._listening:
            self.reactor.addReader(self)

    def _serve(self, made: socket.socket, address: Any) -> None:
        transport = protocol = None
        try:
            peer = self._peer(made, address)
            protocol = self.factory.buildProtocol(peer)
            if protocol is None:
                made.close()
                return
            self._accepted += 1
            server: Any = StreamServer
            if self._family == socket.AF_UNIX:
                server = PacketServer if made.type == socket.SOCK_SEQPACKET else LocalServer
            transport = server(made, protocol, address, self, self._accepted, self._descriptors)
            protocol.makeConnection(transport)
        except MemoryError:
            try:
                with suppress(OSError, MemoryError):
                    made.send(self._starved())
            finally:
                self._close(made, transport, protocol)
        except Exception:
            log.failure("a connection could not be served")
            self._close(made, transport, protocol)

    def _close(self, made: socket.socket, transport: Any, protocol: Any) -> None:
        """Close a connection that can't be served, as far as it has come."""
        if transport is not None:
            transport.abortConnection()
            return
        made.close()
        # Of a connection that was never made, no transport tells the end. Within TLS, as well.
        unmade = getattr(getattr(protocol, "wrappedProtocol", protocol), "unmade", None)
        if unmade is not None:
            unmade()

    def _peer(self, made: socket.socket, address: Any) -> IAddress:
        if self._family == socket.AF_INET:
            return IPv4Address("TCP", *address)
        if self._family == socket.AF_INET6:
            return IPv6Address("TCP", scoped(address), *address[1:])
        credentials = made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return LocalPeer(*_CREDENTIALS.unpack(credentials))

    def _pause(self, reason: str) -> None:
        now = self.reactor.seconds()
        if not self._exhausted and now >= self._quietUntil:
            self._exhausted = True
            self._quietUntil = now + self.QUIET
            log.error("cannot accept connections: {reason}; waiting", reason=reason)
        if self._listening:
            self.reactor.removeReader(self)
            self.reactor.callLater(self.RETRY, self._resume)

    def _resume(self) -> None:
        if self._listening:
            self.reactor.addReader(self)
