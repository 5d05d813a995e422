"""Store syslog that comes over streams or datagrams, whose senders hear of nothing."""

from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.errors import StoreError
from sockservice.net.addresses import named
from sockservice.server.ack import Ack
from sockservice.server.answers import Answer
from sockservice.server.datagram import DatagramServer
from sockservice.server.phase import CLOSING, SHUT
from sockservice.server.replies import Due
from sockservice.store.engine import Batch
from sockservice.wire.framing import Lines, Refusal
from sockservice.wire.plurals import plural
from sockservice.wire.syslog import SyslogFraming

#: Seconds until what could not be stored is tried again.
AGAIN = 1.0
#: Bytes of messages that one connection has waiting for the store, about; it is not read
#: beyond them, nor while it has any and memory is tight.
HELD = 1024 * 1024

log = Logger()


class Syslog(Ack):
    """Store syslog messages of a stream; while they can't be stored, hold the sender back.

    Nothing can be refused where nothing is answered. So what can't be stored is kept and
    tried again, nothing more is read meanwhile, and TCP stops the sender.
    """

    stores = True
    telnet = False
    http = True
    framing = SyslogFraming

    _held: list[tuple[Due, Batch]]
    _storing = False
    _pause: Any = None

    def opened(self) -> None:
        self._held = []

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if "_held" in vars(self):
            self._takeRest()
        super().connectionLost(reason)

    def closed(self) -> None:
        if self._pause is not None and self._pause.active():
            self._pause.cancel()
        if self._held:
            # The store bounds what it holds of all connections, those that have ended included.
            self._storing = True
            self._store()

    def _takeRest(self) -> None:
        """Take what was received, whatever it waits for: nobody sends it again."""
        with suppress(ValueError):
            while self._phase < CLOSING and (item := self._intake.framing.take(self.answerLimit)):
                if isinstance(item, Refusal):
                    self._refuse(item)
                elif isinstance(item, Lines):
                    self._take(item.lines, item.ending)

    def _drop(self, reason: str) -> None:
        self._takeRest()
        super()._drop(reason)

    def _keepAll(self, lines: list[bytes], ending: bytes) -> None:
        due = self._places().expect(len(lines), sum(map(len, lines)), ending)
        self._held.append((due, self._batch(lines)))
        # One after the other, or those behind a failure could be stored before it.
        if not self._storing:
            self._storing = True
            self._store()
        if self._replies.held >= HELD or self.factory.memory.tight:
            self._intake.full = True
        self._waitIfFull()

    def _store(self) -> None:
        held, self._held = self._held, []
        batches = [batch for _, batch in held]
        self.factory.store.putItems(batches, partial(self._heard, held))  # type: ignore[union-attr]

    def _heard(self, held: list[tuple[Due, Batch]], problem: StoreError | None, _: object) -> None:
        """Messages are durable, or why they aren't."""
        if problem is not None:
            self._held[:0] = held
            if self._phase == SHUT:
                self._lost(problem)
            else:
                self._pause = self.factory.reactor.callLater(AGAIN, self._store)
            return
        self._storing = False
        counters = self.factory.counters
        for due, batch in held:
            counters.silent += len(batch.lines)
            if self._phase == SHUT:
                counters.answered += len(batch.lines)
            self._stored(due, None)
        if self._held and not self._storing:
            self._storing = True
            self._store()
        if self._intake.full and self._replies.held < HELD:
            # Others may have filled the store meanwhile.
            self.factory.store.room().addCallback(self._released)  # type: ignore[union-attr]

    def _lost(self, problem: object) -> None:
        lines = sum(len(batch.lines) for _, batch in self._held)
        self._held.clear()
        self.factory.counters.lost += lines
        if self.factory.journal.admits("syslog messages lost"):
            log.error(
                "{peer}: {lines} syslog {messages} lost, for the connection ended: {reason}",
                peer=self.peer,
                lines=lines,
                messages=plural(lines, "message"),
                reason=problem,
            )

    def inspect(self, now: float, idle: int, unfinished: int) -> None:
        # A sender that hears of nothing would lose what it sends next, as long as that is taken.
        super().inspect(now, idle if self._phase >= CLOSING else 0, unfinished)


class SyslogDatagrams(DatagramServer):
    """Store each datagram, a syslog message (RFC 5426); none is answered.

    While they can't be stored, none is read once `answerLimit` are kept; then the system
    drops what its buffer can't hold, and counts it.
    """

    stores = True
    replies = False

    def answer(self, datagram: bytes, peer: Any) -> Answer:
        received = int(self.wall() * 1_000_000)
        message = datagram.rstrip(b"\r\n\0")
        return self._kept(Batch(received, named(peer), self.listener, [message]))

    async def _kept(self, batch: Batch) -> None:
        assert self.store is not None and self.clock is not None
        problem: object = "the service stops before it is known to be stored"
        try:
            while True:
                try:
                    await self.store.append(batch)
                    return
                except StoreError as failed:
                    problem = failed
                    if not failed.retry:
                        break
                await deferLater(self.clock, AGAIN)
        except CancelledError:
            pass
        self.counters.lost += 1
        if self._journal is None or self._journal.admits("syslog messages lost"):
            log.error("{peer}: a syslog message lost: {reason}", peer=batch.peer, reason=problem)
