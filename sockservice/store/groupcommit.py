"""Group commit: while one commit is made durable, what arrives forms the next one."""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from sockservice.errors import StoreError
from sockservice.store.engine import Backend, Batch

#: Lines in one commit, about: what a disk writes in few milliseconds, so that
#: nobody waits long for what others have sent.
COMMIT_LIMIT = 8192
#: Bytes of lines not yet durable, in all: a second's work of a slow disk. Beyond
#: it `Store.full` is true and connections are not read.
PENDING_LIMIT = 64 * 1024 * 1024
#: Seconds until a failed commit is followed by another try, first and at most.
#: Until then lines are refused at once.
RETRY_FIRST, RETRY_MOST = 0.05, 1.0
#: Seconds between looks for upkeep while nothing is stored.
TIDY_INTERVAL = 1.0

log = Logger()

#: Is called when lines are durable, or with what has kept them from it.
Settled = Callable[[StoreError | None], None]


class _Put:
    """Batches that are stored together, and who waits for them."""

    __slots__ = ("batches", "lines", "settled", "size")

    def __init__(self, batches: list[Batch], settled: Settled) -> None:
        self.batches = batches
        self.settled = settled
        self.lines = self.size = 0
        for batch in batches:
            self.lines += len(batch.lines)
            self.size += sum(map(len, batch.lines))


class Store:
    """Keep lines durably with `backend`, in one thread of its own.

    There is no timer: an idle writer commits what one turn of the reactor brought,
    at the end of that turn; a busy one commits all that has come in the meantime.
    """

    def __init__(self, reactor: Any, backend: Backend) -> None:
        self._reactor = reactor
        self._backend = backend
        self._turn: list[_Put] = []  # of this turn of the reactor
        self._pending = 0  # bytes that are not durable yet
        self._unsettled = 0  # batches that nobody has been told of
        self._room: list[Deferred[None]] = []
        self._problem: StoreError | None = None
        self._retryAt = 0.0
        self._pause = RETRY_FIRST
        self._said: str | None = None  # the reason that the log gave last
        self._lasting: IDelayedCall | None = None  # until storing is said to work again
        self._stopping = False
        self._closed: Deferred[None] = Deferred()
        # What follows is shared with the thread.
        self._turns: SimpleQueue[list[_Put] | None] = SimpleQueue()  # None: there are no more
        self._unopened: BaseException | None = None
        self._opened = Event()
        # The thread's own.
        self._waiting: deque[_Put] = deque()
        self._ended = False  # nothing more will come
        self._fatal: StoreError | None = None  # after it nothing is committed any more
        #: Fires once nothing will be stored any more, with the reason.
        self.failed: Deferred[StoreError] = Deferred()
        #: Lines made durable since the start.
        self.stored = 0

    @property
    def full(self) -> bool:
        """Whether so much is waiting to be durable that no more should be read."""
        return self._pending >= PENDING_LIMIT

    def room(self) -> Deferred[None]:
        """Give a Deferred that fires when the store is not full, now or later."""
        if not self.full:
            return succeed(None)
        room: Deferred[None] = Deferred()
        self._room.append(room)
        return room

    def start(self) -> None:
        """Open the engine; returns when it is open.

        :raises CannotStart: It can't be opened, or can't promise durability.
        """
        Thread(target=self._run, name="store", daemon=True).start()
        self._opened.wait()
        if self._unopened is not None:
            raise self._unopened

    def append(self, batch: Batch) -> Deferred[None]:
        """Store the lines of `batch`; fires when all are durable.

        The Deferreds fire in the order of the calls. They fail with
        :class:`StoreError`: then none of the batch's lines may be acknowledged.

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
                # Or it would remember everyone who was ever told.
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
        # What was put before has to be settled before.
        if problem is not None and not self._unsettled and self._hopeless(problem):
            settled(problem)
            return
        put = _Put(batches, settled)
        self._unsettled += 1
        self._pending += put.size
        if not self._turn:
            # The writer is woken when the turn has brought what it brings.
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

    def _committed(self, puts: list[_Put], problem: StoreError | None) -> None:
        """A commit is durable, or has failed; called in the reactor's thread."""
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
                # Others wait to be told as well.
                log.failure("telling of a commit failed")
        if self._room and not self.full:
            room, self._room = self._room, []
            for waiting in room:
                waiting.callback(None)

    def _note(self, problem: StoreError | None) -> None:
        """Remember whether storing works, and say so when that changes for good."""
        before, self._problem = self._problem, problem
        if problem is None:
            if before is not None:
                # On a full disk what is small may still fit now and then.
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

    # The thread.

    def _run(self) -> None:
        try:
            self._backend.open()
        except BaseException as problem:
            self._unopened = problem
            return
        finally:
            self._opened.set()
        while puts := self._next():
            self._commit(puts)
            self._tidy()
        self._backend.close()
        self._reactor.callFromThread(self._hasClosed)

    def _next(self) -> list[_Put]:
        """Wait for what to commit next, with upkeep meanwhile; nothing when all is done."""
        more = True
        while not (self._arrived(0 if more else TIDY_INTERVAL) or self._ended):
            more = self._tidy()
        puts = []
        lines = 0
        while self._waiting and lines < COMMIT_LIMIT:
            puts.append(self._waiting.popleft())
            lines += puts[-1].lines
        return puts

    def _arrived(self, timeout: float) -> bool:
        """Take in what has come, waiting for it if need be; say whether there is anything."""
        with suppress(Empty):
            while not self._ended:
                turn = self._turns.get(timeout=0 if self._waiting else timeout)
                if turn is None:
                    self._ended = True
                else:
                    self._waiting += turn
        return bool(self._waiting)

    def _commit(self, puts: list[_Put]) -> None:
        problem = self._fatal
        if problem is None:
            try:
                self._backend.commit([batch for put in puts for batch in put.batches])
            except Exception as failed:
                problem = self._failure(failed)
        if problem is not None:
            # What waits would have to wait as long, and fail as well.
            self._arrived(0)
            puts += self._waiting
            self._waiting.clear()
        self._reactor.callFromThread(self._committed, puts, problem)

    def _tidy(self) -> bool:
        """Do a step of upkeep; say whether there is more to do at once."""
        if self._fatal is not None:
            return False
        try:
            return self._backend.tidy()
        except Exception as failed:
            problem = self._failure(failed)
            if not problem.retry:
                self._reactor.callFromThread(self._committed, [], problem)
            return False

    def _failure(self, failed: Exception) -> StoreError:
        problem = (
            failed
            if isinstance(failed, StoreError)
            else StoreError(f"{type(failed).__name__}: {failed}", retry=False)
        )
        # Or it would hold the lines that were being stored, for as long as it is remembered.
        problem.__cause__ = problem.__context__ = None
        problem.with_traceback(None)
        if not problem.retry:
            self._fatal = problem
        return problem
