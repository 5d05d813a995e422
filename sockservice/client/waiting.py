"""Wait for room in the transport, for lines that answer none, for the end."""

from collections import deque
from collections.abc import AsyncIterator, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


@implementer(IPushProducer)
class Room:
    """Room in the transport's buffer, and those who wait for it."""

    def __init__(self) -> None:
        self._there = True
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        if self._there:
            waiting.callback(None)
        else:
            self._waiting.append(waiting)
        return waiting

    def pauseProducing(self) -> None:
        self._there = False

    def resumeProducing(self) -> None:
        self._there = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def stopProducing(self) -> None:
        self.resumeProducing()


class Unasked:
    """What came and answers nothing, for whoever reads it."""

    def __init__(self) -> None:
        self.kept: deque[bytes] = deque()
        self.read = False  # by anyone, ever
        self.ended = False
        self._reading: Deferred[None] | None = None

    def wake(self) -> None:
        """Have the reader look again."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.callback(None)

    def end(self) -> None:
        """Nothing more will come."""
        self.ended = True
        self.wake()

    async def each(self, taken: Callable[[], object]) -> AsyncIterator[bytes]:
        """Give one by one, until the end; `taken` is told of each."""
        self.read = True
        while self.kept or not self.ended:
            if not self.kept:
                self._reading = Deferred()
                await self._reading
                continue
            item = self.kept.popleft()
            taken()
            yield item


class End:
    """The end of a connection, for any number of watchers."""

    def __init__(self) -> None:
        self.came = False
        self._watchers: list[Deferred[None]] = []

    def watch(self) -> Deferred[None]:
        watcher: Deferred[None] = Deferred()
        if self.came:
            watcher.callback(None)
        else:
            self._watchers.append(watcher)
        return watcher

    def come(self) -> None:
        self.came = True
        for watcher in self._watchers:
            watcher.callback(None)
