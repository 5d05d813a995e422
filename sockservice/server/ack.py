"""The service's own protocol: an acknowledgement for each line."""

from functools import partial

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from sockservice.errors import StoreError
from sockservice.server.answers import Answer
from sockservice.server.line import LineServer
from sockservice.server.replies import Due
from sockservice.wire.framer import Framer
from sockservice.wire.telnet import COMMAND


class Ack(LineServer):
    """Acknowledge each line with `ok`: received, or, where there is a store, durable."""

    # A read of the shortest lines worth batching; no answer is ever awaited.
    answerLimit = 8192

    # What `answers` says is done a shorter way, unless a subclass says something else.
    _counts = False  # nobody wants the lines themselves
    _keeps = False  # every line is stored, and acknowledged when it is durable

    def answers(self, lines: list[bytes]) -> list[Answer] | Deferred[list[bytes]]:
        if self.factory.store is None:
            return [b"ok"] * len(lines)
        return self.keep(lines).addCallback(lambda _: [b"ok"] * len(lines))

    def connectionMade(self) -> None:
        itself = type(self).answers is Ack.answers
        self._keeps = itself and self.factory.store is not None
        self._counts = itself and not (self._keeps or self.factory.verbose)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        # Counting lines is three times as fast as cutting them.
        framing = self._framing
        if self._counts and type(framing) is Framer and COMMAND not in data:
            factory = self.factory
            if not (self._unsent or self._closing or factory.admission.limits.lineRate):
                count = framing.count(data)
                if count:
                    self.lines += count
                    counters = factory.counters
                    counters.lines += count
                    counters.answered += count
                    self._write((b"ok" + framing.ending) * count)
                    if self._unsent:
                        self._advance()
                    elif self._weight or framing.begun:
                        self._weigh()
                    return
        super().dataReceived(data)

    def _reply(self, lines: list[bytes], ending: bytes) -> None:
        if not self._keeps:
            super()._reply(lines, ending)
            return
        # What keep and answers do, without a Deferred: half as long for a lone line.
        due = self._places().expect(len(lines), sum(map(len, lines)))
        self.factory.store.put(self._batch(lines), partial(self._stored, due, ending))
        self._holdIfFull()

    def _stored(self, due: Due, ending: bytes, problem: StoreError | None) -> None:
        """Lines are durable, or why they aren't."""
        if self._shut:
            return
        count = due.lines
        replies = [b"ok"] * count if problem is None else self._failed(Failure(problem), count)
        self.factory.counters.answered += count
        self._replies.fill(due, self._framing.encode(replies, ending))
        self._came()
