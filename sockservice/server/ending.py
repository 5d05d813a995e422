"""The end of a connection: the last word to the peer, and the close behind it."""

from contextlib import suppress

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.errors import Refused
from sockservice.limits.memory import NO_MEMORY
from sockservice.net.linger import Linger
from sockservice.net.transports import halfCloses, wire
from sockservice.server.intake import Intake
from sockservice.server.phase import CLOSING, SHUT
from sockservice.server.replying import Replying
from sockservice.wire import opening
from sockservice.wire.body import Expecting
from sockservice.wire.framer import Framer
from sockservice.wire.measured import measured
from sockservice.wire.plurals import inSeconds

log = Logger()


class Ending(Replying):
    """How a connection ends from this side: after all replies, or told why before that."""

    #: Whose connection it is, as limits count: an address, an IPv6 /64, a UNIX user.
    source: str | None = None

    _body: Deferred[bytes] | None = None  # what `expect` has returned

    def closed(self) -> None:
        """Called once when the connection has ended."""
        raise NotImplementedError

    def unmade(self) -> None:
        """The connection could not be made; called by the port."""
        self._phase = SHUT
        self.factory.admission.left(self.source)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if "_activity" not in vars(self):
            self.unmade()
            return
        if (
            self._outbox.unsent
            or self._replies.outstanding
            or isinstance(reason.value, ConnectionAborted)
        ):
            self.factory.counters.cut += 1
        self._enter(SHUT)
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._intake.hasten()
        self._wake()
        self._outbox.end()
        self._replies.cancel()
        self._empty()
        self.factory.left(self, reason)
        self.closed()

    def _unfinished(self) -> None:
        """Tell who waits for a body that it will not come whole."""
        body, self._body = self._body, None
        if body is not None and not body.called:
            body.errback(Refused("the connection ended in the middle of a body"))

    def _end(self) -> None:
        """Close after the last reply: lingering, if the peer may still be sending."""
        self._enter(SHUT)
        transport = self.transport
        self._outbox.release()
        if self._outbox.plain is None and not self._packets:
            # TLS ends when the peer has answered its end, which has to be read.
            transport.resumeProducing()
        if self._intake.ended or not halfCloses(transport):
            # It takes as long as the peer takes to read.
            self._activity.restart()
            transport.loseConnection()
        else:
            clock, seconds = self.factory.reactor, self.lingerTimeout
            self._linger = Linger(transport, clock, seconds, self._lingered)

    def _lingered(self) -> None:
        self._linger = None
        self.transport.loseConnection()

    @property
    def _listens(self) -> bool:
        """Whether a last line would reach the peer now."""
        return self._handshaken and self._phase != SHUT and not self._outbox.unsent

    def _dismiss(self, reason: str) -> None:
        """Close behind the replies that are due, and a last line that says why."""
        if not self._listens:
            self._cut(reason)
            return
        if self.factory.journal.admits("connections closed"):
            log.info("{peer} refused: {reason}", peer=self.peer, reason=reason)
        self._put(self._farewell(reason), 0)
        self._enter(CLOSING)
        self._advance()

    def lastWord(self, reason: str) -> bytes:
        """Return the bytes that tell a peer, which has no connection yet, why it gets none."""
        self._intake = Intake(self.transport, measured(self.framing(self.factory.lineLimit)))
        return self._farewell(reason)

    def inspect(self, now: float, idle: int, unfinished: int) -> None:
        """Refuse and close the connection if it is idle, or its line unfinished, for too long.

        Called every second; the limits are in seconds, 0 is none.
        """
        framing = self._intake.framing
        if isinstance(framing, Expecting) and not self._intake.paused:
            # It is the peer that is waited for.
            busy = framing.stirs()
        else:
            busy = bool(self._replies.outstanding) or self._linger is not None
        complaint = self._activity.complaint(
            now,
            self.lines,
            busy=busy,
            begun=self._handshaken and self._phase != SHUT and self._intake.begun,
            idle=idle,
            unfinished=unfinished,
        )
        if not self._handshaken and unfinished and self._activity.quiet(now) >= unfinished:
            complaint = f"no TLS handshake for {inSeconds(unfinished)}"
        if complaint is not None:
            self.factory.counters.timedOut += 1
            self._dismiss(complaint)

    def makeRoom(self, reason: str) -> None:
        """Drop all that is held, and close; the peer is told the reason, if it reads."""
        self.factory.counters.overheld += 1
        self._drop(reason)

    def starved(self) -> None:
        """Drop all and close, for the process has no memory for what arrives or is sent.

        The peer is told, if it reads and there is memory for that. Those that hold the most
        make room.
        """
        if self._phase == SHUT:
            self.transport.abortConnection()
            return
        factory = self.factory
        factory.counters.starved += 1
        with suppress(Exception):
            # First of all, so that there may be memory for the rest.
            self._intake.framing.release()
        try:
            factory.memory.exhausted(factory.reactor.seconds())
            if self._phase != SHUT:
                self._drop(NO_MEMORY)
        except MemoryError:
            self._enter(SHUT)
            self.transport.abortConnection()

    def _drop(self, reason: str) -> None:
        listens = self._listens
        if listens:
            # In the place of all replies that were due: they won't come.
            self._outbox.write(self._farewell(reason))
        self._enter(SHUT)
        self._intake.pause()
        self._replies.cancel()
        if listens and not self._outbox.unsent:
            if self.factory.journal.admits("connections closed to make room"):
                log.info("{peer} refused: {reason}", peer=self.peer, reason=reason)
            self._end()
        else:
            self._cut(reason)
        self._empty()

    def _cut(self, reason: str) -> None:
        if self.factory.journal.admits("connections cut"):
            log.info("{peer} cut: {reason}", peer=self.peer, reason=reason)
        self.transport.abortConnection()

    def _empty(self) -> None:
        """Hold nothing any more."""
        self._intake.framing = Framer(0)
        self._outbox.queued = 0
        self._weigh()

    def notTLS(self) -> None:
        """The peer does not speak TLS, where that is spoken; called by the transport."""
        factory = self.factory
        factory.counters.mismatched += 1
        if factory.journal.admits("peers that do not speak TLS", 1):
            log.info("{peer} refused: {reason}", peer=self.peer, reason=opening.ONLY_TLS)
        self._enter(SHUT)
        below = wire(self.transport)
        self._outbox.release()
        below.write(self._farewell(opening.ONLY_TLS))
        if halfCloses(below):
            expired = below.abortConnection
            self._linger = Linger(below, factory.reactor, self.lingerTimeout, expired)
        else:
            below.loseConnection()
