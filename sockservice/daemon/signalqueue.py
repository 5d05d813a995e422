"""Hear signals: what one asks for is done once in the reactor, however often it came meanwhile."""

import signal
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from threading import Thread
from typing import Any


class SignalQueue:
    """Calls `actions`, by the number of the signal, in the reactor's thread.

    What Python calls for a signal is `SimpleQueue.put`, which is written in C: no other signal
    can come in the midst of it, so that a flood of them cannot nest, as it does in a function.
    """

    def __init__(self, reactor: Any, actions: Mapping[int, Callable[[], object]]) -> None:
        self._reactor = reactor
        self._actions = actions
        self._queue: SimpleQueue[int | None] = SimpleQueue()
        self._due: set[int] = set()
        self._thread: Thread | None = None

    @property
    def receiver(self) -> Any:
        """What to install for a signal; it takes its number, and a frame that it ignores."""
        if self._thread is None:
            self._thread = Thread(target=self._hear, name="signals", daemon=True)
            self._thread.start()
        return self._queue.put

    def receives(self, number: int) -> bool:
        """Whether this is what hears a signal."""
        installed: Any = signal.getsignal(number)
        return bool(installed == self._queue.put)

    def close(self) -> None:
        """Hear nothing more."""
        self._queue.put(None)

    def _hear(self) -> None:
        # They are to interrupt what the main thread waits for.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while (number := self._queue.get()) is not None:
            if number not in self._due:
                self._due.add(number)
                self._reactor.callFromThread(self._do, number)

    def _do(self, number: int) -> None:
        self._due.discard(number)
        self._actions[number]()
