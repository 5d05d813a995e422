"""Write the log in a thread of its own, so that the service never waits for whoever reads it."""

import atexit
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from signal import SIG_BLOCK, pthread_sigmask, valid_signals
from threading import Event, RLock, Thread
from time import monotonic, sleep
from typing import Any

from twisted.logger import ILogObserver, LogEvent, Logger, globalLogBeginner
from zope.interface import implementer

from sockservice.limits.lograte import LOG_QUEUE
from sockservice.wire.plurals import plural

#: What an event counts for besides its texts.
EACH = 1000
#: Seconds that one line may take until whoever takes it counts as stuck; also the longest
#: time for which a full queue delays whoever logs.
STUCK = 0.05
#: Seconds in which the log has to take what is left when the process ends.
FLUSH = 1.0

log = Logger()


@implementer(ILogObserver)
class LogQueue:
    """Passes log events on to observers, from :meth:`start` on in a thread.

    They stay in order. When `most` bytes wait and nothing moves, events are dropped until half
    of it is free; then the log says how many, in their place. `dropped` is called for each.
    """

    def __init__(self) -> None:
        #: Bytes that may wait.
        self.most = LOG_QUEUE
        #: The status with which the process ends, if it has to end without the log.
        self.status = 0
        #: Called for each event that is dropped, or that an observer failed to write.
        self.dropped: Callable[[], object] = lambda: None
        self._begin: Callable[..., None] = globalLogBeginner.beginLoggingTo
        self._observers: tuple[Any, ...] = ()
        self._queue: SimpleQueue[tuple[Callable[[], object], int]] = SimpleQueue()
        # Several threads log; and one may log while it is logging, in garbage collection.
        self._lock = RLock()
        self._held = 0
        self._missing = 0  # dropped, and not told yet
        self._telling = False
        self._since: float | None = None  # when the observers got the event they have now
        self._wanted = False
        self._thread: Thread | None = None

    def install(self) -> None:
        """Stand before the observers that logging will begin with."""
        globalLogBeginner.beginLoggingTo = self.beginLoggingTo  # type: ignore[method-assign]

    def beginLoggingTo(self, observers: Iterable[ILogObserver], *given: Any, **more: Any) -> None:
        """Begin logging to `observers`, as a LogBeginner does."""
        self._observers = tuple(observers)
        self._begin([self], *given, **more)
        self._run()

    def start(self) -> None:
        """Write in a thread from now on; call it when the process has become a daemon."""
        self._wanted = True
        self._run()

    @property
    def running(self) -> bool:
        """Whether there is such a thread."""
        return self._thread is not None

    def __call__(self, event: LogEvent) -> None:
        if self._thread is None:
            self._deliver(event)
            return
        weight = _weight(event)
        if self._held + weight > self.most and not (self._missing or self._telling):
            self._wait()
        with self._lock:
            if not self._telling and (self._missing or self._held + weight > self.most):
                self._missing += 1
                self.dropped()
            else:
                self._put(partial(self._deliver, event), weight)

    def do(self, action: Callable[[], object]) -> None:
        """Call `action` in that thread, behind all that was logged before."""
        if self._thread is None:
            action()
        else:
            with self._lock:
                self._put(action, 0)

    def flush(self, seconds: float = FLUSH) -> bool:
        """Wait until all is written, so long at most; return whether it is."""
        if self._thread is None:
            return True
        with self._lock:
            self._tell()
        done = Event()
        self.do(done.set)
        return done.wait(seconds)

    @property
    def files(self) -> list[Any]:
        """The files that observers of Twisted's write to and that can be opened again."""
        files = [getattr(each, "_outFile", None) for each in self._observers]
        return [each for each in files if hasattr(each, "reopen")]

    def reopen(self) -> None:
        """Open these files again, since whoever keeps the log has moved them away."""
        for each in self.files:
            self.do(partial(_reopen, each))

    def end(self) -> None:
        """Write what is left; end the process at once if that takes too long."""
        if not self.flush():
            # The thread may hold a lock for which Python would wait.
            os._exit(self.status or int(hasattr(sys, "last_type")))

    def _run(self) -> None:
        if self._wanted and self._observers and self._thread is None:
            self._thread = Thread(target=self._write, name="log", daemon=True)
            self._thread.start()
            atexit.register(self.end)

    def _put(self, action: Callable[[], object], weight: int) -> None:
        self._held += weight
        self._queue.put((action, weight))

    def _tell(self) -> None:
        """Say how many are missing, behind those before them."""
        missing, self._missing = self._missing, 0
        if missing:
            self._telling = True
            log.error(
                "the log was not read: {missing} {are} missing here",
                missing=missing,
                are=plural(missing, "line is", "lines are"),
            )
            self._telling = False

    def _wait(self) -> None:
        """Let the thread catch up, unless it is stuck."""
        until = monotonic() + STUCK
        while self._held > self.most - self.most // 16:
            since, now = self._since, monotonic()
            if now > until or (since is not None and now - since > STUCK):
                return
            sleep(0.001)

    # What follows is called in the thread.

    def _write(self) -> None:
        # They are to interrupt what the main thread waits for.
        pthread_sigmask(SIG_BLOCK, valid_signals())
        while True:
            action, weight = self._queue.get()
            self._since = monotonic()
            # What is asked for may fail; the log goes on.
            with suppress(Exception):
                action()
            self._since = None
            # It may be the last to know what it holds.
            del action
            with self._lock:
                self._held -= weight
                if self._missing and self._held <= self.most // 2:
                    self._tell()

    def _deliver(self, event: LogEvent) -> None:
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                # There is no log to say it in.
                self.dropped()


def installed() -> LogQueue | None:
    """Return what stands before this process's log, if it is a :class:`LogQueue`."""
    found = getattr(globalLogBeginner.beginLoggingTo, "__self__", None)
    return found if isinstance(found, LogQueue) else None


def _weight(event: LogEvent) -> int:
    return EACH + sum(len(each) for each in event.values() if isinstance(each, (str, bytes)))


def _reopen(file: Any) -> None:
    try:
        # Once it is closed there is no way back.
        open(file.path, "ab").close()
        file.reopen()
    except OSError as problem:
        log.error("SIGUSR1: {path}: {why}", path=file.path, why=problem.strerror)
