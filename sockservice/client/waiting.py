"""Wait for room in the transport, for unrequested lines, for the end of a connection."""

from collections import deque
from collections.abc import AsyncIterator, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


class Gate:
    """Holds back callers until it is open."""

    def __init__(self, isOpen: bool) -> None:
        self.isOpen = isOpen
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        """Return a Deferred that fires when the gate is open, now or later."""
        waiting: Deferred[None] = Deferred()
        if self.isOpen:
            waiting.callback(None)
        else:
            self._waiting.append(waiting)
        return waiting

    def open(self) -> None:
        """Let all waiting callers through, and later ones at once."""
        self.isOpen = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)


@implementer(IPushProducer)
class Room(Gate):
    """Open while there is room in the transport's buffer."""

    def __init__(self) -> None:
        super().__init__(True)

    def pauseProducing(self) -> None:
        self.isOpen = False

    def resumeProducing(self) -> None:
        self.open()

    def stopProducing(self) -> None:
        self.open()


class Unasked:
    """Keeps lines or datagrams that answer none until they are read."""

    def __init__(self) -> None:
        self.kept: deque[bytes] = deque()
        self.read = False  # by anyone, ever
        self.ended = False
        self._reading: Deferred[None] | None = None

    def wake(self) -> None:
        """Wake the reader."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.callback(None)

    def end(self) -> None:
        """End the reading once all is read."""
        self.ended = True
        self.wake()

    async def each(self, taken: Callable[[], object]) -> AsyncIterator[bytes]:
        """Yield one by one, until the end; `taken` is called for each."""
        self.read = True
        while self.kept or not self.ended:
            if not self.kept:
                self._reading = Deferred()
                await self._reading
                continue
            item = self.kept.popleft()
            taken()
            yield item
