"""Start all listeners or none, and sum up at the end."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger, LogLevel

from sockservice.daemon.early import Early, interrupt
from sockservice.daemon.exit import leave
from sockservice.daemon.listeners import Listeners
from sockservice.daemon.services import Listener
from sockservice.errors import CannotListen, CannotStart
from sockservice.limits.counters import Counters
from sockservice.limits.lograte import Journal
from sockservice.store.groupcommit import Store

#: Seconds that a store may take to close after its last line is durable.
CLOSING = 1.0

log = Logger()


class AllOrNone(MultiService):
    """Start every listener within, or tell on stderr why not and end the process.

    `store` is opened before any of them serves, and closed when all have drained; then
    `journal` sums up, and what `counters` say is the log's last word. `early` takes signals
    until then. Stopping lasts `drainTimeout` seconds at most, by `reactor`, and CLOSING more
    where all lines are durable and the store only has to be closed.
    """

    def ready(self) -> None:
        """Called when all of it is started; to be replaced."""

    def __init__(
        self,
        store: Store | None = None,
        counters: Counters | None = None,
        journal: Journal | None = None,
        early: Early | None = None,
        reactor: Any = None,
    ) -> None:
        super().__init__()
        self._counters = counters
        self._store = store
        self._journal = journal
        self._early = early
        self._reactor = reactor

    def privilegedStartService(self) -> None:
        with self._told():
            super().privilegedStartService()

    def startService(self) -> None:
        with self._told():
            if self._store is not None:
                self._store.start()
            super().startService()
            # What is here now stays to the end, so the collector need not look through it
            # again and again: the longest pauses become half as long.
            gc.freeze()
        self.ready()

    @property
    def drainTimeout(self) -> float:
        """Seconds in which all is to be answered, stored and closed."""
        return max((each.drainTimeout for each in self.listeners()), default=10.0)

    @inlineCallbacks
    def stopService(self) -> Any:
        """Drain all listeners, close the store, and sum up in the log."""
        stopping = super().stopService()
        if self._store is None:
            yield stopping
        else:
            began = self._reactor.seconds()
            yield stopping
            took = self._reactor.seconds() - began
            yield _closed(self._reactor, self._store, max(0.0, self.drainTimeout - took))
        if self._journal is not None:
            self._journal.close()
        if self._counters is not None:
            counters = self._counters
            log.info("ended: {counters}", counters=str(counters), counts=counters.counts())

    def listeners(self) -> Iterator[Listener]:
        """Give every listener there is by now."""
        for service in self:
            if isinstance(service, Listeners):
                yield from service
            elif isinstance(service, Listener):
                yield service

    @property
    def connections(self) -> int:
        """How many connections are served now."""
        return sum(each.connections for each in self.listeners())

    def retire(self) -> None:
        """Take no new connections and datagrams: another process does, on the same sockets."""
        for each in self.listeners():
            each.retire()

    @property
    def _listeners(self) -> Iterator[Listeners | Listener]:
        for service in self:
            if isinstance(service, (Listeners, Listener)):
                yield service

    def reload(self) -> list[CannotListen]:
        """Have every listener read its files again; give what is wrong with them."""
        problems = []
        for service in self._listeners:
            try:
                service.reload()
            except CannotListen as problem:
                problems.append(problem)
        return problems

    @contextmanager
    def _told(self) -> Iterator[None]:
        early = self._early
        try:
            if early is not None:
                early.ending = interrupt
                early.check()
            yield
            if early is not None:
                early.began()
                early.check()
        except CannotStart as problem:
            for service in self._listeners:
                service.abandon()
            if early is not None:
                early.began()
            level = LogLevel.info if problem.code == 0 else LogLevel.error
            log.emit(level, "{problem}", problem=problem)
            # twistd has put its log in sys.stderr's place.
            print(f"sockservice: {problem}", file=sys.__stderr__)
            raise


def _closed(reactor: Any, store: Store, seconds: float) -> Deferred[None]:
    """Close `store`; fires when that is done, or when it is left as it is."""
    closed: Deferred[None] = Deferred()
    waiting: Any = None

    def late(more: float) -> None:
        nonlocal waiting
        if more and not store.unsettled:
            waiting = reactor.callLater(more, late, 0.0)
            return
        log.error(
            "the store did not close within --drain-timeout: {what}",
            what="what is not synced by now is left, unacknowledged"
            if store.unsettled
            else "it is left open, with all that was acknowledged",
        )
        leave()
        closed.callback(None)

    def done(_: None) -> None:
        if waiting.active():
            waiting.cancel()
            closed.callback(None)

    waiting = reactor.callLater(seconds, late, CLOSING)
    store.stop().addCallback(done)
    return closed
