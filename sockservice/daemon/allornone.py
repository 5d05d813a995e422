"""Start all listeners or none, and sum up at the end."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import inlineCallbacks
from twisted.logger import Logger, LogLevel

from sockservice.daemon.early import Early, interrupt
from sockservice.daemon.listeners import Listeners
from sockservice.daemon.services import (
    Listener,
)
from sockservice.errors import CannotListen, CannotStart
from sockservice.limits.counters import Counters
from sockservice.limits.lograte import Journal
from sockservice.store.groupcommit import Store

log = Logger()


class AllOrNone(MultiService):
    """Start every listener within, or tell on stderr why not and end the process.

    `store` is opened before any of them serves, and closed when all have drained; then
    `journal` sums up, and what `counters` say is the log's last word.
    """

    def __init__(
        self,
        store: Store | None = None,
        counters: Counters | None = None,
        journal: Journal | None = None,
        early: Early | None = None,
    ) -> None:
        super().__init__()
        self._counters = counters
        self._store = store
        self._journal = journal
        self._early = early

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

    @inlineCallbacks
    def stopService(self) -> Any:
        """Drain all listeners, close the store, and sum up in the log."""
        yield super().stopService()
        if self._store is not None:
            yield self._store.stop()
        if self._journal is not None:
            self._journal.close()
        if self._counters is not None:
            counters = self._counters
            log.info("ended: {counters}", counters=str(counters), counts=counters.counts())

    def change(self, lineLimit: int, drainTimeout: float) -> None:
        """Have every listener go by these from now on; see `Listener.change`."""
        for service in self:
            if isinstance(service, (Listeners, Listener)):
                service.change(lineLimit, drainTimeout)

    def reload(self) -> list[CannotListen]:
        """Have every listener read its files again; give what is wrong with them."""
        problems = []
        for service in self:
            if isinstance(service, (Listeners, Listener)):
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
            for service in self:
                if isinstance(service, (Listeners, Listener)):
                    service.abandon()
            if early is not None:
                early.began()
            level = LogLevel.info if problem.code == 0 else LogLevel.error
            log.emit(level, "{problem}", problem=problem)
            # twistd has put its log in sys.stderr's place.
            print(f"sockservice: {problem}", file=sys.__stderr__)
            raise
