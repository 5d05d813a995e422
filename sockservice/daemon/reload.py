"""What may change while the service runs: at its start, and when SIGHUP has it read again.

Files are read in a thread: one on a network mount that hangs blocks whoever reads it.
"""

from collections.abc import Callable
from functools import partial
from signal import SIG_BLOCK, pthread_sigmask, valid_signals
from threading import Thread
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python import usage

from sockservice.daemon.allornone import AllOrNone
from sockservice.daemon.options import Options
from sockservice.daemon.shared import Shared
from sockservice.errors import CannotListen
from sockservice.limits.setting import Running
from sockservice.limits.settings import SETTINGS
from sockservice.net.bind.reuseport import Sharing
from sockservice.wire.plurals import inSeconds

#: Seconds between two reloads at least: a flood of signals is no flood of reading.
PAUSE = 0.2

log = Logger()


class Reloads:
    """Calls `read` in a thread when asked, and what that returns in the reactor's.

    At once, or PAUSE seconds after the last time; however often it is asked meanwhile, that is
    once. There is one thread at a time. What takes more than `timeout` seconds is told, by a
    call of `late` with what is to be said, and has no effect. `reactor` is an IReactorTime and
    an IReactorFromThreads.
    """

    def begun(self) -> None:
        """Called when files begin to be read; to be replaced."""

    def ended(self) -> Deferred[None] | None:
        """Called when what they say holds, or will not; to be replaced.

        If it returns a Deferred, nothing is read again before that fires.
        """
        return None

    def __init__(
        self,
        reactor: Any,
        read: Callable[[], Callable[[], object]],
        timeout: float,
        late: Callable[[str], object],
    ) -> None:
        self._reactor = reactor
        self._read = read
        self._timeout = timeout
        self._late = late
        self._last: float | None = None
        self._waiting: IDelayedCall | None = None
        self._reading: IDelayedCall | None = None  # until it is late; there is a thread
        self._again = False
        self._settling = False
        self._closed = False

    def ask(self) -> None:
        """Have it read."""
        if self._reading is not None:
            self._again = True
            if not self._reading.active():
                self.begun()
                self._tooLate("files are still being read")
        elif self._settling:
            self._again = True
        elif self._waiting is None:
            left = 0.0 if self._last is None else self._last + PAUSE - self._reactor.seconds()
            if left > 0:
                self._waiting = self._reactor.callLater(left, self._begin)
            else:
                self._begin()

    def close(self) -> None:
        """Have no effect any more."""
        self._closed = True
        for call in (self._waiting, self._reading):
            if call is not None and call.active():
                call.cancel()
        self._waiting = None

    def _begin(self) -> None:
        self._waiting = None
        self.begun()
        self._reading = self._reactor.callLater(
            self._timeout,
            self._tooLate,
            f"files could not be read within {inSeconds(self._timeout)} (--reload-timeout)",
        )
        Thread(target=self._work, name="reload", daemon=True).start()

    def _work(self) -> None:
        # They are to interrupt what the main thread waits for.
        pthread_sigmask(SIG_BLOCK, valid_signals())
        try:
            use = self._read()
        except Exception:
            use = partial(log.failure, "SIGHUP")
        self._reactor.callFromThread(self._done, use)

    def _done(self, use: Callable[[], object]) -> None:
        if self._closed:
            return
        reading, self._reading = self._reading, None
        assert reading is not None, "there was a thread"
        self._last = self._reactor.seconds()
        if reading.active():
            reading.cancel()
            use()
            ended = self.ended()
            if ended is not None:
                self._settling = True
                ended.addCallback(self._settled)
                return
        else:
            log.info("SIGHUP: files can be read again; another SIGHUP lets them hold")
        self._settled(None)

    def _settled(self, _: None) -> None:
        self._settling = False
        if self._again and not self._closed:
            self._again = False
            self.ask()

    def _tooLate(self, problem: str) -> None:
        self._late(problem)
        self.ended()


class Tuning(Service):
    """At its start, let hold what `options` say of all that may change later."""

    def __init__(self, options: Options, shared: Shared, service: AllOrNone) -> None:
        self._tune = lambda: _tune(options, shared, service)

    def startService(self) -> None:
        super().startService()
        self._tune()


def reloading(reactor: Any, options: Options, shared: Shared, service: AllOrNone) -> Reloads:
    """Make what reads again what may have changed."""

    def late(problem: str) -> None:
        shared.counters[""].unchanged += 1
        log.error("SIGHUP: {problem}; what was there before stays", problem=problem)

    return Reloads(
        reactor, lambda: reread(options, shared, service), options["reload-timeout"], late
    )


def reread(options: Options, shared: Shared, service: AllOrNone) -> Callable[[], None]:
    """Read again what may have changed, in any thread; give what lets it hold, in the reactor's.

    What is bad stays as it was, and is told.
    """
    problems: list[Exception] = []
    fresh = None
    try:
        fresh = options.again()
    except usage.UsageError as bad:
        problems.append(bad)
    uses, wrong = service.reread()
    problems[:0] = wrong

    def use() -> None:
        if options.known is None:
            options.read = fresh is not None
        if fresh is not None:
            try:
                if isinstance(shared.ask, Sharing) and fresh.limits().perSource:
                    shared.ask.steer()
            except CannotListen as bad:
                problems.append(bad)
            else:
                options.lists = fresh.lists
                _tune(fresh, shared, service)
                restart = ", ".join(f"--{each}" for each in fresh.unlike(options))
                if restart:
                    problems.append(CannotListen(f"{restart}: changed, which needs a restart"))
        for each in uses:
            each()
        shared.counters[""].unchanged += bool(problems)
        for problem in problems:
            log.error("SIGHUP: {problem}; what was there before stays", problem=problem)
        if not problems and options.read:
            log.info("SIGHUP: limits, networks and certificates have been read again")

    return use


def _tune(options: Options, shared: Shared, service: AllOrNone) -> None:
    """Let hold what `options` say of all that may change."""
    shared.admission.change(options.limits())
    running = Running(shared.memory, shared.journal, service.listeners)
    for setting in SETTINGS:
        if setting.reloads:
            shared.inForce[setting.name] = options[setting.name]
        if setting.live is not None:
            setting.live(running, options.share(setting.name))
