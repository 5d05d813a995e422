"""The stream protocol to subclass: lines in, one reply each, in order."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.net.addresses import named
from sockservice.net.outbox import Outbox
from sockservice.net.seqpacket import PacketServer
from sockservice.net.transports import Transport, tune
from sockservice.server.activity import Activity
from sockservice.server.answers import Answer, Said, Told, escaped
from sockservice.server.exchange import Exchange
from sockservice.server.intake import Intake
from sockservice.server.phase import CLOSING, DRAINING, SHUT
from sockservice.wire.body import Expecting
from sockservice.wire.chunks import Packets
from sockservice.wire.framer import Framer
from sockservice.wire.framing import LF, Framing
from sockservice.wire.measured import measured
from sockservice.wire.telnet import COMMAND, Telnet

if TYPE_CHECKING:
    from sockservice.server.factory import LineFactory

log = Logger()


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class LineServer(Exchange):
    """Serve lines: override `answer`, and `answers` where speed asks for it.

    One line in, one reply out, in order. The rules of the wire are in
    docs/protocol.md, the ways of a line in docs/architecture.md. Built by a
    :class:`~sockservice.server.factory.LineFactory`, which holds the settings.
    """

    #: What built it and holds its settings.
    factory: "LineFactory"
    #: Twisted's, for what is not said here; what is sent on it stands in no order with replies.
    transport: Transport  # type: ignore[assignment]  # is never None once connected

    #: The reply to every line, for a protocol that looks at none: it stands for an `answer`
    #: that returns it, once the line is durable where the service has a store.
    acknowledgement: bytes | None = None
    #: Whether it needs a store: then the service does not start without one.
    stores = False
    #: Whether it needs a store that keeps sessions.
    sessions = False
    #: What lines end in that answer none: those of `tell`, and last words.
    ending = LF
    #: Whether a first line that is an HTTP request is a line like any other. Else the
    #: connection is refused: any web page could have sent it.
    http = False
    #: Most lines taken from one connection and not yet answered: 1000 unanswered
    #: Deferreds are about half a megabyte. Beyond it the connection isn't read.
    answerLimit = 1000
    #: Makes what cuts the stream into lines; called with the line limit for each connection.
    framing: Callable[[int], Framing] = Framer
    #: Whether telnet commands are looked for and taken out of the lines, where the framing
    #: is one of text.
    telnet = True
    #: Whether it serves datagram endpoints as well, each datagram as a line: then
    #: one instance answers all peers with `answer`, `peer` is that of the datagram,
    #: `close` does nothing and `tell` returns False.
    datagrams = False
    #: For those with an `acknowledgement`: whether a refusal is the last reply. It closes the
    #: connection, and no line behind it is taken or answered.
    refusalEnds = False
    #: Seconds that a connection closed from this side goes on reading, so that unread input
    #: does not turn the close into a reset that destroys the last reply (RFC 1122, 4.2.2.13).
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

    #: Whose connection it is, as limits count: an address, an IPv6 /64, a UNIX user.
    source: str | None = None

    _counts = False  # nobody wants the lines themselves

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        own = cls.answer is not LineServer.answer or cls.answers is not LineServer.answers
        cls._acknowledges = cls.acknowledgement is not None and not own
        cls._lone = cls.dataReceived is LineServer.dataReceived

    def answer(self, line: bytes) -> Answer:
        """Return the reply to `line`, which comes without its ending.

        Called once for each line, in order. Return the reply without an ending (it gets the
        line's own) and without an LF, a list of several such lines, None for silence, or a
        coroutine or Deferred of any of these: the replies keep the order of the lines. Or
        return an async iterator: each line it gives is sent in the reply's place, the next
        asked for when the peer has read it. What is awaited when the peer goes is cancelled.
        An exception is logged and answered with `error internal error`; then it goes on.
        """
        raise NotImplementedError(f"{type(self).__name__} has no answer()")

    def answers(self, lines: list[bytes]) -> list[Answer] | Awaitable[Sequence[Said]]:
        """Return the replies to `lines`, which came together: the hook for whole batches.

        Called with 1 to `answerLimit` lines. Return one answer for each line, as
        from `answer`, in a list, or a coroutine or Deferred of all the replies.
        """
        if self._acknowledges:
            return [self.acknowledgement] * len(lines)
        replies: list[Answer] = []
        for line in lines:
            try:
                replies.append(self.answer(line))
            except Exception:
                replies += self._failed(Failure(), 1)
            if self._swerved:
                if self._told:
                    told, self._told = self._told, ()
                    replies[-1:] = [Told(told, *replies[-1:])]  # type: ignore[list-item]
                if self._phase >= CLOSING:
                    break
                self._swerved = False
        return replies

    def detached(self, factory: Any) -> None:
        """Prepare to answer datagrams, without a connection; called by the listener."""
        self.factory = factory
        self._phase = SHUT
        # Nothing comes in here; but a store may be full.
        self._intake = Intake(None, Framer(factory.lineLimit))

    def opened(self) -> None:
        """Called when the connection is there, before its first line."""

    def closed(self) -> None:
        """Called once when the connection has ended; nothing can be sent any more."""

    def tell(self, line: bytes) -> bool:
        """Send `line` though it answers none; it goes out at once, `ending` behind it.

        Called while `answer` or `answers` runs, it goes out before the reply that these
        return, in its place. False means that nothing was sent, since the peer has not read
        what it was sent before (await `ready` then), or has gone.

        :raises ValueError: The framing can't write `line`: it holds an LF.
        """
        if self._phase == SHUT:
            return False
        framing = self._intake.framing
        if self._advancing:
            if framing.stateless:
                framing.encode([line], self.ending)
            self._told = [*self._told, line]
            self._swerved = True
            return True
        if self._outbox.unsent:
            return False
        self._outbox.write(framing.encode([line], self.ending))
        self._weigh()
        return True

    def expect(self, size: int) -> Deferred[bytes]:
        """Take the next `size` bytes of the stream as they are, a body; fires with them.

        To be called before the answer is there to the line in front of the body. Fails with
        :class:`~sockservice.errors.Refused` when the connection ends before: the peer half-closes,
        sends nothing of it for the line timeout, or the service stops.

        :raises RuntimeError: `answerLimit` is not 1, so that what is behind the line may
            have been taken for lines already; or another body is awaited.
        """
        if self.answerLimit != 1:
            raise RuntimeError("expect() needs a class with answerLimit = 1")
        if self._body is not None:
            raise RuntimeError("another body is expected already")
        body: Deferred[bytes] = Deferred()
        self._body = body
        intake = self._intake
        intake.framing = Expecting(intake.framing, size, self._unfinished)
        self._advance()
        return body

    def startTLS(self, tls: Any) -> None:
        """Go on in TLS once the reply is out to the line that is being answered.

        `tls` is a :class:`~sockservice.net.tls.server.Wrapping`. What the peer sent behind
        the line without waiting for the reply could be another's, so it ends the
        connection (CVE-2011-0411).

        :raises RuntimeError: `answerLimit` is not 1, or TLS is spoken already.
        """
        if self.answerLimit != 1:
            raise RuntimeError("startTLS() needs a class with answerLimit = 1")
        if self._upgrade is not None or ISSLTransport.providedBy(self.transport):
            raise RuntimeError("TLS is spoken already")
        self._upgrade = tls

    def keep(self, lines: list[bytes]) -> Deferred[None]:
        """Store `lines` in the service's store; fires when they are durable.

        Acknowledge them only then. Where it fails, with a StoreError, an answer that
        lets the error through becomes `error not stored: REASON` or `error unknown: REASON`.

        :raises RuntimeError: The service has no store.
        """
        if self.factory.store is None:
            raise RuntimeError("this service has no store; start it with --store")
        kept: Deferred[None] = self.factory.store.append(self._batch(lines))
        self._waitIfFull()
        return kept

    def close(self) -> None:
        """Answer no further line; close the connection after the replies already due."""
        self._enter(CLOSING)
        self._advance()

    # What follows is called by the factory, for all its connections.

    def finish(self) -> None:
        """Answer the lines already received, the system's buffer included; then close."""
        self._enter(DRAINING)
        self._intake.hasten()
        self._intake.pause()
        self._advance()

    # What follows is called by the transport.

    def connectionMade(self) -> None:
        transport, factory = self.transport, self.factory
        if self._upgrade is not None:
            self._outbox = Outbox(self.transport, self.flushed)
            self._intake.moved(transport)
            self._handshaken = False
            return
        if not self.peer:
            self.peer = named(transport.getPeer())
        framing = self.framing
        if isinstance(transport, PacketServer):
            self._packets = True
            framing = Packets if framing is Framer else framing
        self._intake = Intake(transport, measured(framing(factory.lineLimit)))
        self._outbox = Outbox(self.transport, self.flushed)
        self._activity = Activity(factory.reactor.seconds())
        if self._acknowledges and factory.store is None and not factory.verbose:
            self._counts = LF not in (self.acknowledgement or b"")
        if ISSLTransport.providedBy(transport):
            self._handshaken = False
        tune(transport)
        factory.joined(self)
        try:
            self.opened()
        except Exception:
            if factory.journal.admits("connections whose opened failed"):
                log.failure("{peer}: opened failed", escaped(Failure()), peer=self.peer)
            transport.abortConnection()

    def handshakeCompleted(self) -> None:
        """TLS is up, and the peer's certificate, if one was asked for, has been verified."""
        self._handshaken = True
        transport: Any = self.transport
        certificate = transport.getPeerCertificate()
        if certificate is not None:
            name = certificate.to_cryptography().subject.rfc4514_string()
            self.subject = ascii(name)[1:-1]
            self.peer = f"{self.peer} ({self.subject})"
            if self.factory.journal.admits("certificates shown"):
                log.info("{peer} has shown its certificate", peer=self.peer)

    def dataReceived(self, data: bytes) -> None:
        try:
            if self._first is not None:
                data = self._opens(data)
            intake = self._intake
            framing = intake.framing
            if COMMAND in data and framing.telnet and self.telnet:
                intake.framing = framing = Telnet(
                    framing, first=not self.lines and framing.startsLine
                )
            elif not (
                self._outbox.unsent
                or self._phase >= CLOSING
                or self.factory.admission.limits.lineRate
            ):
                # Nothing is in the way of these lines but, perhaps, earlier ones.
                if self._counts and self.lines:
                    # Counting lines is three times as fast as cutting them.
                    count = framing.count(data)
                    if count:
                        self._acknowledge(count, framing)
                        return
                elif not (intake.paused or self._advancing or self._replies.outstanding):
                    # Nothing is kept and nothing is due: it spares receive and take, half the
                    # time of a lone line.
                    lines = framing.whole(data)
                    if lines is not None and len(lines) <= self.answerLimit:
                        self._answerWhole(lines, framing.ending)
                        return
            if self._phase != SHUT:
                try:
                    framing.receive(data)
                except Exception:
                    self._giveUp(Failure())
                self._advance()
        except MemoryError:
            self.starved()

    def readConnectionLost(self) -> None:
        """The peer has half-closed: every reply still due goes out, then we close too."""
        self._intake.ended = True
        if self._first:
            self.dataReceived(b"")
        if self._phase == SHUT:
            self.transport.loseConnection()
        else:
            self._advance()

    def writeConnectionLost(self) -> None:
        """Our half is closed, by our own doing."""

    def flushed(self) -> None:
        """The peer has read all that was sent; called by the outbox."""
        self._wake()
        self._advance()
        below: Any = getattr(self.transport, "transport", None)
        if getattr(below, "disconnecting", False) and self._phase != SHUT:
            # TLS has failed, or Twisted's own was ended; the close waits for its producer.
            below.unregisterProducer()
