"""Limit the rate of log lines: so many of a kind are written, the rest are counted."""

from collections import Counter
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from sockservice.wire.plurals import inSeconds

#: Seconds after which the lines not written are summed up.
PERIOD = 10.0
#: Kinds with a limit of their own that are distinguished in that time; others are one.
KINDS = 100
#: Lines of one kind written in that time: as many as somebody may want to read.
LOG_LIMIT = 200
#: Bytes of events that may wait to be written: some eight thousand lines, more than a busy
#: service logs while a disk is slow.
LOG_QUEUE = 8 << 20

log = Logger()


class Journal:
    """Decides which log lines are written: `most` of each kind in PERIOD seconds; 0 is no limit.

    `clock` is an IReactorTime.
    """

    def __init__(self, clock: Any, most: int = LOG_LIMIT) -> None:
        self.most = most
        self._clock = clock
        self._seen: Counter[str] = Counter()
        self._left: Counter[str] = Counter()
        self._began = clock.seconds()
        self._summing: IDelayedCall | None = None

    def admits(self, kind: str, most: int | None = None) -> bool:
        """Return whether one more line of this kind is to be written; otherwise count it.

        `kind` is words that fit behind `3 more in 10 seconds: `. `most` is this
        kind's own limit, for kinds of which peers can make many.
        """
        if not self.most:
            return True
        limit = self.most if most is None else most
        now = self._clock.seconds()
        if self._summing is None and not now < self._began + PERIOD:
            self._began = now
            self._seen.clear()
        # Kinds without a limit of their own are few; peers cannot crowd them out.
        if most is not None and kind not in self._seen and len(self._seen) >= KINDS:
            kind = "of other kinds"
        elif self._seen[kind] < limit:
            self._seen[kind] += 1
            return True
        self._left[kind] += 1
        if self._summing is None:
            self._summing = self._clock.callLater(self._began + PERIOD - now, self._sumUp)
        return False

    def close(self) -> None:
        """Sum up at once."""
        if self._summing is not None:
            self._summing.cancel()
            self._sumUp()

    def _sumUp(self) -> None:
        self._summing = None
        self._began = self._clock.seconds()
        for kind, more in self._left.items():
            log.info("{more} more in {time}: {kind}", more=more, time=inSeconds(PERIOD), kind=kind)
        self._seen.clear()
        self._left.clear()
