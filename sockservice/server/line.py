"""The stream protocol to subclass: lines in, one reply each, in order."""

from collections.abc import Awaitable, Callable, Sequence
from socket import socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.errors import Refused
from sockservice.limits.tokenbucket import Pace
from sockservice.net.addresses import named
from sockservice.net.seqpacket import LONGEST, PacketServer
from sockservice.net.transports import halfCloses, plainSocket, tune, wire
from sockservice.server.answers import Answer, escaped, refusal
from sockservice.server.replies import NONE_AWAITED, Replies
from sockservice.store.engine import Batch
from sockservice.wire.chunks import Packets
from sockservice.wire.framer import Framer
from sockservice.wire.framing import LF, Framing, Lines, Refusal
from sockservice.wire.measured import measured
from sockservice.wire.telnet import COMMAND, Telnet

#: Reads of 64 KiB by which a connection is emptied when the service stops: what the
#: system's buffers hold at most by default (net.ipv4.tcp_rmem, 6 MiB).
DRAIN_READS = 96

#: The same in packets: a short one takes up 768 bytes of its sender's buffer, which holds
#: 8 MiB at most by default (twice net.core.wmem_max).
DRAIN_PACKETS = 11_000

#: Bytes that a transport has queued when it says that it has enough
#: (twisted.internet.abstract.FileDescriptor.bufferSize).
BUFFER_SIZE = 65536

#: Longest line in bytes: what one read brings (64 KiB), so that lines of any
#: usual text, log or JSON fit and a connection holds little.
LINE_LIMIT = 65536

log = Logger()


@implementer(IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class LineServer(Protocol):
    """Serve lines: override `answer`, and `answers` where speed asks for it.

    One line in, one reply out, in order. The rules of the wire are in
    docs/protocol.md. Built by a
    :class:`~sockservice.server.factory.LineFactory`, which holds the settings.
    """

    #: What built it and holds its settings; a :class:`~sockservice.server.factory.LineFactory`.
    factory: Any
    #: Twisted's stream transports have more in common than any interface of theirs says.
    transport: Any

    #: Most lines taken from one connection and not yet answered: 1000 unanswered
    #: Deferreds are about half a megabyte. Beyond it the connection isn't read.
    answerLimit = 1000
    #: Makes what cuts the stream into lines and writes replies; called with the
    #: line limit for each connection. See :class:`~sockservice.wire.framing.Framing`.
    framing: Callable[[int], Framing] = Framer
    #: Whether telnet commands are looked for and taken out of the lines.
    telnet = True
    #: Whether it serves datagram endpoints as well, each datagram as a line: then
    #: one instance answers all peers with `answer`, `peer` is that of the datagram,
    #: `close` does nothing and `tell` says False.
    datagrams = False
    #: Seconds that a connection closed from this side goes on reading, so that
    #: unread input does not turn the close into a reset that destroys the last
    #: reply (RFC 1122, 4.2.2.13).
    lingerTimeout = 5.0

    #: The peer, for logs: `127.0.0.1:50312`, `[::1]:50312`, `unix:pid=7,uid=0`;
    #: with the subject of its TLS certificate behind it, if it showed one.
    peer = ""
    #: The subject of the peer's verified TLS certificate: `CN=alice,O=example`.
    subject: str | None = None
    #: Lines received on this connection, refused ones included.
    lines = 0
    #: Lines of this connection answered with a refusal.
    refused = 0

    #: Where it comes from, as its listener knows it.
    address: IAddress | None = None

    # Defaults on the class keep an idle connection small.
    _socket: socket | None = None
    _framing: Framing | Telnet
    _replies = NONE_AWAITED
    _packets = False  # what is written is a packet
    _held = False  # the store has too much to do
    _unsent = False  # replies are queued: the peer does not read them
    _queued = 0  # bytes of them, about
    _weight = 0  # bytes held, as last told to the process's memory
    _pace: Pace | None = None
    _slowed: IDelayedCall | None = None
    _paused = False
    _advancing = False
    _ended = False  # the peer has half-closed
    _draining = False  # nothing more is read, what was received is answered
    _drained = 0  # reads since then, of what the system had received
    _closing = False  # no more lines are answered
    _shut = False  # the last reply is out
    _seen = -1  # lines at the last inspection
    _quietSince = 0.0
    _begunSince: float | None = None  # when a line was first found begun and not ended
    _handshaken = True  # or there is no TLS
    _lingering: IDelayedCall | None = None

    def answer(self, line: bytes) -> Answer:
        """Say what to reply to `line`, which comes without its ending.

        Called once for each line, in order. Return the reply without an ending
        (it gets the line's own) and without an LF, None for silence, or a coroutine or Deferred
        of either: the replies keep the order of the lines, whichever is ready
        first. What is still awaited when the peer has gone is cancelled. An
        exception is logged and answered with `error internal error`; the
        connection goes on.
        """
        raise NotImplementedError(f"{type(self).__name__} has no answer()")

    def answers(self, lines: list[bytes]) -> list[Answer] | Awaitable[Sequence[bytes | None]]:
        """Say what to reply to `lines`, which came together: the hook for whole batches.

        Called with 1 to `answerLimit` lines. Return one answer for each line, as
        from `answer`, in a list, or a coroutine or Deferred of all the replies.
        """
        replies: list[Answer] = []
        for line in lines:
            try:
                replies.append(self.answer(line))
            except Exception:
                replies += self._failed(Failure(), 1)
            if self._closing:
                break
        return replies

    def detached(self, factory: Any) -> None:
        """Be made ready to answer datagrams, without a connection; called by the listener."""
        self.factory = factory
        self._shut = True

    def opened(self) -> None:
        """Called when the connection is there, before its first line."""

    def closed(self) -> None:
        """Called once when the connection has ended; nothing can be sent any more."""

    def inspect(self, now: float, idle: int, unfinished: int) -> None:
        """Refuse to hold a place for a peer that makes no use of it; 0 is no limit.

        Called every second. What counts is whole lines: neither bytes in between nor
        unread replies keep a connection open.
        """
        busy = self._replies.outstanding or self._lingering is not None
        if busy or self.lines != self._seen:
            self._seen, self._quietSince = self.lines, now
            self._begunSince = None
        quiet = now - self._quietSince
        if unfinished and not self._handshaken and quiet >= unfinished:
            self._give(f"no TLS handshake for {unfinished} seconds")
            return
        # What we don't read we can't call unfinished.
        if self._paused or self._shut or self._framing.startsLine:
            self._begunSince = None
        elif self._begunSince is None:
            self._begunSince = now
        elif unfinished and now - self._begunSince >= unfinished:
            self._give(f"unfinished line for {unfinished} seconds")
            return
        if idle and quiet >= idle:
            self._give(f"idle for {idle} seconds")

    def _give(self, reason: str) -> None:
        """Give up on the peer, which is told why, if it listens."""
        if self._unsent or self._shut or not self._handshaken:
            self._cut(reason)
            return
        self._refuse(Refusal(reason.encode(), LF))
        self.close()

    def _cut(self, reason: str) -> None:
        if self.factory.journal.admits("connections cut"):
            log.info("{peer} cut: {reason}", peer=self.peer, reason=reason)
        self.transport.abortConnection()

    def makeRoom(self, reason: str) -> None:
        """Give up all that is held, and end; the peer is told, if it reads."""
        self.factory.counters.overheld += 1
        listens = not self._unsent and self._handshaken and not self._shut
        if listens:
            # In the place of all replies that were due: they won't come.
            self._write(self._encoded([b"error " + reason.encode()], LF))
        self._shut = self._closing = True
        self._replies.cancel()
        if listens and not self._unsent:
            if self.factory.journal.admits("connections closed to make room"):
                log.info("{peer} closed: {reason}", peer=self.peer, reason=reason)
            self._close()
        else:
            self._cut(reason)
        self._empty()

    def tell(self, line: bytes) -> bool:
        """Send `line` though it answers none; it goes out at once, LF behind it.

        False means that nothing was sent, since the peer has not read what it was
        sent before, or has gone.

        :raises ValueError: `line` holds an LF.
        """
        if self._unsent or self._shut:
            return False
        self._write(self._encoded([line], LF))
        self._weigh()
        return True

    def keep(self, lines: list[bytes]) -> Deferred[None]:
        """Store `lines` in the service's store; fires when they are durable.

        Acknowledge them only then. Where it fails, with a StoreError, an answer that
        lets the error through becomes `error not stored: REASON`.

        :raises RuntimeError: The service has no store.
        """
        if self.factory.store is None:
            raise RuntimeError("this service has no store; start it with --store")
        kept: Deferred[None] = self.factory.store.append(self._batch(lines))
        self._holdIfFull()
        return kept

    def close(self) -> None:
        """Answer no further line; close the connection after the replies already due."""
        self._closing = True
        self._advance()

    def finish(self) -> None:
        """Answer the lines already received, the system's buffer included; then close."""
        self._draining = True
        if self._slowed is not None:
            self._slowed.cancel()
            self._slowed = None
        self._pause()
        self._advance()

    # What follows is called by the transport.

    def connectionMade(self) -> None:
        transport = self.transport
        if not self.peer:
            self.peer = named(transport.getPeer())
        self._packets = isinstance(transport, PacketServer)
        framing = Packets if self._packets and self.framing is Framer else self.framing
        self._framing = measured(framing(self.factory.lineLimit))
        self._socket = plainSocket(transport)
        if ISSLTransport.providedBy(transport):
            self._handshaken = False
        # Python gives an instance a whole dict, 0.7 kB, for an attribute that the first few
        # instances of its class did not have; every connection is inspected.
        self._seen, self._quietSince, self._begunSince = self._seen, self._quietSince, None
        if self._socket is None:
            transport.registerProducer(self, True)
        tune(transport)
        self.factory.joined(self)
        try:
            self.opened()
        except Exception:
            if self.factory.journal.admits("connections whose opened failed"):
                log.failure("{peer}: opened failed", escaped(Failure()), peer=self.peer)
            transport.abortConnection()

    def handshakeCompleted(self) -> None:
        """TLS is up, and the peer's certificate, if one was asked for, has been verified."""
        self._handshaken = True
        certificate = self.transport.getPeerCertificate()
        if certificate is not None:
            name = certificate.to_cryptography().subject.rfc4514_string()
            self.subject = ascii(name)[1:-1]
            self.peer = f"{self.peer} ({self.subject})"
            if self.factory.journal.admits("certificates shown"):
                log.info("{peer} has shown its certificate", peer=self.peer)

    def dataReceived(self, data: bytes) -> None:
        framing = self._framing
        if type(framing) is Framer:
            if COMMAND in data and self.telnet:
                first = not self.lines and framing.startsLine
                self._framing = framing = Telnet(framing, first=first)
            elif not (
                self._paused
                or self._unsent
                or self._closing
                or self._advancing
                or self._replies.outstanding
                or self.factory.admission.limits.lineRate
            ):
                # Nothing is due and nothing is in the way: half the time of what follows.
                lines = framing.whole(data)
                if lines is not None and len(lines) <= self.answerLimit:
                    self._advancing = True
                    try:
                        self._answer(lines, framing.ending)
                    finally:
                        self._advancing = False
                    outstanding = self._replies.outstanding
                    if (
                        self._unsent
                        or self._closing
                        or self._held
                        or outstanding >= self.answerLimit
                    ):
                        self._advance()
                    elif outstanding:
                        self._weigh()
                    return
        if not self._shut:
            try:
                framing.receive(data)
            except ValueError as problem:
                self._giveUp(problem)
            self._advance()

    def readConnectionLost(self) -> None:
        """The peer has half-closed: every reply still due goes out, then we close too."""
        self._ended = True
        if self._shut:
            self.transport.loseConnection()
        else:
            self._advance()

    def writeConnectionLost(self) -> None:
        """Our half is closed, by our own doing."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._unsent or self._replies.outstanding or isinstance(reason.value, ConnectionAborted):
            self.factory.counters.cut += 1
        self._shut = self._closing = True
        for waiting in (self._lingering, self._slowed):
            if waiting is not None:
                waiting.cancel()
        self._lingering = self._slowed = None
        self._replies.cancel()
        self._empty()
        self.factory.left(self, reason)
        self.closed()

    def pauseProducing(self) -> None:
        self._unsent = True
        self._queued = BUFFER_SIZE

    def resumeProducing(self) -> None:
        if not self._unsent:
            # A pull producer is asked at once, before there is anything unsent.
            return
        self._unsent = False
        self._queued = 0
        if self._socket is not None:
            self.transport.unregisterProducer()
        self._advance()
        below = getattr(self.transport, "transport", None)
        if below is not None and getattr(below, "disconnecting", False) and not self._shut:
            # TLS has failed, or Twisted's own was ended; the close waits for its producer.
            below.unregisterProducer()

    def stopProducing(self) -> None:
        """The connection is gone; connectionLost follows."""

    # The way from lines to replies.

    def _advance(self) -> None:
        """Answer what was received, as far as the peer reads and answers come back."""
        if self._advancing or self._shut:
            return
        self._advancing = True
        try:
            while not (self._unsent or self._closing or self._held):
                room = self.answerLimit - self._replies.outstanding
                if self.factory.lineRate and not self._draining and room > 0:
                    room = min(room, self._allowed())
                if room <= 0:
                    self._pause()
                    break
                try:
                    item = self._framing.take(room)
                except ValueError as problem:
                    self._giveUp(problem)
                    break
                if item is None:
                    if self._caughtUp():
                        continue
                    break
                if isinstance(item, Lines):
                    self._answer(item.lines, item.ending)
                elif isinstance(item, Refusal):
                    self._refuse(item)
                else:
                    self._put(item.data, 1)
            else:
                if not self._shut:
                    self._pause()
        finally:
            self._advancing = False
        if self._closing and not (self._unsent or self._replies.outstanding or self._shut):
            self._close()
        self._weigh()

    def _allowed(self) -> int:
        """Give how many lines may be taken now; if none, go on when one may."""
        reactor, rate = self.factory.reactor, self.factory.lineRate
        if self._pace is None:
            self._pace = Pace(rate, reactor.seconds(), self.lines)
        allowed = self._pace.allowed(rate, reactor.seconds(), self.lines)
        if allowed <= 0:
            if not self._framing.held:
                # Nobody waits; more may be read, and the end be seen.
                return 1
            if self._slowed is None:
                self.factory.counters.slowed += 1
                self._slowed = reactor.callLater(self._pace.wait, self._goOn)
        return allowed

    def _goOn(self) -> None:
        self._slowed = None
        self._advance()

    def _empty(self) -> None:
        """Hold nothing any more."""
        self._framing = Framer(0)
        self._queued = 0
        self._weigh()

    def _weigh(self) -> None:
        """Tell the process's memory what this connection holds, if that has changed."""
        held = self._framing.held + self._replies.held + self._queued
        if held != self._weight:
            self._weight = held
            self.factory.memory.hold(self, held)

    def _caughtUp(self) -> bool:
        """All lines have been taken; say whether more was received thereupon."""
        if self._draining and not self._ended and self._readRest():
            return True
        if self._ended:
            torn = self._framing.finish()
            if torn is not None:
                self._refuse(torn)
            self._closing = True
        elif self._draining:
            self._closing = True
        elif self._paused:
            self._paused = False
            self.transport.resumeProducing()
        return False

    def _readRest(self) -> bool:
        """Read what has arrived already; say whether there was anything."""
        below = wire(self.transport)
        plain = below.getHandle() if self._packets else plainSocket(below)
        if plain is None or self._drained == (DRAIN_PACKETS if self._packets else DRAIN_READS):
            return False
        self._drained += 1
        try:
            data = plain.recv(LONGEST if self._packets else 65536)
        except OSError:
            return False
        if data:
            below.protocol.dataReceived(data)
        else:
            self._ended = True
        return True

    def _batch(self, lines: list[bytes]) -> Batch:
        """Make `lines` ready to be stored."""
        factory = self.factory
        return Batch(int(factory.reactor.seconds() * 1_000_000), self.peer, factory.listener, lines)

    def _holdIfFull(self) -> None:
        """Take no more lines while the store has too many."""
        store = self.factory.store
        if store.full and not self._held:
            self._held = True
            store.room().addCallback(self._released)

    def _released(self, _: None) -> None:
        self._held = False
        self._advance()

    def _giveUp(self, problem: ValueError) -> None:
        """The framing can make no more lines of the stream."""
        self._refuse(Refusal(str(problem).encode(), LF))
        self._closing = True
        self._pause()

    def _pause(self) -> None:
        if not (self._paused or self._ended):
            self._paused = True
            self.transport.pauseProducing()

    def _answer(self, lines: list[bytes], ending: bytes) -> None:
        """Take lines in, and have them answered."""
        count = len(lines)
        factory = self.factory
        self.lines += count
        factory.counters.lines += count
        if factory.verbose:
            self._logLines(lines)
        self._reply(lines, ending)

    def _reply(self, lines: list[bytes], ending: bytes) -> None:
        """Send the replies to lines, or give those that must wait their places."""
        count = len(lines)
        try:
            replies = self.answers(lines)
        except Exception:
            replies = self._failed(Failure(), count)
        if not isinstance(replies, list):
            self._wait(replies, count, sum(map(len, lines)), lambda given: given, ending)
            return
        try:
            # The usual batch is all bytes; encoding it is the quickest way to find out.
            data = self._framing.encode(replies, ending) if replies else b""  # type: ignore[arg-type]
        except (TypeError, ValueError):
            size = sum(map(len, lines)) // count
            for reply in replies:
                if reply is None or isinstance(reply, (bytes, bytearray)):
                    self.factory.counters.answered += 1
                    try:
                        data = self._encoded([reply], ending)
                    except ValueError:
                        data = self._encoded(self._failed(Failure(), 1), ending)
                    self._put(data, 1)
                else:
                    self._wait(reply, 1, size, lambda given: [given], ending)
        else:
            self.factory.counters.answered += count
            if self._replies.outstanding:
                self._put(data, count)
            elif data and not self._shut:
                self._write(data)

    def _logLines(self, lines: list[bytes]) -> None:
        for line in lines:
            log.info("{peer} line {line!r}", peer=self.peer, line=line)

    def _refuse(self, refusal: Refusal) -> None:
        self.lines += 1
        self.factory.counters.lines += 1
        self.factory.counters.answered += 1
        self._refused(1)
        # The rest are in the count that the log gives when the peer goes.
        if self.refused == 1 and self.factory.journal.admits("connections refused a line"):
            log.info("{peer} refused: {reason!r}", peer=self.peer, reason=refusal.reason)
        self._put(self._encoded([b"error " + refusal.reason], refusal.ending), 1)

    def _encoded(self, replies: Sequence[bytes | None], ending: bytes) -> bytes:
        given = [reply for reply in replies if reply is not None]
        return self._framing.encode(given, ending) if given else b""

    def _wait(
        self,
        answer: object,
        lines: int,
        size: int,
        given: Callable[[Any], Sequence[bytes | None]],
        ending: bytes,
    ) -> None:
        """Keep the place of the replies to `lines` lines of `size` bytes.

        `given` makes them of the answer.
        """

        def encoded(result: Any) -> bytes:
            data = self._encoded(given(result), ending)
            self.factory.counters.answered += lines
            return data

        def failed(failure: Failure) -> bytes:
            replies = self._failed(failure, lines)
            self.factory.counters.answered += len(replies)
            return self._encoded(replies, ending)

        self._places().wait(answer, lines, size, encoded, failed)

    def _places(self) -> Replies:
        """Give where replies keep their places until they are there."""
        if self._replies is NONE_AWAITED:
            self._replies = Replies(self._came)
        return self._replies

    def _put(self, data: bytes, lines: int) -> None:
        """Send the replies to `lines` lines behind all those before them."""
        if self._shut:
            # To make room while they were made.
            return
        if self._replies.outstanding:
            self._replies.put(data, lines)
            self._flush()
        elif data:
            self._write(data)

    def _came(self) -> None:
        """An awaited answer is there."""
        if not self._shut:
            self._flush()
            # Otherwise there is nothing that could not be answered before.
            if self._paused or self._ended or self._closing:
                self._advance()
            self._weigh()

    def _flush(self) -> None:
        ready = self._replies.take()
        if self._packets:
            for data in ready:
                self._write(data)
        elif ready:
            self._write(b"".join(ready))

    def _write(self, data: bytes) -> None:
        """Send at once, if nothing is queued and the transport is a plain socket."""
        plain = self._socket
        if plain is None or self._unsent:
            self.transport.write(data)
            if self._unsent:
                self._queued += len(data)
            return
        # It spares the two epoll_ctl calls and the turn of the reactor that
        # transport.write costs: 1.6 times as many replies in ping-pong.
        try:
            sent = plain.send(data)
        except OSError:
            # Either the system's buffer is full or the connection is broken;
            # the transport finds out which.
            sent = 0
        if sent < len(data):
            self.transport.write(data[sent:])
            # Asks us to resume when all is written; until then nothing is read.
            self.transport.registerProducer(self, False)
            self._unsent = True
            self._queued = len(data) - sent

    def _close(self) -> None:
        """Close after the last reply: lingering, if the peer may still be sending."""
        self._shut = True
        transport = self.transport
        if self._socket is None:
            transport.unregisterProducer()
            if not self._packets:
                # TLS ends when the peer has answered its end, which has to be read.
                transport.resumeProducing()
        if self._ended or not halfCloses(transport):
            # It takes as long as the peer takes to read.
            self._seen = -1
            transport.loseConnection()
            return
        transport.loseWriteConnection()
        transport.resumeProducing()
        self._lingering = self.factory.reactor.callLater(self.lingerTimeout, self._lingered)

    def _lingered(self) -> None:
        self._lingering = None
        self.transport.loseConnection()

    def _refused(self, lines: int) -> None:
        self.refused += lines
        self.factory.counters.refused += lines

    def _failed(self, failure: Failure, lines: int) -> list[Any]:
        if self._shut and failure.check(CancelledError):
            return []
        self._refused(lines)
        if failure.check(Refused):
            return [refusal(failure)] * lines
        if self.factory.journal.admits("an answer failed"):
            log.failure("{peer}: answer failed", escaped(failure), peer=self.peer)
        return [b"error internal error"] * lines
