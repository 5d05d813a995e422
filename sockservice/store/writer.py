"""The storage thread: commits what the reactor hands over, with maintenance in between."""

import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread

from sockservice.errors import StoreError
from sockservice.store.engine import Backend
from sockservice.store.turns import Put, Turns

#: Seconds between checks for maintenance while nothing is stored.
TIDY_INTERVAL = 1.0


class Writer:
    """Commits what comes through `turns` to `backend`, in a thread of its own.

    Each turn is a list of what to store; None says that there are no more. `committed` is
    called with what a commit held, and with the problem if it failed; `closed` once, when
    the engine is closed. Both are called in the thread.
    """

    def __init__(
        self,
        backend: Backend,
        turns: SimpleQueue[list[Put] | None],
        committed: Callable[[list[Put], StoreError | None], object],
        closed: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._turns = turns
        self._committed = committed
        self._closed = closed
        self._opened = Event()
        self._unopened: BaseException | None = None
        self._waiting = Turns()
        self._clock = clock
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
        self._closed()

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
                else:
                    self._waiting.add(turn)
        return bool(self._waiting)

    def _commit(self, puts: list[Put]) -> None:
        problem = self._fatal
        if problem is None:
            begun = self._clock()
            try:
                self._backend.commit([batch for put in puts for batch in put.batches])
                self._waiting.took(sum(put.lines for put in puts), self._clock() - begun)
            except Exception as failed:
                problem = self._failure(failed)
        if problem is None:
            self._committed(puts, None)
            return
        # What waits would only wait longer, and fail as well.
        self._arrived(0)
        untried = self._waiting.all()
        if problem.certain:
            self._committed(puts + untried, problem)
        else:
            self._committed(puts, problem)
            self._committed(untried, problem.untried())

    def _tidy(self) -> bool:
        """Do a step of maintenance; return whether there is more to do at once."""
        if self._fatal is not None:
            return False
        try:
            return self._backend.tidy()
        except Exception as failed:
            problem = self._failure(failed)
            if not problem.retry:
                self._committed([], problem.untried())
            return False

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
