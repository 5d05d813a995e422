"""The receiving half of a connection: take lines in, and have them answered."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import partial
from typing import Any

from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.errors import Refused
from sockservice.server.answers import Answer, Said, Told, batch, escaped, said
from sockservice.server.ending import Ending
from sockservice.server.lone import join
from sockservice.server.phase import CLOSING, DRAINING, SERVING, SHUT
from sockservice.server.replies import Due
from sockservice.store.engine import Batch
from sockservice.wire import opening
from sockservice.wire.escaping import printable
from sockservice.wire.framing import LF, Body, Framing, Lines, Refusal

# Half the time of the class.
_batch = tuple.__new__

log = Logger()


class Exchange(Ending):
    """One connection's lines, and who answers them; a LineServer is one.

    `Intake` holds what was received. Lines are taken as long as nothing waits there, among
    the replies, or to be sent.
    """

    acknowledgement: bytes | None = None
    answerLimit = 1000
    http = False

    _acknowledges = False  # `acknowledgement` is all there is to say
    _lone = False  # `dataReceived` is ours
    _advancing = False
    _told: Sequence[bytes] = ()  # in the answer that is being made
    _first: bytes | None = b""  # bytes by which a TLS client is recognised; None: it is none
    _upgrade: Any = None  # to TLS, once the reply that says so is out

    def answers(self, lines: list[bytes]) -> list[Answer] | Awaitable[Sequence[Said]]:
        """Return the replies to `lines`; see LineServer."""
        raise NotImplementedError

    def _advance(self) -> None:
        """Answer what was received, as far as the peer reads and answers come back."""
        if self._advancing or self._phase == SHUT:
            return
        intake = self._intake
        self._advancing = True
        try:
            while not (
                self._outbox.unsent or self._phase >= CLOSING or intake.full or self._securing
            ):
                room = self.answerLimit - self._replies.outstanding
                if room > 0 and self.factory.lineRate and self._phase == SERVING:
                    room = min(room, self._allowed())
                if room <= 0 and not intake.framing.expects:
                    intake.pause()
                    break
                try:
                    item = intake.framing.take(room)
                except Exception:
                    self._giveUp(Failure())
                    break
                if item is None:
                    if self._caughtUp():
                        continue
                    break
                if isinstance(item, Lines):
                    self._take(item.lines, item.ending)
                elif isinstance(item, Refusal):
                    self._refuse(item)
                elif isinstance(item, Body):
                    self._received(item)
                else:
                    self._put(item.data, 1)
                    if item.last:
                        self._enter(CLOSING)
            else:
                if self._phase != SHUT:
                    intake.pause()
        except MemoryError:
            self.starved()
        finally:
            self._advancing = False
        if self._body is not None and self._phase >= CLOSING:
            self._unfinished()
        if not (self._outbox.unsent or self._replies.outstanding):
            if self._securing and self._phase < CLOSING:
                self._secure()
            if self._phase == CLOSING:
                self._end()
        self._weigh()

    @property
    def _securing(self) -> bool:
        """Whether TLS begins once the reply is out that is due."""
        return self._upgrade is not None and not ISSLTransport.providedBy(self.transport)

    def _allowed(self) -> int:
        """Return how many lines may be taken now; if none, go on when one may."""
        factory = self.factory
        rate, clock = factory.lineRate, factory.reactor
        return self._intake.allowed(rate, self.lines, clock, self._advance, factory.counters.slow)

    def _caughtUp(self) -> bool:
        """All lines have been taken; return whether more was received thereupon."""
        intake = self._intake
        draining = self._phase == DRAINING
        if draining and not intake.ended and intake.readRest(self._packets):
            return True
        if intake.ended:
            try:
                torn = intake.framing.finish()
            except Exception:
                self._giveUp(Failure())
                return False
            if torn is not None:
                self._refuse(torn)
        if draining or intake.ended:
            self._enter(CLOSING)
        else:
            intake.resume()
        return False

    def _giveUp(self, failure: Failure) -> None:
        """The framing can make no more lines of the stream."""
        if failure.check(MemoryError):
            self.starved()
            return
        told = failure.check(ValueError)
        if not told and self.factory.journal.admits("a framing failed"):
            log.failure("{peer}: framing failed", escaped(failure), peer=self.peer)
        self._refuse(Refusal(str(failure.value).encode() if told else b"internal error", LF))
        self._enter(CLOSING)
        self._intake.pause()

    # The ways of a line: alike in what the peer gets, what is counted, and the order of hooks.

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
        elif count == 1 and self._lone:
            join(self)

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
            or self._securing
            or outstanding >= self.answerLimit
        ):
            self._advance()
        elif outstanding:
            self._weigh()

    def _take(self, lines: list[bytes], ending: bytes) -> None:
        """Count lines, and have them answered."""
        count = len(lines)
        factory = self.factory
        if not (self.lines or self.http or factory.acceptHttp) and opening.isRequest(lines[0]):
            factory.counters.http += 1
            self._refuse(Refusal(opening.NO_WEB_SERVER.encode(), ending))
            self._enter(CLOSING)
            return
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
        due = self._places().expect(len(lines), sum(map(len, lines)), ending)
        self.factory.store.put(self._batch(lines), partial(self._stored, due))
        self._waitIfFull()

    def _stored(self, due: Due, problem: Refused | None) -> None:
        """Lines are durable, or why they aren't."""
        if self._phase == SHUT:
            return
        count = due.lines
        try:
            replies: Any = [self.acknowledgement] * count
            if problem is not None:
                replies = self._failed(Failure(problem), count)
                if count and self.refusalEnds:
                    self._replies.drop(due)
            elif self._intake.framing.stateless:
                # At once, and not when it is their turn: a look at each is spared.
                replies = self._framed(replies, due.ending, count)
                if self._replies.only(due):
                    self.factory.counters.answered += count
                    self._outbox.write(replies)
                    self._goOn()
                    return
            self.factory.counters.answered += count
            self._replies.fill(due, replies)
        except MemoryError:
            self.starved()
        else:
            self._came()

    def _reply(self, lines: list[bytes], ending: bytes) -> None:
        """Send the replies to lines, or keep the places of those that are awaited."""
        count = len(lines)
        try:
            replies = self.answers(lines)
        except Exception:
            replies = list(self._failed(Failure(), count))
        if self._told:
            told, self._told = self._told, ()
            self._put(list(told), 0, ending)
        if not isinstance(replies, list):
            self._wait(replies, count, sum(map(len, lines)), ending, batch)
            return
        framing: Any = self._intake.framing
        if framing.stateless:
            # The usual batch is all bytes; encoding it is the quickest way to find out.
            try:
                data = framing.encode(replies, ending) if replies else b""
            except (TypeError, ValueError):
                pass  # Some are awaited, or can't be framed.
            else:
                counters = self.factory.counters
                counters.answered += count
                if len(replies) != count:
                    counters.silent += count - len(replies)
                if self._replies.outstanding:
                    self._put(data, count)
                elif data and self._phase != SHUT:
                    self._outbox.write(data)
                return
        size = sum(map(len, lines)) // count
        for reply in replies:
            self._replyOne(reply, size, ending)

    def _replyOne(self, reply: Any, size: int, ending: bytes) -> None:
        """Send the reply to a line of `size` bytes, or keep its place."""
        if isinstance(reply, Told):
            self._put(list(reply.lines), 0, ending)
            reply = reply.answer
        if isinstance(reply, AsyncIterator):
            self._stream(reply, size, ending)
        elif reply is None or isinstance(reply, (bytes, bytearray, list)):
            try:
                self._settle(said(reply), 1, ending)
            except TypeError:
                self._settle(self._failed(Failure(), 1), 1, ending)
        else:
            self._wait(reply, 1, size, ending)

    def _refuse(self, refusal: Refusal) -> None:
        """Reply to a line that can't be taken."""
        self.lines += 1
        self.factory.counters.lines += 1
        self._refused(1, refusal.why)
        # The rest are in the count that the log gives when the peer goes.
        reason = printable(refusal.reason.decode(errors="backslashreplace"))
        if self.refused == 1 and self.factory.journal.admits("connections refused a line"):
            log.info("{peer} refused: {reason}", peer=self.peer, reason=reason)
        self._settle([self._refusal(reason)], 1, refusal.ending)

    # What comes is no line.

    def _secure(self) -> None:
        """Have TLS stand between this and the transport from now on."""
        plain = self.transport
        framing = self._intake.framing
        if framing.release() or framing.begun:
            self._refuse(Refusal(b"plain text behind the request for TLS", LF))
            self._enter(CLOSING)
            return
        self._intake.resume()
        self._outbox.release()
        plain.protocol = self._upgrade.around(self)
        plain.protocol.makeConnection(plain)

    def _received(self, body: Body) -> None:
        """A body is whole that somebody waits for."""
        self._intake.framing = body.framing
        waiting, self._body = self._body, None
        if waiting is not None and not waiting.called:
            waiting.callback(body.data)

    def _opens(self, data: bytes) -> bytes:
        """Return what has been received so far, unless it may be, or is, a TLS client's."""
        data = (self._first or b"") + data
        if not opening.mayBeHello(data) or ISSLTransport.providedBy(self.transport):
            self._first = None
        elif len(data) < opening.HELLO_LENGTH and not self._intake.ended:
            self._first, data = data, b""
        else:
            self._first, data = None, b""
            self.factory.counters.mismatched += 1
            self._dismiss(opening.NO_TLS)
        return data

    # Lines are stored.

    def _batch(self, lines: list[bytes]) -> Batch:
        """Return `lines` ready to be stored."""
        factory = self.factory
        received = int(factory.wall() * 1_000_000)
        return _batch(Batch, (received, self.peer, factory.listener, lines))

    def _waitIfFull(self) -> None:
        """Take no more lines while the store has too many."""
        store = self.factory.store
        if store.full and not self._intake.full:
            self._intake.full = True
            store.room().addCallback(self._released)

    def _released(self, _: None) -> None:
        self._intake.full = False
        self._advance()
