"""The way from lines to replies: take lines in, have them answered, send replies in order."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.errors import Refused, StoreError
from sockservice.net.linger import Linger
from sockservice.net.transports import halfCloses
from sockservice.server.activity import Activity
from sockservice.server.answers import Answer, escaped, refusal
from sockservice.server.intake import Intake
from sockservice.server.outbox import Outbox
from sockservice.server.phase import CLOSING, DRAINING, SERVING, SHUT, Phase
from sockservice.server.replies import NONE_AWAITED, Due, Replies
from sockservice.store.engine import Batch
from sockservice.wire.framer import Framer
from sockservice.wire.framing import LF, Framing, Lines, Refusal

log = Logger()


class Exchange(Protocol):
    """One connection's lines, answers and replies; a LineServer is one.

    `Intake` holds what was received, `Replies` the places of what is awaited, `Outbox` what
    the peer has not read. Lines are taken as long as nothing waits in any of them.
    """

    factory: Any
    transport: Any
    acknowledgement: bytes | None = None
    answerLimit = 1000
    lingerTimeout = 5.0
    peer = ""
    lines = 0
    refused = 0

    # Defaults on the class, and what is made when it is needed, keep an idle connection small.
    _phase: Phase = SERVING
    _intake: Intake
    _replies = NONE_AWAITED
    _outbox: Outbox
    _activity: Activity
    _linger: Linger | None = None
    _packets = False  # what is written is a packet
    _acknowledges = False  # `acknowledgement` is all there is to say
    _advancing = False
    _weight = 0  # bytes held, as last told to the process's memory

    def answers(self, lines: list[bytes]) -> list[Answer] | Awaitable[Sequence[bytes | None]]:
        """Return the replies to `lines`; see LineServer."""
        raise NotImplementedError

    def _enter(self, phase: Phase) -> None:
        if phase > self._phase:
            self._phase = phase

    # Lines come in.

    def _advance(self) -> None:
        """Answer what was received, as far as the peer reads and answers come back."""
        if self._advancing or self._phase is SHUT:
            return
        intake = self._intake
        self._advancing = True
        try:
            while not (self._outbox.unsent or self._phase >= CLOSING or intake.full):
                room = self.answerLimit - self._replies.outstanding
                if room > 0 and self.factory.lineRate and self._phase is SERVING:
                    room = min(room, self._allowed())
                if room <= 0:
                    intake.pause()
                    break
                try:
                    item = intake.framing.take(room)
                except ValueError as problem:
                    self._giveUp(problem)
                    break
                if item is None:
                    if self._caughtUp():
                        continue
                    break
                if isinstance(item, Lines):
                    self._take(item.lines, item.ending)
                elif isinstance(item, Refusal):
                    self._refuse(item)
                else:
                    self._put(item.data, 1)
            else:
                if self._phase is not SHUT:
                    intake.pause()
        finally:
            self._advancing = False
        if self._phase is CLOSING and not (self._outbox.unsent or self._replies.outstanding):
            self._end()
        self._weigh()

    def _allowed(self) -> int:
        """Return how many lines may be taken now; if none, go on when one may."""
        factory = self.factory
        rate, clock = factory.lineRate, factory.reactor
        return self._intake.allowed(rate, self.lines, clock, self._advance, factory.counters.slow)

    def _caughtUp(self) -> bool:
        """All lines have been taken; return whether more was received thereupon."""
        intake = self._intake
        draining = self._phase is DRAINING
        if draining and not intake.ended and intake.readRest(self._packets):
            return True
        if intake.ended:
            torn = intake.framing.finish()
            if torn is not None:
                self._refuse(torn)
        if draining or intake.ended:
            self._enter(CLOSING)
        else:
            intake.resume()
        return False

    def _giveUp(self, problem: ValueError) -> None:
        """The framing can make no more lines of the stream."""
        self._refuse(Refusal(str(problem).encode(), LF))
        self._enter(CLOSING)
        self._intake.pause()

    # The ways of a line. They differ in what they spare, never in what the peer gets, what is
    # counted, or in which order hooks are called.

    def _acknowledge(self, count: int, framing: Framing) -> None:
        """Count lines that nobody looks at, and send their replies."""
        self.lines += count
        counters = self.factory.counters
        counters.lines += count
        counters.answered += count
        self._outbox.write((self.acknowledgement + framing.ending) * count)  # type: ignore[operator]
        if self._outbox.unsent:
            self._advance()
        elif self._weight or framing.begun:
            self._weigh()

    def _answerWhole(self, lines: list[bytes], ending: bytes) -> None:
        """Answer lines that came in one read, when nothing was kept and nothing due."""
        self._advancing = True
        try:
            self._take(lines, ending)
        finally:
            self._advancing = False
        outstanding = self._replies.outstanding
        if (
            self._outbox.unsent
            or self._phase >= CLOSING
            or self._intake.full
            or outstanding >= self.answerLimit
        ):
            self._advance()
        elif outstanding:
            self._weigh()

    def _take(self, lines: list[bytes], ending: bytes) -> None:
        """Count lines, and have them answered."""
        count = len(lines)
        factory = self.factory
        self.lines += count
        factory.counters.lines += count
        if factory.verbose:
            for line in lines:
                log.info("{peer} line {line!r}", peer=self.peer, line=line)
        if self._acknowledges and factory.store is not None:
            self._keepAll(lines, ending)
        else:
            self._reply(lines, ending)

    def _keepAll(self, lines: list[bytes], ending: bytes) -> None:
        """Acknowledge lines when they are durable.

        What `answers` and `keep` would do, without a Deferred: half the time of a lone line.
        """
        due = self._places().expect(len(lines), sum(map(len, lines)))
        self.factory.store.put(self._batch(lines), partial(self._stored, due, ending))
        self._waitIfFull()

    def _stored(self, due: Due, ending: bytes, problem: StoreError | None) -> None:
        """Lines are durable, or why they aren't."""
        if self._phase is SHUT:
            return
        count = due.lines
        replies: list[Any] = [self.acknowledgement] * count
        if problem is not None:
            replies = self._failed(Failure(problem), count)
        self.factory.counters.answered += count
        self._replies.fill(due, self._encoded(replies, ending))
        self._came()

    def _reply(self, lines: list[bytes], ending: bytes) -> None:
        """Send the replies to lines, or keep the places of those that are awaited."""
        count = len(lines)
        try:
            replies = self.answers(lines)
        except Exception:
            replies = self._failed(Failure(), count)
        if not isinstance(replies, list):
            self._wait(replies, count, sum(map(len, lines)), lambda given: given, ending)
            return
        framing: Any = self._intake.framing
        if framing.stateless:
            # The usual batch is all bytes; encoding it is the quickest way to find out.
            try:
                data = framing.encode(replies, ending) if replies else b""
            except (TypeError, ValueError):
                pass  # Some are awaited, or can't be framed.
            else:
                self.factory.counters.answered += count
                if self._replies.outstanding:
                    self._put(data, count)
                elif data and self._phase is not SHUT:
                    self._outbox.write(data)
                return
        self._replyEach(replies, sum(map(len, lines)) // count, ending)

    def _replyEach(self, replies: list[Any], size: int, ending: bytes) -> None:
        """Send replies to lines of `size` bytes of which some are no bytes, or can't be framed."""
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

    def _refuse(self, refusal: Refusal) -> None:
        self.lines += 1
        self.factory.counters.lines += 1
        self.factory.counters.answered += 1
        self._refused(1)
        # The rest are in the count that the log gives when the peer goes.
        if self.refused == 1 and self.factory.journal.admits("connections refused a line"):
            log.info("{peer} refused: {reason!r}", peer=self.peer, reason=refusal.reason)
        self._put(self._encoded([b"error " + refusal.reason], refusal.ending), 1)

    def _refused(self, lines: int) -> None:
        self.refused += lines
        self.factory.counters.refused += lines

    def _failed(self, failure: Failure, lines: int) -> list[Any]:
        """Return the replies to lines that could not be answered."""
        if self._phase is SHUT and failure.check(CancelledError):
            return []
        self._refused(lines)
        if failure.check(Refused):
            return [refusal(failure)] * lines
        if self.factory.journal.admits("an answer failed"):
            log.failure("{peer}: answer failed", escaped(failure), peer=self.peer)
        return [b"error internal error"] * lines

    # Lines are stored.

    def _batch(self, lines: list[bytes]) -> Batch:
        """Return `lines` ready to be stored."""
        factory = self.factory
        return Batch(int(factory.reactor.seconds() * 1_000_000), self.peer, factory.listener, lines)

    def _waitIfFull(self) -> None:
        """Take no more lines while the store has too many."""
        store = self.factory.store
        if store.full and not self._intake.full:
            self._intake.full = True
            store.room().addCallback(self._released)

    def _released(self, _: None) -> None:
        self._intake.full = False
        self._advance()

    # Replies go out.

    def _encoded(self, replies: Sequence[Any], ending: bytes) -> bytes:
        given = [reply for reply in replies if reply is not None]
        return self._intake.framing.encode(given, ending) if given else b""

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
        """Return where replies keep their places until they are there."""
        if self._replies is NONE_AWAITED:
            self._replies = Replies(self._came)
        return self._replies

    def _put(self, data: bytes, lines: int) -> None:
        """Send the replies to `lines` lines behind all those before them."""
        if self._phase is SHUT:
            # To make room while they were made.
            return
        if self._replies.outstanding:
            self._replies.put(data, lines)
            self._sendReady()
        elif data:
            self._outbox.write(data)

    def _came(self) -> None:
        """An awaited answer is there."""
        if self._phase is not SHUT:
            self._sendReady()
            # Otherwise there is nothing that could not be answered before.
            if self._intake.paused or self._intake.ended or self._phase >= CLOSING:
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

    # The end.

    def _end(self) -> None:
        """Close after the last reply: lingering, if the peer may still be sending."""
        self._phase = SHUT
        transport = self.transport
        self._outbox.end()
        if self._outbox.streams and not self._packets:
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
