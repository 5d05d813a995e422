"""Group commit: while one commit is made durable, what arrives forms the next one."""

from collections import deque
from threading import Condition, Event, Thread
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from sockservice.store import Backend, Batch, StoreError

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


class _Append:
    """One call of append: its batch, and who waits for it."""

    __slots__ = ("batch", "done", "size")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.done: Deferred[None] = Deferred()
        self.size = sum(map(len, batch.lines))


class Store:
    """Keep lines durably with `backend`, in one thread of its own.

    There is no timer: an idle writer commits what one turn of the reactor brought,
    at the end of that turn; a busy one commits all that has come in the meantime.
    """

    def __init__(self, reactor: Any, backend: Backend) -> None:
        self._reactor = reactor
        self._backend = backend
        self._turn: list[_Append] = []  # of this turn of the reactor
        self._pending = 0  # bytes that are not durable yet
        self._unsettled = 0  # appends whose Deferreds have not fired
        self._room: list[Deferred[None]] = []
        self._problem: StoreError | None = None
        self._retryAt = 0.0
        self._pause = RETRY_FIRST
        self._closed: Deferred[None] = Deferred()
        # What follows is shared with the thread, under the condition.
        self._changed = Condition()
        self._waiting: deque[_Append] = deque()
        self._stopping = False
        self._unopened: BaseException | None = None
        self._opened = Event()
        # The thread's own: after this nothing is committed any more.
        self._fatal: StoreError | None = None
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
        """
        problem = self._problem
        if self._stopping:
            return fail(StoreError("the service is stopping", retry=True))
        hopeless = problem is not None and (
            not problem.retry or self._reactor.seconds() < self._retryAt
        )
        # What was appended before has to be settled before.
        if problem is not None and hopeless and not self._unsettled:
            # Or it would remember everyone who was ever told.
            return fail(problem.with_traceback(None))
        appended = _Append(batch)
        self._unsettled += 1
        self._pending += appended.size
        if not self._turn:
            # The writer is woken when the turn has brought what it brings.
            self._reactor.callLater(0, self._endTurn)
        self._turn.append(appended)
        return appended.done

    def stop(self) -> Deferred[None]:
        """Store what was appended, then close; fires when that is done."""
        with self._changed:
            self._waiting.extend(self._turn)
            self._turn.clear()
            self._stopping = True
            self._changed.notify()
        return self._closed

    def _endTurn(self) -> None:
        with self._changed:
            self._waiting.extend(self._turn)
            self._turn.clear()
            self._changed.notify()

    def _committed(self, appends: list[_Append], problem: StoreError | None) -> None:
        """A commit is durable, or has failed; called in the reactor's thread."""
        self._note(problem)
        for appended in appends:
            self._pending -= appended.size
        for appended in appends:
            self._unsettled -= 1
            if problem is None:
                self.stored += len(appended.batch.lines)
                appended.done.callback(None)
            else:
                appended.done.errback(problem.with_traceback(None))
        if self._room and not self.full:
            room, self._room = self._room, []
            for waiting in room:
                waiting.callback(None)

    def _note(self, problem: StoreError | None) -> None:
        """Remember whether storing works, and say so when that changes."""
        before, self._problem = self._problem, problem
        if problem is None:
            if before is not None:
                log.info("storing lines again")
            self._pause = RETRY_FIRST
            return
        if before is None or before.reason != problem.reason:
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

    # The thread.

    def _run(self) -> None:
        try:
            self._backend.open()
        except BaseException as problem:
            self._unopened = problem
            return
        finally:
            self._opened.set()
        while (appends := self._next()) is not None:
            self._commit(appends)
            self._tidy()
        self._backend.close()
        self._reactor.callFromThread(self._closed.callback, None)

    def _next(self) -> list[_Append] | None:
        """Wait for what to commit next, with upkeep meanwhile; None when all is done."""
        more = True
        while True:
            with self._changed:
                if not (self._waiting or self._stopping or more):
                    self._changed.wait(TIDY_INTERVAL)
                if self._waiting:
                    return self._gathered()
                if self._stopping:
                    return None
            more = self._tidy()

    def _gathered(self) -> list[_Append]:
        appends = []
        lines = 0
        while self._waiting and lines < COMMIT_LIMIT:
            appends.append(self._waiting.popleft())
            lines += len(appends[-1].batch.lines)
        return appends

    def _commit(self, appends: list[_Append]) -> None:
        problem = self._fatal
        if problem is None:
            try:
                self._backend.commit([appended.batch for appended in appends])
            except Exception as failed:
                problem = self._failure(failed)
        if problem is not None:
            # What waits would have to wait as long, and fail as well.
            with self._changed:
                appends += self._waiting
                self._waiting.clear()
        self._reactor.callFromThread(self._committed, appends, problem)

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
        if not problem.retry:
            self._fatal = problem
        return problem
