"""Accept connections on a bound stream socket: what Twisted's own ports lack."""

import errno
import socket
import struct
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.tcp import Server
from twisted.internet.unix import Server as LocalServer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.net.addresses import LocalPeer, scoped
from sockservice.net.seqpacket import PacketServer

log = Logger()


_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid; unix(7), SO_PEERCRED

# Out of descriptors or memory: it passes, and until then each accept would fail.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class StreamServer(Server):
    """Twisted's server transport, read in one call instead of two, and closed in one turn."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        # Two texts that few are ever asked for: an eighth of an idle connection.
        self.logstr = self.repstr = ""

    def logPrefix(self) -> str:
        """Return what stands before what the reactor logs of this connection."""
        return f"{self._getLogPrefix(self.protocol)},{self.sessionno},{self.hostname}"

    def __repr__(self) -> str:
        name = type(self.protocol).__name__
        return f"<{name} #{self.sessionno} on {self.server._realPortNumber}>"

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
