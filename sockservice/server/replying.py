"""The sending half of a connection: replies framed and in order, and refusals."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.errors import Refused
from sockservice.limits.memory import NO_MEMORY
from sockservice.net.linger import Linger
from sockservice.net.outbox import Outbox
from sockservice.server.activity import Activity
from sockservice.server.answers import escaped, reason, said, why
from sockservice.server.intake import Intake
from sockservice.server.phase import CLOSING, SERVING, SHUT
from sockservice.server.replies import NONE_AWAITED, Due, Ready, Replies
from sockservice.server.standing import Standing
from sockservice.wire.framer import Framer
from sockservice.wire.framing import LF, Framing

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
    refusalEnds = False
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

    @property
    def standing(self) -> Standing:
        """How it stands, as an operator is told."""
        return Standing(
            self.peer,
            round(self.lasted, 1),
            self.lines,
            self.refused,
            self._weight,
            self._replies.outstanding,
        )

    def refusal(self, reason: str) -> bytes:
        """Return the line that tells the peer `reason`: in place of a reply, or as the last one.

        To be overridden by protocols that say such things in their own way. It may be
        called before there is a connection, for peers that are rejected.
        """
        return b"error " + reason.encode()

    def flushed(self) -> None:
        """The peer has read all that was sent."""
        raise NotImplementedError

    def starved(self) -> None:
        """End, for the process has no memory for what this connection needs."""
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
            try:
                self._sendReady()
            except MemoryError:
                self.starved()
                return
            self._goOn()

    def _goOn(self) -> None:
        """Replies have been sent: take what they were in the way of."""
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
        lines = self._refused(lines, why(failure))
        if failure.check(Refused):
            return [self._refusal(reason(failure))] * lines
        if failure.check(MemoryError):
            self.factory.counters.starved += 1
            return [self._refusal(NO_MEMORY)] * lines
        if self.factory.journal.admits("an answer failed"):
            log.failure("{peer}: answer failed", escaped(failure), peer=self.peer)
        return [self._refusal("internal error")] * lines

    def _refused(self, lines: int, why: str) -> int:
        """Count lines that are refused; return how many refusals are sent."""
        self.refused += lines
        self.factory.counters.refused += lines
        if lines:
            self.factory.counters.reason("refused", why, lines)
        if not (lines and self.refusalEnds):
            return lines
        # At once: what was received behind it must not be taken any more.
        self._enter(CLOSING)
        return 1

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

    def _weigh(self) -> None:
        """Tell the process's memory what this connection holds, if that has changed."""
        held = self._intake.framing.held + self._replies.held + self._outbox.queued
        if held != self._weight:
            self._weight = held
            self.factory.memory.hold(self, held)
