"""The storage thread: commits what the reactor hands over, with maintenance in between."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from math import inf
from queue import Empty, SimpleQueue
from signal import SIG_BLOCK, pthread_sigmask, valid_signals
from threading import Event, Thread
from typing import Any

from sockservice.distribution import Distribution
from sockservice.errors import StoreError
from sockservice.store.engine import Backend, Figured, Outcome
from sockservice.store.turns import Put, Turns

#: Seconds between checks for maintenance while nothing is stored.
TIDY_INTERVAL = 1.0

#: What the thread is given: what to store, what to call, or None, behind which nothing comes.
Turn = list[Put] | Callable[[], object] | None


class Writer:
    """Commits what comes through `turns` to `backend`, in a thread of its own.

    Each turn is a list of what to store, or is called between two commits; None says that there
    are no more. `committed` is
    called with what a commit held, and with the problem if it failed; `closed` once, when
    the engine is closed. Both are called in the thread.
    """

    def __init__(
        self,
        backend: Backend,
        turns: SimpleQueue[Turn],
        committed: Callable[[list[Put], StoreError | None], object],
        closed: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._backend = backend
        self._turns = turns
        self._committed = committed
        self._closed = closed
        self._opened = Event()
        self._unopened: BaseException | None = None
        self._waiting = Turns()
        self._clock = clock
        self._wall = wall
        self._lookAt = -inf
        #: What commits took: microseconds, lines and bytes of each.
        self.durations, self.lines, self.bytes = Distribution(), Distribution(), Distribution()
        #: Commits that have failed.
        self.failures = 0
        #: When the last one succeeded, in seconds since 1970; None before the first.
        self.last: float | None = None
        #: What the engine told of itself last; see Figured.
        self.figures: Mapping[str, Any] = {}
        self._ended = False  # nothing more will come
        self._fatal: StoreError | None = None  # after it nothing is committed any more

    def start(self) -> None:
        """Open the engine; returns when it is open.

        :raises CannotStart: It can't be opened, or can't promise durability.
        """
        Thread(target=self._run, name="store", daemon=True).start()
        self._opened.wait()
        if self._unopened is not None:
            raise self._unopened

    # What follows runs in the thread.

    def _run(self) -> None:
        # They are to interrupt what the main thread waits for.
        pthread_sigmask(SIG_BLOCK, valid_signals())
        try:
            self._backend.open()
        except BaseException as problem:
            self._unopened = problem
            return
        finally:
            self._opened.set()
        while not self._done():
            pass
        self._backend.close()
        self._closed()

    def _done(self) -> bool:
        """Do the next commit; return whether there is none any more."""
        try:
            if puts := self._next():
                self._commit(puts)
                self._tidy()
            return not puts
        except Exception as failed:
            # What waited may be lost, and nobody would hear of it from a thread that is gone.
            reason = self._failure(failed).reason
            self._fatal = StoreError(reason, retry=False)
            self._committed([], self._fatal)
            return False

    def _next(self) -> list[Put]:
        """Wait for the next commit, with maintenance meanwhile; return nothing at the end."""
        more = True
        while not (self._arrived(0 if more else TIDY_INTERVAL) or self._ended):
            more = self._tidy()
        return self._waiting.take()

    def _arrived(self, timeout: float) -> bool:
        """Collect what has arrived, within `timeout` seconds; return whether there is any."""
        with suppress(Empty):
            while not self._ended:
                turn = self._turns.get(timeout=0 if self._waiting else timeout)
                if turn is None:
                    self._ended = True
                elif callable(turn):
                    turn()
                else:
                    self._waiting.add(turn)
        return bool(self._waiting)

    def _commit(self, puts: list[Put]) -> None:
        problem = self._fatal
        outcomes: Sequence[Outcome] | None = None
        if problem is None:
            begun = self._clock()
            try:
                items: list[Any] = []
                lines = size = 0
                for put in puts:
                    items += put.items
                    lines += put.lines
                    size += put.size
                outcomes = self._backend.commit(items)
                took = self._clock() - begun
                self._waiting.took(lines, took)
                self.durations.add(int(took * 1_000_000))
                self.lines.add(lines)
                self.bytes.add(size)
                self.last = self._wall()
            except Exception as failed:
                self.failures += 1
                problem = self._failure(failed)
        if problem is None:
            if outcomes is not None:
                left = iter(outcomes)
                for put in puts:
                    put.outcomes = [*islice(left, len(put.items))]
            self._committed(puts, None)
            return
        # What waits would only wait longer, and fail as well.
        self._arrived(0)
        untried = self._waiting.all()
        if problem.certain:
            self._committed(puts + untried, problem)
        else:
            self._committed(puts, problem)
            if untried:
                self._committed(untried, problem.untried())

    def _tidy(self) -> bool:
        """Do a step of maintenance; return whether there is more to do at once."""
        if self._fatal is not None:
            return False
        try:
            self._look()
            return self._backend.tidy()
        except Exception as failed:
            problem = self._failure(failed)
            if not problem.retry:
                self._committed([], problem.untried())
            return False

    def _look(self) -> None:
        """Have the engine tell of itself, once a second."""
        now = self._clock()
        if now < self._lookAt:
            return
        self._lookAt = now + TIDY_INTERVAL
        if isinstance(self._backend, Figured):
            self.figures = self._backend.figures()

    def _failure(self, failed: Exception) -> StoreError:
        if isinstance(failed, StoreError):
            problem = failed
        elif isinstance(failed, MemoryError):
            problem = StoreError("out of memory", retry=True, certain=False)
        else:
            problem = StoreError(f"{type(failed).__name__}: {failed}", retry=False, certain=False)
        # Or it would keep the lines that were being stored in memory as long as itself.
        problem.__cause__ = problem.__context__ = None
        problem.with_traceback(None)
        if not problem.retry:
            self._fatal = problem.untried()
        return problem
