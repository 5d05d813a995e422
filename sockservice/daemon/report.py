"""Log the counters at regular intervals."""

from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from sockservice.limits.counters import Counters

log = Logger()


class Report(Service):
    """Log `counters` as one line, and as fields, every `seconds` seconds."""

    def __init__(self, reactor: Any, counters: Counters, seconds: float) -> None:
        self._counters = counters
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
