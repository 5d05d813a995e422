"""The other end: ask a server, and be told what became of every line and datagram."""

import errno
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, clientFromString, connectProtocol
from twisted.internet.error import ConnectError, DNSLookupError, TCPTimedOutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol, Protocol, connectionDone
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from sockservice.framing import CRLF, LF, Framer, Framing, Lines, Packets
from sockservice.packets import PacketServer
from sockservice.ports import DatagramPort
from sockservice.sockets import RECEIVE_BUFFER

#: Lines that answer none and wait for whoever reads them.
UNASKED_LIMIT = 1000
#: Longest reply line in bytes that a client takes in.
REPLY_LIMIT = 1024 * 1024


class Unanswered(Exception):
    """No reply came, or none that can be told from others; the text says why."""


class TimedOut(Unanswered):
    """No reply came in time; it may still come, and will not be given to another."""


class _Asked:
    """A line or datagram that was sent, and the reply to it."""

    __slots__ = ("datagram", "reply", "timeout")

    def __init__(self, datagram: bytes, clock: IReactorTime, timeout: float | None) -> None:
        self.datagram = datagram
        self.reply: Deferred[bytes] | None = Deferred(self._cancelled)
        self.timeout = None if timeout is None else clock.callLater(timeout, self._expire, timeout)

    def answer(self, reply: bytes) -> None:
        waiting = self._settle()
        if waiting is not None:
            waiting.callback(reply)

    def fail(self, why: Unanswered) -> None:
        waiting = self._settle()
        if waiting is not None:
            waiting.errback(why)

    def _settle(self) -> Deferred[bytes] | None:
        if self.timeout is not None and self.timeout.active():
            self.timeout.cancel()
        waiting, self.reply = self.reply, None
        return waiting

    def _expire(self, timeout: float) -> None:
        self.fail(TimedOut(f"no reply within {timeout:g} seconds"))

    def _cancelled(self, _: object) -> None:
        self._settle()


class _End:
    """The end of a connection, for any number of watchers."""

    def __init__(self) -> None:
        self.came = False
        self._watchers: list[Deferred[None]] = []

    def watch(self) -> Deferred[None]:
        watcher: Deferred[None] = Deferred()
        if self.came:
            watcher.callback(None)
        else:
            self._watchers.append(watcher)
        return watcher

    def come(self) -> None:
        self.came = True
        for watcher in self._watchers:
            watcher.callback(None)


class LineClient(Protocol):
    """Ask a line server, which answers each line with one line, in order.

    `clock` times replies out; `framing` is the server's. Get one from
    :func:`connect`, or give it to any of Twisted's stream endpoints.
    """

    transport: Any

    def __init__(self, clock: IReactorTime, framing: Callable[[int], Framing] = Framer) -> None:
        self._clock = clock
        self._framing = framing(REPLY_LIMIT)
        self._unasked: deque[bytes] = deque()
        self._iterated = False  # by lines()
        self._reading: Deferred[None] | None = None
        self._asked: deque[_Asked] = deque()  # in the order of the lines sent
        self._closed: str | None = None  # why nothing more can be asked
        self._end = _End()
        #: Lines whose reply is awaited.
        self.outstanding = 0

    def ask(self, line: bytes, timeout: float | None = None) -> Deferred[bytes]:
        """Send `line`, give its reply; neither has a line ending.

        Any number may be outstanding. The Deferred fails with :class:`TimedOut`
        after `timeout` seconds and with :class:`Unanswered` when the connection
        ends first.

        :raises ValueError: `line` holds an LF, which would make two of it.
        """
        if b"\n" in line and isinstance(self._framing, Framer):
            raise ValueError("a line holds no LF")
        asked = _Asked(line, self._clock, timeout)
        reply = asked.reply
        assert reply is not None
        if self._closed is not None:
            asked.fail(Unanswered(self._closed))
            return reply
        self._asked.append(asked)
        self.outstanding += 1
        # Behind a CR, an LF alone would make that CR a part of the ending.
        ending = CRLF if line.endswith(b"\r") else LF
        self.transport.write(self._framing.encode([line], ending))
        return reply.addBoth(self._done)

    def unasked(self, line: bytes) -> None:
        """Take a line that came though no reply was due.

        As it is here it keeps the line for `lines`; while nobody reads those, the
        latest UNASKED_LIMIT. To be overridden.
        """
        self._unasked.append(line)
        if len(self._unasked) >= UNASKED_LIMIT:
            if self._iterated:
                self.transport.pauseProducing()
            else:
                self._unasked.popleft()
        self._wake()

    async def lines(self) -> AsyncIterator[bytes]:
        """Give the lines that answer none, one by one, until the connection ends.

        While UNASKED_LIMIT of them wait, nothing is read.
        """
        self._iterated = True
        while self._unasked or not self._end.came:
            if not self._unasked:
                self._reading = Deferred()
                await self._reading
                continue
            line = self._unasked.popleft()
            if len(self._unasked) == UNASKED_LIMIT - 1 and not self._end.came:
                self.transport.resumeProducing()
            yield line

    def _wake(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.callback(None)

    def close(self) -> Deferred[None]:
        """Ask nothing more; close when no reply is awaited; fires when that is done."""
        if self._closed is None:
            self._closed = "the connection is closed"
        disconnected = self.disconnected()
        self._closeIfDone()
        return disconnected

    def abort(self) -> Deferred[None]:
        """Close now, whatever is awaited or not even sent; fires when that is done."""
        if not self._end.came:
            self.transport.abortConnection()
        return self.disconnected()

    def disconnected(self) -> Deferred[None]:
        """Give a Deferred that fires when the connection has ended, whoever ended it."""
        return self._end.watch()

    # What follows is called by the transport.

    def dataReceived(self, data: bytes) -> None:
        self._framing.receive(data)
        while (item := self._framing.take(1000)) is not None:
            if isinstance(item, Lines):
                for line in item.lines:
                    if self._asked:
                        self._asked.popleft().answer(line)
                    else:
                        self.unasked(line)
            elif self._asked:
                self._asked.popleft().fail(Unanswered(f"reply {item.reason.decode()}"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closed = f"connection lost: {reason.getErrorMessage()}"
        while self._asked:
            self._asked.popleft().fail(Unanswered(self._closed))
        self._end.come()
        self._wake()

    def _done(self, result: Any) -> Any:
        self.outstanding -= 1
        if self._closed is not None:
            self._closeIfDone()
        return result

    def _closeIfDone(self) -> None:
        if not self.outstanding and not self._end.came:
            self.transport.loseConnection()


class DatagramClient(DatagramProtocol):
    """Ask the datagram server at `peer`, a socket address.

    Datagrams have no order: a reply equal to one outstanding is taken for its
    echo; any other for the reply to the oldest outstanding one, unless it is the
    late echo of one given up. Get one from :func:`connect`.
    """

    noisy = False
    transport: Any

    def __init__(self, clock: IReactorTime, peer: tuple[Any, ...]) -> None:
        self._clock = clock
        self._peer = peer
        self._asked: list[_Asked] = []
        self._givenUp: deque[bytes] = deque(maxlen=1000)
        self._closed = False
        self._end = _End()

    @property
    def outstanding(self) -> int:
        """Datagrams whose reply is awaited."""
        return len(self._asked)

    def ask(self, datagram: bytes, timeout: float | None = 5.0) -> Deferred[bytes]:
        """Send `datagram`, give its reply.

        The Deferred fails with :class:`TimedOut` after `timeout` seconds, and with
        :class:`Unanswered` when it can't be sent or nobody listens there.
        """
        asked = _Asked(datagram, self._clock, timeout)
        reply = asked.reply
        assert reply is not None
        self._asked.append(asked)
        reply.addBoth(self._done, asked)
        try:
            if self._closed:
                raise OSError(errno.EBADF, "the socket is closed")
            self.transport.write(datagram, self._peer)
        except ConnectionRefusedError:
            # The system says so once, of whichever datagram.
            self.connectionRefused()
        except OSError as error:
            asked.fail(Unanswered(f"not sent: {error.strerror}"))
        return reply

    def close(self) -> Deferred[None]:
        """Close the socket; what is outstanding fails; fires when that is done."""
        if not self._closed:
            transport = self.transport
            transport.stopListening()
            transport.socket.close()
        return self.disconnected()

    abort = close

    def disconnected(self) -> Deferred[None]:
        """Give a Deferred that fires when the socket is closed."""
        return self._end.watch()

    # What follows is called by the transport.

    def datagramReceived(self, datagram: bytes, addr: tuple[Any, ...]) -> None:
        for asked in self._asked:
            if asked.datagram == datagram:
                asked.answer(datagram)
                return
        if datagram in self._givenUp:
            self._givenUp.remove(datagram)
        elif self._asked:
            self._asked[0].answer(datagram)

    def connectionRefused(self) -> None:
        self._failAll("connection refused: nobody listens there")

    def stopProtocol(self) -> None:
        self._closed = True
        self._failAll("the socket is closed")
        self._end.come()

    def _failAll(self, why: str) -> None:
        for asked in list(self._asked):
            asked.fail(Unanswered(why))

    def _done(self, result: Any, asked: _Asked) -> Any:
        self._asked.remove(asked)
        if isinstance(result, Failure):
            self._givenUp.append(asked.datagram)
        return result


@inlineCallbacks
def connect(
    reactor: Any,
    target: str,
    *,
    timeout: float = 30.0,
    framing: Callable[[int], Framing] = Framer,
) -> Any:
    """Connect to `target`; gives a Deferred of a LineClient or, for `udp:`, a DatagramClient.

    `tcp:HOST:PORT` and `udp:HOST:PORT` take a name, an IPv4 address or an IPv6
    address in brackets; anything else is one of Twisted's client endpoint strings.

    `unix-datagram:PATH` and `unix-seqpacket:PATH` are ours as well. `framing` is the
    server's, where that is not lines. The Deferred fails with a ConnectError of
    Twisted's, whose `osError` is the number; with TCPTimedOutError after `timeout`
    seconds.

    :raises ValueError: `target` is neither.
    """
    scheme, _, rest = target.partition(":")
    if scheme == "udp":
        connecting = _udpClient(reactor, *hostAndPort(rest))
        connecting.addTimeout(timeout, reactor, _timedOut)
        client = yield connecting
        return client
    if scheme == "unix-datagram":
        return _datagramClient(reactor, socket.AF_UNIX, rest)
    if scheme == "unix-seqpacket":
        return _packetClient(reactor, rest)
    if scheme == "tcp" and rest.count("=") == 0:
        endpoint = HostnameEndpoint(reactor, *hostAndPort(rest), timeout=timeout)
    else:
        try:
            endpoint = clientFromString(reactor, target)
        except Exception as problem:
            # The endpoints' constructors complain in ways of their own.
            raise ValueError(str(problem)) from problem
    connecting = connectProtocol(endpoint, LineClient(reactor, framing))
    connecting.addTimeout(timeout, reactor, _timedOut)
    client = yield connecting
    return client


def _timedOut(result: Any, timeout: float) -> Any:
    if isinstance(result, Failure):
        raise TCPTimedOutError(errno.ETIMEDOUT, f"not connected within {timeout:g} seconds")
    return result


def hostAndPort(text: str) -> tuple[str, int]:
    """Read `HOST:PORT`, IPv6 in brackets.

    :raises ValueError: It is something else.
    """
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"write an IPv6 address in brackets: [{host}]:{port}")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host, int(port)


@inlineCallbacks
def _udpClient(reactor: Any, host: str, port: int) -> Any:
    try:
        found = yield deferToThreadPool(
            reactor, reactor.getThreadPool(), socket.getaddrinfo, host, port, 0, socket.SOCK_DGRAM
        )
    except socket.gaierror as error:
        raise DNSLookupError(f"{host}: {error.strerror}") from error
    family, _, _, _, peer = found[0]
    return _datagramClient(reactor, family, peer)


def _datagramClient(reactor: Any, family: int, peer: Any) -> DatagramClient:
    connected = socket.socket(family, socket.SOCK_DGRAM)
    connected.setblocking(False)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    try:
        if family == socket.AF_UNIX:
            # A name, which the system chooses, is needed to get a reply; unix(7), autobind.
            connected.bind("")
        # Connected, so that a refusal (ICMP port unreachable) is reported.
        connected.connect(peer)
    except OSError as error:
        connected.close()
        raise ConnectError(error.errno, error.strerror) from error
    client = DatagramClient(reactor, peer)
    DatagramPort(reactor, connected, client).startListening()
    return client


def _packetClient(reactor: Any, path: str) -> LineClient:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connected.connect(path)
    except OSError as error:
        connected.close()
        raise ConnectError(error.errno, error.strerror) from error
    client = LineClient(reactor, Packets)
    client.makeConnection(PacketServer(connected, client, path, None, 0, reactor))
    return client
