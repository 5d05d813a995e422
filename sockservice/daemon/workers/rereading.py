"""Wait until all workers that were told to read their files again have done so."""

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from sockservice.daemon.workers.process import Worker
from sockservice.wire.plurals import inSeconds

#: Seconds in which all have to do so, until they are waited for no more.
RELOADING = 30.0

log = Logger()


class Rereading:
    """The workers that have yet to read their files again; `reactor` is an IReactorTime."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._left: set[Worker] = set()
        self._done: Deferred[None] | None = None
        self._late: IDelayedCall | None = None

    def begin(self, workers: Iterable[Worker]) -> None:
        """These were told to."""
        self._left.update(workers)

    def done(self) -> Deferred[None]:
        """Return a Deferred that fires when none is left, after RELOADING seconds at the latest.

        Ask for one at a time.
        """
        if not self._left:
            return succeed(None)
        self._late = self._reactor.callLater(RELOADING, self._giveUp)
        self._done = Deferred()
        return self._done

    def leave(self, worker: Worker) -> None:
        """This one has, or never will."""
        self._left.discard(worker)
        if self._left or self._done is None:
            return
        if self._late is not None and self._late.active():
            self._late.cancel()
        done, self._done = self._done, None
        done.callback(None)

    def close(self) -> None:
        """Wait for none of them."""
        for worker in list(self._left):
            self.leave(worker)

    def _giveUp(self) -> None:
        for worker in sorted(self._left, key=lambda each: each.number):
            log.error(
                "worker {number} has not read its files again within {allowed}",
                number=worker.number,
                allowed=inSeconds(RELOADING),
            )
        self.close()
