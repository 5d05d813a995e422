"""Write the lines that a sender keeps over its present connection, no faster than the rate."""

from collections import deque
from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from sockservice.client.kept import Kept
from sockservice.client.pacing import Pacing


class Outflow:
    """Passes lines to `write` in their turn: of what is kept, from one number up to another."""

    def __init__(
        self, clock: IReactorTime, pacing: Pacing, write: Callable[[Kept, int, int], None]
    ) -> None:
        self._clock = clock
        self._pacing = pacing
        self._write = write
        self._left: deque[Kept] = deque()
        self._turn: IDelayedCall | None = None  # of the next line
        self._open = False

    def begin(self, kept: Iterable[Kept]) -> None:
        """Write all that has no reply over a new connection."""
        self.stop()
        self._open = True
        self._left.extend(kept)
        for each in self._left:
            each.written = each.count
        self._pump()

    def add(self, kept: Kept) -> None:
        """Write these lines behind all others; without a connection, do nothing."""
        if self._open:
            self._left.append(kept)
            if self._turn is None:
                self._pump()

    def drop(self, kept: Kept) -> None:
        """Write no more of these lines."""
        if kept in self._left:
            self._left.remove(kept)

    def stop(self) -> None:
        """Write nothing more, for the connection has ended."""
        self._open = False
        self._left.clear()
        turn, self._turn = self._turn, None
        if turn is not None and turn.active():
            turn.cancel()

    def _pump(self) -> None:
        self._turn = None
        while self._left:
            kept, now = self._left[0], self._clock.seconds()
            start = kept.written
            count = self._pacing.allowed(len(kept.lines) - start, now)
            if not count:
                self._turn = self._clock.callLater(self._pacing.wait(now), self._pump)
                return
            self._pacing.take(count)
            kept.written = end = start + count
            if end == len(kept.lines):
                self._left.popleft()
            self._write(kept, start, end)
