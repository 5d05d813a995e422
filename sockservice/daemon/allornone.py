"""Start all listeners or none, and sum up at the end."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger, LogLevel

from sockservice.daemon.early import Early, interrupt
from sockservice.daemon.exit import endSoon, leave, tell
from sockservice.daemon.listeners import Listeners
from sockservice.daemon.logqueue import LogQueue
from sockservice.daemon.services import Listener
from sockservice.errors import CannotListen, CannotStart
from sockservice.limits.counters import CounterSet
from sockservice.limits.lograte import Journal
from sockservice.store.groupcommit import Store

if TYPE_CHECKING:
    from sockservice.daemon.statuslistener import StatusListener

#: Seconds that a store may take to close after its last line is durable.
CLOSING = 1.0

log = Logger()


class AllOrNone(MultiService):
    """Start every listener within, or tell on stderr why not and end the process.

    `store` is opened before any of them serves, and closed when all have drained; then
    `journal` sums up, and what `counters` say is the log's last word. `early` takes signals
    until then. Stopping lasts `drainTimeout` seconds at most, by `reactor`, and CLOSING more
    where all lines are durable and the store only has to be closed. `writing` writes the log
    in a thread as soon as it starts; when all has ended, so does the process.
    """

    def ready(self) -> None:
        """Called when all of it is started; to be replaced."""

    def ended(self) -> None:
        """Called when all of it has ended; to be replaced."""

    def __init__(
        self,
        store: Store | None = None,
        counters: CounterSet | None = None,
        journal: Journal | None = None,
        early: Early | None = None,
        reactor: Any = None,
        writing: LogQueue | None = None,
    ) -> None:
        super().__init__()
        self._counters = counters
        self._store = store
        self._journal = journal
        self._early = early
        self._reactor = reactor
        self._writing = writing
        #: The status page's listener, which serves until all else has ended.
        self.status: StatusListener | None = None

    def privilegedStartService(self) -> None:
        self._write()
        with self._told():
            super().privilegedStartService()
            if self.status is not None:
                self.status.privilegedStartService()
            self.distinguish()

    def startService(self) -> None:
        self._write()
        with self._told():
            if self._store is not None:
                self._store.start()
            super().startService()
            if self.status is not None:
                self.status.startService()
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
        if self.status is not None:
            yield self.status.stopService()
        if self._journal is not None:
            self._journal.close()
        if self._counters is not None:
            counters = self._counters
            log.info("ended: {counters}", counters=str(counters), counts=counters.counts())
        self.ended()
        # Otherwise the process is not ours.
        if self._writing is not None and self._writing.running:
            endSoon(self._reactor, self._writing)

    def _write(self) -> None:
        # Here and no sooner: twistd has forked by now.
        if self._writing is not None:
            self._writing.start()

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

    def distinguish(self) -> None:
        """See that no socket that was passed to this process is served by two listeners.

        :raises CannotListen: One is.
        """
        known: dict[int, str] = {}
        found: list[Listener | StatusListener] = [*self.listeners()]
        if self.status is not None:
            found.append(self.status)
        for each in found:
            if each.inode is None:
                continue
            if each.inode in known:
                raise CannotListen(
                    f"{known[each.inode]}, and {each.label}: these are one socket, "
                    "which only one listener can serve"
                )
            known[each.inode] = each.label

    @property
    def _listeners(self) -> Iterator[Listeners | Listener]:
        for service in self:
            if isinstance(service, (Listeners, Listener)):
                yield service

    def reread(self) -> tuple[list[Callable[[], object]], list[CannotListen]]:
        """Read the files of every listener again, in any thread.

        Give what lets them hold, to be called in the reactor's, and what is wrong with others.
        """
        uses, problems = [], []
        found: list[Listener | StatusListener] = [*self.listeners()]
        if self.status is not None:
            found.append(self.status)
        for each in found:
            try:
                uses.append(each.reread())
            except CannotListen as problem:
                problems.append(problem)
        return uses, problems

    @contextmanager
    def _told(self) -> Iterator[None]:
        early = self._early
        try:
            if early is not None:
                early.ending = interrupt
                early.check()
            try:
                yield
            except OSError as problem:
                raise CannotStart(f"cannot start: {problem.strerror or problem}") from problem
            if early is not None:
                early.began()
                early.check()
        except CannotStart as problem:
            for service in self._listeners:
                service.abandon()
            if self.status is not None:
                self.status.abandon()
            if early is not None:
                early.began()
            level = LogLevel.info if problem.code == 0 else LogLevel.error
            log.emit(level, "{problem}", problem=problem)
            if self._writing is not None:
                self._writing.status = problem.code
            tell(str(problem))
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
        store.giveUp()
        leave()
        closed.callback(None)

    def done(_: None) -> None:
        if waiting.active():
            waiting.cancel()
            closed.callback(None)

    waiting = reactor.callLater(seconds, late, CLOSING)
    store.stop().addCallback(done)
    return closed
