"""Group commit: while one commit becomes durable, the lines that arrive form the next."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from sockservice.distribution import Distribution
from sockservice.errors import CannotStart, StoreError
from sockservice.store.engine import Backend, Batch, Item, Outcome
from sockservice.store.turns import Arrival, Put, Settled
from sockservice.store.writer import Turn, Writer

#: Bytes of all lines not yet durable: what a slow disk writes in a second. Beyond
#: it `Store.full` is true and connections are not read.
PENDING_LIMIT = 64 * 1024 * 1024
#: Seconds between a failed commit and the next attempt, at first and at most.
#: Until then lines are refused at once.
RETRY_FIRST, RETRY_MOST = 0.05, 1.0

#: The turn in which something came.
TURN = attrgetter("turn")

#: Called with the problem, or with what became of each item.
Heard = Callable[[StoreError | None, Sequence[Outcome]], object]

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
        self._unheard: dict[Put, None] = {}  # those of them that `putItems` made, in order
        self._turnsLeft: deque[Arrival] = deque()  # those that puts are left of
        self._last = Arrival(0.0)
        self._room: list[Deferred[None]] = []
        self._problem: StoreError | None = None
        self._retryAt = 0.0
        self._pause = RETRY_FIRST
        self._said: str | None = None  # the reason logged last
        self._lasting: IDelayedCall | None = None  # until the log says that storing works again
        self._stopping = False
        self._backend = backend
        #: The connections of this process that hold a session, by its name.
        self.holders: dict[str, Any] = {}
        self._closed: Deferred[None] = Deferred()
        self._turns: SimpleQueue[Turn] = SimpleQueue()
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
        #: Lines whose outcome has not been told.
        self.awaiting = 0
        #: Microseconds from the arrival of lines to the word that they are durable.
        self.waits = Distribution()

    @property
    def full(self) -> bool:
        """Whether so much is waiting to be durable that no more should be read."""
        return self._pending >= PENDING_LIMIT

    @property
    def pending(self) -> int:
        """Bytes that wait to be durable."""
        return self._pending

    @property
    def oldest(self) -> float:
        """Seconds that the oldest line waits to be durable; 0.0 if none does."""
        since = self._turnsLeft[0].since if self._turnsLeft else None
        return 0.0 if since is None else float(self._reactor.seconds() - since)

    @property
    def problem(self) -> StoreError | None:
        """Why lines could not be stored, the last time that it was tried; None if they could."""
        return self._problem

    @property
    def writer(self) -> Writer:
        """What it has done to the disk, in figures."""
        return self._writer

    @property
    def unsettled(self) -> bool:
        """Whether lines wait whose outcome has not been told."""
        return self._unsettled > 0

    @property
    def refusing(self) -> str:
        """Why lines are refused now; empty if they are not."""
        return "" if self._problem is None else self._problem.reason

    def ping(self, answered: Callable[[], object]) -> None:
        """Have `answered` called in the reactor's thread as soon as that of the store answers.

        It does so between two commits; once the store is stopping, it has nothing to answer.
        """
        if self._stopping:
            answered()
        else:
            self._turns.put(partial(self._reactor.callFromThread, answered))

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
        self._put(Put([batch], settled))

    def _put(self, put: Put) -> None:
        if self._stopping:
            put.settled(StoreError("the service is stopping", retry=True))
            return
        problem = self._problem
        # What was put earlier has to be settled earlier.
        if problem is not None and not self._unsettled and self._hopeless(problem):
            put.settled(problem)
            return
        self._unsettled += 1
        self._pending += put.size
        if not self._turn:
            # The writer is woken at the end of the turn, with all that came in it.
            self._reactor.callLater(0, self._endTurn)
            self._last = Arrival(self._reactor.seconds())
            self._turnsLeft.append(self._last)
        put.turn = turn = self._last
        turn.left += 1
        self.awaiting += put.lines
        self._turn.append(put)

    def keepSessions(self, most: int, age: float, expired: Callable[[int], object]) -> None:
        """Have the engine keep sessions, as SessionBackend says; to be called before `start`.

        :raises CannotStart: It keeps none.
        """
        keep = getattr(self._backend, "keepSessions", None)
        if keep is None:
            name = f"{type(self._backend).__module__}.{type(self._backend).__qualname__}"
            raise CannotStart(f"the store {name} keeps no sessions")
        keep(most, age, expired)

    def putItems(self, items: Sequence[Item], heard: Heard) -> None:
        """Carry out `items`, all that are not denied or none, and call `heard`.

        It is told what became of each, which is nothing where all are stored, or the problem
        if none is. It must not raise, and may be called at once. Items of one session are
        carried out in the order of the calls, a claim behind the lines before it.
        """

        def settled(problem: StoreError | None) -> None:
            if put in self._unheard:
                del self._unheard[put]
                heard(problem, put.outcomes)

        put = Put(items, settled)
        self._unheard[put] = None
        self._put(put)

    def giveUp(self) -> None:
        """Tell those of `putItems` that nobody will know what becomes of their items.

        To be called when the process ends before the engine has said so.
        """
        problem = StoreError("the service stops", retry=False, certain=False)
        for put in list(self._unheard):
            put.settled(problem)

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
        self._measure(puts, problem)
        for put in puts:
            self._unsettled -= 1
            if problem is None:
                self.stored += put.stored
            try:
                put.settled(problem)
            except Exception:
                # Others still wait to be told.
                log.failure("telling of a commit failed")
        if self._room and not self.full:
            room, self._room = self._room, []
            for waiting in room:
                waiting.callback(None)

    def _measure(self, puts: list[Put], problem: StoreError | None) -> None:
        """Note how long these have waited, and that they wait no more."""
        now = self._reactor.seconds()
        # Those of a turn usually stand together.
        for turn, some in groupby(puts, TURN):
            lines = 0
            for put in some:
                turn.left -= 1
                lines += put.lines
                self._pending -= put.size
            self.awaiting -= lines
            if problem is None and lines:
                self.waits.add(int((now - turn.since) * 1_000_000), lines)
        while self._turnsLeft and not self._turnsLeft[0].left:
            self._turnsLeft.popleft()

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
