"""Group commit: while one commit becomes durable, the lines that arrive form the next."""

from functools import partial
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from sockservice.errors import StoreError
from sockservice.store.engine import Backend, Batch
from sockservice.store.turns import Put, Settled
from sockservice.store.writer import Writer

#: Bytes of all lines not yet durable: what a slow disk writes in a second. Beyond
#: it `Store.full` is true and connections are not read.
PENDING_LIMIT = 64 * 1024 * 1024
#: Seconds between a failed commit and the next attempt, at first and at most.
#: Until then lines are refused at once.
RETRY_FIRST, RETRY_MOST = 0.05, 1.0

log = Logger()


class Store:
    """Stores lines durably with `backend`, in a thread of its own.

    There is no timer: an idle writer commits what one turn of the reactor brought,
    at the end of that turn; a busy one commits all that has come in the meantime.
    """

    def __init__(self, reactor: Any, backend: Backend) -> None:
        self._reactor = reactor
        self._turn: list[Put] = []  # of this turn of the reactor
        self._pending = 0  # bytes that are not durable yet
        self._unsettled = 0  # puts whose outcome has not been told
        self._room: list[Deferred[None]] = []
        self._problem: StoreError | None = None
        self._retryAt = 0.0
        self._pause = RETRY_FIRST
        self._said: str | None = None  # the reason logged last
        self._lasting: IDelayedCall | None = None  # until the log says that storing works again
        self._stopping = False
        self._closed: Deferred[None] = Deferred()
        self._turns: SimpleQueue[list[Put] | None] = SimpleQueue()
        self._writer = Writer(
            backend,
            self._turns,
            partial(reactor.callFromThread, self._committed),
            partial(reactor.callFromThread, self._hasClosed),
        )
        #: Fires once nothing will be stored any more, with the reason.
        self.failed: Deferred[StoreError] = Deferred()
        #: Lines made durable since the start.
        self.stored = 0

    @property
    def full(self) -> bool:
        """Whether so much is waiting to be durable that no more should be read."""
        return self._pending >= PENDING_LIMIT

    @property
    def unsettled(self) -> bool:
        """Whether lines wait whose outcome has not been told."""
        return self._unsettled > 0

    def room(self) -> Deferred[None]:
        """Return a Deferred that fires as soon as the store is not full."""
        if not self.full:
            return succeed(None)
        room: Deferred[None] = Deferred()
        self._room.append(room)
        return room

    def start(self) -> None:
        """Open the engine; returns when it is open.

        :raises CannotStart: It can't be opened, or can't promise durability.
        """
        self._writer.start()

    def append(self, batch: Batch) -> Deferred[None]:
        """Store the lines of `batch`; fires when all are durable.

        The Deferreds for one peer fire in the order of the calls, and those for others too
        unless more waits than one commit holds; then peers take turns. They fail with
        :class:`StoreError`: then none of the batch's lines may be acknowledged, and none is
        stored unless the error is not `certain`.

        :raises TypeError: A line is not bytes.
        """
        # The caller may go on using its list.
        batch = batch._replace(lines=list(batch.lines))
        for line in batch.lines:
            if not isinstance(line, bytes):
                raise TypeError(f"a line is bytes, not {type(line).__name__}")
        appended: Deferred[None] = Deferred()

        def settled(problem: StoreError | None) -> None:
            if problem is None:
                appended.callback(None)
            else:
                # Or its traceback would grow with everyone who is told.
                appended.errback(problem.with_traceback(None))

        self.put(batch, settled)
        return appended

    def put(self, batch: Batch, settled: Settled) -> None:
        """Store the lines of `batch`, and call `settled`; it may be called at once.

        The same as `append` at half the price; `settled` must not raise.
        """
        self.putAll([batch], settled)

    def putAll(self, batches: list[Batch], settled: Settled) -> None:
        """Store the lines of all `batches`, or of none, and call `settled` as `put` does."""
        if self._stopping:
            settled(StoreError("the service is stopping", retry=True))
            return
        problem = self._problem
        # What was put earlier has to be settled earlier.
        if problem is not None and not self._unsettled and self._hopeless(problem):
            settled(problem)
            return
        put = Put(batches, settled)
        self._unsettled += 1
        self._pending += put.size
        if not self._turn:
            # The writer is woken at the end of the turn, with all that came in it.
            self._reactor.callLater(0, self._endTurn)
        self._turn.append(put)

    def stop(self) -> Deferred[None]:
        """Store what was appended, then close; fires when that is done."""
        self._stopping = True
        self._endTurn()
        self._turns.put(None)
        return self._closed

    def _hopeless(self, problem: StoreError) -> bool:
        return not problem.retry or self._reactor.seconds() < self._retryAt

    def _endTurn(self) -> None:
        turn, self._turn = self._turn, []
        self._turns.put(turn)

    def _committed(self, puts: list[Put], problem: StoreError | None) -> None:
        """Settle a commit, durable or failed; called in the reactor's thread."""
        self._note(problem)
        for put in puts:
            self._pending -= put.size
        for put in puts:
            self._unsettled -= 1
            if problem is None:
                self.stored += put.lines
            try:
                put.settled(problem)
            except Exception:
                # Others still wait to be told.
                log.failure("telling of a commit failed")
        if self._room and not self.full:
            room, self._room = self._room, []
            for waiting in room:
                waiting.callback(None)

    def _note(self, problem: StoreError | None) -> None:
        """Remember whether storing works, and log lasting changes."""
        before, self._problem = self._problem, problem and problem.untried()
        if problem is None:
            if before is not None:
                # On a full disk a small commit may still fit now and then.
                self._lasting = self._reactor.callLater(RETRY_MOST, self._sayAgain)
            self._pause = RETRY_FIRST
            return
        if self._lasting is not None:
            self._lasting.cancel()
            self._lasting = None
        if self._said != problem.reason:
            self._said = problem.reason
            log.error(
                "lines are refused, for they cannot be stored: {reason}{what}",
                reason=problem.reason,
                what="; trying again" if problem.retry else "; nothing will be stored any more",
            )
        if problem.retry:
            self._retryAt = self._reactor.seconds() + self._pause
            self._pause = min(self._pause * 2, RETRY_MOST)
        elif before is None or before.retry:
            self.failed.callback(problem)

    def _hasClosed(self) -> None:
        if self._lasting is not None:
            self._lasting.cancel()
            self._sayAgain()
        self._closed.callback(None)

    def _sayAgain(self) -> None:
        self._lasting = self._said = None
        log.info("storing lines again")
