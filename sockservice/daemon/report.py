"""What was done so far, in one line: for the log, at regular intervals, and for systemd."""

from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from sockservice.limits.counters import Counters, CounterSet
from sockservice.store.groupcommit import Store
from sockservice.store.nats.nodes import described
from sockservice.wire.plurals import counted

log = Logger()


def figures(counters: Counters, connections: int | None, store: Store | None) -> str:
    """Return the figures that matter most; `connections` are those of now, where they are known."""
    now = "" if connections is None else f"{connections} now, "
    problem = "" if store is None else store.refusing
    refusing = f"; lines are refused, for they cannot be stored: {problem}" if problem else ""
    return (
        f"connections: {now}{counters.connections} so far; "
        f"{counted(counters.lines, 'line')}, {counters.acknowledged} acknowledged, "
        f"{counters.refused} refused; "
        f"{counted(counters.datagrams, 'datagram')}{refusing}"
    )


class Report(Service):
    """Log `counters` as one line, and as fields, every `seconds` seconds; and a store's nodes."""

    def __init__(
        self, reactor: Any, counters: CounterSet, seconds: float, store: Store | None = None
    ) -> None:
        self._counters = counters
        self._store = store
        self._seconds = seconds
        self._loop = LoopingCall(self._report)
        self._loop.clock = reactor

    def startService(self) -> None:
        super().startService()
        self._loop.start(self._seconds, now=False)

    def stopService(self) -> None:
        super().stopService()
        self._loop.stop()

    def _report(self) -> None:
        counters = self._counters
        log.info("so far: {counters}", counters=str(counters), counts=counters.counts())
        nodes = "" if self._store is None else described(self._store.writer.figures)
        if nodes:
            log.info("nodes of the store: {nodes}", nodes=nodes)
