"""Obey signals: SIGTERM and SIGINT drain and end the service, SIGHUP has files read again."""

import signal
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from sockservice.daemon.early import USELESS, Early
from sockservice.daemon.logqueue import installed
from sockservice.daemon.readiness import Readiness
from sockservice.daemon.reload import Reloads
from sockservice.daemon.signalqueue import SignalQueue
from sockservice.wire.plurals import inSeconds

log = Logger()

#: What tells the service to end.
ENDING = (signal.SIGINT, signal.SIGTERM)


class Signals(Service):
    """Stop the reactor, and so drain all services, when the process is told to end.

    Twisted's own handlers do so too, but make the process then die of the signal.
    `reloads` is asked at a SIGHUP; once it stops, a SIGHUP does nothing. What came before,
    `early` has kept. SIGUSR1 has the log's file opened again, where there is one, and does
    nothing otherwise, as SIGUSR2. When it is told to end, `readiness` says so at once; the
    reactor stops `lameDuck` seconds later.
    """

    def __init__(
        self,
        reactor: Any,
        reloads: Reloads,
        early: Early | None = None,
        readiness: Readiness | None = None,
        lameDuck: float = 0,
    ) -> None:
        self._reactor = reactor
        self._reloads = reloads
        self._queue = SignalQueue(
            reactor, {signal.SIGHUP: self._reloads.ask, signal.SIGUSR1: self._reopen}
        )
        self._early = early
        self._readiness = Readiness(None) if readiness is None else readiness
        self._lameDuck = lameDuck
        self._ending = False
        self._before: dict[signal.Signals, Any] = {}

    def startService(self) -> None:
        super().startService()
        # At once, for whoever saw us listen may tell us to end; and again when the
        # reactor has installed its own, which nothing reaches.
        self._install()
        self._reactor.addSystemEventTrigger(
            "before", "startup", signal.pthread_sigmask, signal.SIG_BLOCK, ENDING
        )
        self._reactor.callWhenRunning(self._installAgain)
        early = self._early
        if early is not None and early.ended is not None:
            self._reactor.callWhenRunning(self._stop, early.ended)
        elif early is not None and early.hungUp:
            self._reactor.callWhenRunning(self._reloads.ask)

    def _installAgain(self) -> None:
        self._install()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)

    def _install(self) -> None:
        for number, received in (
            (signal.SIGINT, self._received),
            (signal.SIGTERM, self._received),
            (signal.SIGHUP, self._queue.receiver),
        ):
            # Whoever started us may want one of them ignored (nohup, `&` in a script).
            if signal.getsignal(number) is not signal.SIG_IGN:
                # Told before the reactor installed its own: a second one still ends at once.
                again = self._ending and number != signal.SIGHUP
                before = signal.signal(number, signal.SIG_DFL if again else received)
                self._before.setdefault(number, before)
        for number in USELESS:
            before = signal.signal(number, self._useless(number))
            self._before.setdefault(number, before)

    def stopService(self) -> None:
        super().stopService()
        self._readiness.unready()
        for number, before in self._before.items():
            if signal.getsignal(number) == self._received:
                signal.signal(number, before)
            elif self._queue.receives(number):
                # There is nothing to read again while we drain, nor a reason to die of it.
                signal.signal(number, signal.SIG_IGN)
        self._reloads.close()
        self._queue.close()

    def _useless(self, number: int) -> Any:
        writing = installed()
        opens = number == signal.SIGUSR1 and writing is not None and writing.files
        return self._queue.receiver if opens else signal.SIG_IGN

    def _reopen(self) -> None:
        writing = installed()
        if writing is not None:
            writing.reopen()

    def _received(self, number: int, frame: object) -> None:
        self._ending = True
        for each in ENDING:
            signal.signal(each, signal.SIG_DFL)
        self._reactor.callFromThread(self._stop, signal.Signals(number).name)

    def _stop(self, name: str) -> None:
        self._readiness.unready()
        if self._lameDuck:
            log.info(
                "{name}: not ready any more, serving for {wait}; again ends at once",
                name=name,
                wait=inSeconds(self._lameDuck),
            )
        self._reactor.callLater(self._lameDuck, self._end, name)

    def _end(self, name: str) -> None:
        log.info("{name}: answering what was received, then ending; again ends at once", name=name)
        with suppress(ReactorNotRunning):
            self._reactor.stop()
