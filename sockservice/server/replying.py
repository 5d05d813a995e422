"""The sending half of a connection: replies framed and in order, refusals, and the close."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.errors import Refused
from sockservice.net.linger import Linger
from sockservice.net.outbox import Outbox
from sockservice.net.transports import halfCloses
from sockservice.server.activity import Activity
from sockservice.server.answers import escaped, reason, said
from sockservice.server.intake import Intake
from sockservice.server.phase import CLOSING, SERVING, SHUT
from sockservice.server.replies import NONE_AWAITED, Due, Ready, Replies
from sockservice.wire.framer import Framer
from sockservice.wire.framing import LF, Framing
from sockservice.wire.measured import measured

log = Logger()


class Replying(Protocol):
    """What a connection sends: a LineServer's lower half.

    `Replies` holds the places of what is awaited, `Outbox` what the peer has not read.
    """

    factory: Any
    transport: Any
    peer = ""
    ending = LF
    framing: Callable[[int], Framing] = Framer
    lingerTimeout = 5.0
    lines = 0
    refused = 0

    # Defaults on the class, and what is made when it is needed, keep an idle connection small.
    _phase: int = SERVING
    _intake: Intake
    _outbox: Outbox
    _activity: Activity
    _replies = NONE_AWAITED
    _waiting: Sequence[Deferred[None]] = ()  # for the peer to read
    _linger: Linger | None = None
    _handshaken = True  # or there is no TLS
    _swerved = False  # a line that is answered tells others, or ends the connection
    _packets = False  # what is written is a packet
    _weight = 0  # bytes held, as last told to the process's memory

    @property
    def lasted(self) -> float:
        """Seconds since the connection was made."""
        return float(self.factory.reactor.seconds() - self._activity.since)

    def refusal(self, reason: str) -> bytes:
        """Return the line that tells the peer `reason`: in place of a reply, or as the last one.

        To be overridden by protocols that say such things in their own way. It may be
        called before there is a connection, for peers that are rejected.
        """
        return b"error " + reason.encode()

    def flushed(self) -> None:
        """The peer has read all that was sent."""
        raise NotImplementedError

    def _advance(self) -> None:
        """Answer what was received, if nothing is in the way any more."""
        raise NotImplementedError

    def _enter(self, phase: int) -> None:
        if phase > self._phase:
            self._phase = phase
            self._swerved = True

    # Replies go out.

    def _settle(self, replies: list[bytes], lines: int, ending: bytes) -> None:
        """Send the replies to `lines` lines behind all those before them."""
        counters = self.factory.counters
        counters.answered += lines
        if not replies:
            counters.silent += lines
        self._put(replies, lines, ending)

    def _put(self, ready: Ready, lines: int, ending: bytes = b"") -> None:
        if self._phase == SHUT:
            # To make room while they were made.
            return
        if self._replies.outstanding:
            self._replies.put(ready, lines, ending)
            self._sendReady()
        else:
            data = ready if isinstance(ready, bytes) else self._framed(ready, ending, lines)
            if data:
                self._outbox.write(data)

    def _framed(self, replies: list[bytes], ending: bytes, lines: int) -> bytes:
        """Return the bytes to send for the replies to `lines` lines."""
        if not replies:
            return b""
        try:
            return self._intake.framing.encode(replies, ending)
        except Exception:
            return self._refusals(self._failed(Failure(), lines), ending)

    def _refusals(self, refusals: list[bytes], ending: bytes) -> bytes:
        """Return the bytes of refusals; a framing that fails at that, too, ends the connection."""
        try:
            return self._intake.framing.encode(refusals, ending) if refusals else b""
        except Exception:
            if self.factory.journal.admits("a framing failed"):
                log.failure("{peer}: framing failed", escaped(Failure()), peer=self.peer)
            self.transport.abortConnection()
            return b""

    def _places(self) -> Replies:
        """Return where replies keep their places until they are there."""
        if self._replies is NONE_AWAITED:
            self._replies = Replies(self._came, self._framed)
        return self._replies

    def _wait(
        self,
        answer: object,
        lines: int,
        size: int,
        ending: bytes,
        given: Callable[[Any], list[bytes]] = said,
    ) -> None:
        """Keep the place of the replies to `lines` lines of `size` bytes; `given` reads them."""

        def made(result: Any) -> Ready:
            replies = given(result)
            self.factory.counters.answered += lines
            self.factory.counters.silent += max(0, lines - len(replies))
            return replies

        places = self._places()
        places.wait(places.expect(lines, size, ending), answer, made, self._late)

    def _stream(self, lines: AsyncIterator[bytes], size: int, ending: bytes) -> None:
        """Send what an iterator gives in the place of one reply, as the peer reads."""
        places = self._places()
        due = places.expect(1, size, ending)

        def ended(_: None) -> Ready:
            self.factory.counters.answered += 1
            return b""

        places.wait(due, self._streamed(lines, due), ended, self._late)

    async def _streamed(self, lines: AsyncIterator[bytes], due: Due) -> None:
        try:
            await self._replies.turn(due)
            async for line in lines:
                self._outbox.write(self._framed(said(line), due.ending, 0))
                await self.ready()
        finally:
            close = getattr(lines, "aclose", None)
            if close is not None:
                await close()

    def _late(self, failure: Failure, lines: int) -> Ready:
        """Return the replies to lines whose awaited answer has failed."""
        replies = self._failed(failure, lines)
        self.factory.counters.answered += len(replies)
        return replies

    def _came(self) -> None:
        """An awaited answer is there."""
        if self._phase != SHUT:
            self._sendReady()
            # Otherwise there is nothing that could not be answered before.
            if self._intake.paused or self._intake.ended or self._phase > SERVING:
                self._advance()
            self._weigh()

    def _sendReady(self) -> None:
        """Send the replies that no earlier one is awaited for."""
        ready = self._replies.take()
        if self._packets:
            for data in ready:
                self._outbox.write(data)
        elif ready:
            self._outbox.write(b"".join(ready))
        if self._replies.outstanding:
            self._replies.begin()

    def ready(self) -> Deferred[None]:
        """Return a Deferred that fires when the peer has read what it was sent, or is gone.

        Await it before each `tell` of many: then none of them is refused while the peer is there.
        """
        ready: Deferred[None] = Deferred(lambda _: None)
        if self._phase == SHUT or not self._outbox.unsent:
            ready.callback(None)
        else:
            self._waiting = [*self._waiting, ready]
        return ready

    def _wake(self) -> None:
        """Fire what `ready` has returned."""
        waiting, self._waiting = self._waiting, ()
        for ready in waiting:
            if not ready.called:
                ready.callback(None)

    # Refusals.

    def _failed(self, failure: Failure, lines: int) -> list[bytes]:
        """Count lines that could not be answered, and return the replies to them."""
        if self._phase == SHUT and failure.check(CancelledError):
            return []
        self._refused(lines)
        if failure.check(Refused):
            return [self._refusal(reason(failure))] * lines
        if self.factory.journal.admits("an answer failed"):
            log.failure("{peer}: answer failed", escaped(failure), peer=self.peer)
        return [self._refusal("internal error")] * lines

    def _refused(self, lines: int) -> None:
        self.refused += lines
        self.factory.counters.refused += lines

    def _refusal(self, reason: str) -> bytes:
        """Return what `refusal` does, whoever wrote it."""
        try:
            return self.refusal(reason)
        except Exception:
            if self.factory.journal.admits("a refusal failed"):
                log.failure("{peer}: refusal failed", escaped(Failure()), peer=self.peer)
            return Replying.refusal(self, reason)

    def _farewell(self, reason: str) -> bytes:
        """Return the bytes of a last line that tells the peer why its connection ends."""
        return self._refusals([self._refusal(reason)], self.ending)

    # The end.

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
        complaint = self._activity.complaint(
            now,
            self.lines,
            busy=bool(self._replies.outstanding) or self._linger is not None,
            begun=self._handshaken and self._phase != SHUT and self._intake.begun,
            idle=idle,
            unfinished=unfinished,
        )
        if not self._handshaken and unfinished and self._activity.quiet(now) >= unfinished:
            complaint = f"no TLS handshake for {unfinished} seconds"
        if complaint is not None:
            self.factory.counters.timedOut += 1
            self._dismiss(complaint)

    def makeRoom(self, reason: str) -> None:
        """Drop all that is held, and close; the peer is told the reason, if it reads."""
        self.factory.counters.overheld += 1
        listens = self._listens
        if listens:
            # In the place of all replies that were due: they won't come.
            self._outbox.write(self._farewell(reason))
        self._enter(SHUT)
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

    def _weigh(self) -> None:
        """Tell the process's memory what this connection holds, if that has changed."""
        held = self._intake.framing.held + self._replies.held + self._outbox.queued
        if held != self._weight:
            self._weight = held
            self.factory.memory.hold(self, held)


def batch(answer: Sequence[bytes | list[bytes] | None]) -> list[bytes]:
    """Return the lines that the answers to several lines are.

    :raises TypeError: One is no bytes.
    """
    return [line for each in answer for line in said(each)]
