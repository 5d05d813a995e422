"""Handle signals: SIGTERM and SIGINT drain and end the service, SIGHUP reloads."""

import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from sockservice.daemon.early import Early
from sockservice.daemon.readiness import Readiness

log = Logger()


class Signals(Service):
    """Stop the reactor, and so drain all services, when the process is told to end.

    Twisted's own handlers do so too, but make the process then die of the signal.
    `reload` is called for a SIGHUP; once it stops, a SIGHUP does nothing. What came before,
    `early` has kept. When it is told to end, `readiness` says so at once; the reactor stops
    `lameDuck` seconds later.
    """

    def __init__(
        self,
        reactor: Any,
        reload: Callable[[], object],
        early: Early | None = None,
        readiness: Readiness | None = None,
        lameDuck: float = 0,
    ) -> None:
        self._reactor = reactor
        self._reload = reload
        self._early = early
        self._readiness = Readiness(None) if readiness is None else readiness
        self._lameDuck = lameDuck
        self._ending = False
        self._before: dict[signal.Signals, Any] = {}

    def startService(self) -> None:
        super().startService()
        # At once, for whoever saw us listen may tell us to end; and again when the
        # reactor has installed its own.
        self._install()
        self._reactor.callWhenRunning(self._install)
        early = self._early
        if early is not None and early.ended is not None:
            self._reactor.callWhenRunning(self._stop, early.ended)
        elif early is not None and early.hungUp:
            self._reactor.callWhenRunning(self._reload)

    def _install(self) -> None:
        for number, received in (
            (signal.SIGINT, self._received),
            (signal.SIGTERM, self._received),
            (signal.SIGHUP, self._hungUp),
        ):
            # Whoever started us may want one of them ignored (nohup, `&` in a script).
            if signal.getsignal(number) is not signal.SIG_IGN:
                # Told before the reactor installed its own: a second one still ends at once.
                again = self._ending and number != signal.SIGHUP
                before = signal.signal(number, signal.SIG_DFL if again else received)
                self._before.setdefault(number, before)

    def stopService(self) -> None:
        super().stopService()
        self._readiness.unready()
        for number, before in self._before.items():
            if signal.getsignal(number) in (self._received, self._hungUp):
                # There is nothing to read again while we drain, nor a reason to die of it.
                signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else before)

    def _hungUp(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._reload)

    def _received(self, number: int, frame: object) -> None:
        self._ending = True
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        self._reactor.callFromThread(self._stop, signal.Signals(number).name)

    def _stop(self, name: str) -> None:
        self._readiness.unready()
        if self._lameDuck:
            log.info(
                "{name}: not ready any more, serving for {seconds:g} seconds; again ends at once",
                name=name,
                seconds=self._lameDuck,
            )
        self._reactor.callLater(self._lameDuck, self._end, name)

    def _end(self, name: str) -> None:
        log.info("{name}: answering what was received, then ending; again ends at once", name=name)
        with suppress(ReactorNotRunning):
            self._reactor.stop()
