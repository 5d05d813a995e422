"""Account for the lines in flight, and decide whether more may be sent."""

import math
from collections import deque

from sockservice.cli.send.window import WINDOW, window


def size(lines: list[bytes]) -> int:
    """Return the bytes of `lines`, with an ending of one byte each."""
    return sum(map(len, lines)) + len(lines)


def portion(lines: list[bytes], most: int) -> tuple[int, int]:
    """Return how many of the first lines to send at once, and their bytes."""
    count = min(most, len(lines))
    while (bytes := size(lines[:count])) > WINDOW // 2 and count > 1:
        count //= 2
    return count, bytes


class Burst:
    """Lines sent at once, and how many of them have been answered."""

    __slots__ = ("before", "count", "first", "lines", "sent")

    def __init__(self, first: int, lines: list[bytes], sent: float, before: int) -> None:
        self.first = first  # its number, from 1
        self.lines = lines
        self.count = 0
        self.sent = sent
        self.before = before  # bytes answered when it was sent


class Flight:
    """Bursts in flight, at most `most` lines; times are in seconds."""

    def __init__(self, most: int) -> None:
        self.most = most
        #: Those not answered whole, whether or not replies may still come.
        self.bursts: deque[Burst] = deque()
        #: Lines whose reply may still come.
        self.awaited = 0
        #: Bytes of the lines that were answered.
        self.answeredBytes = 0
        self._awaitedBytes = 0
        self._shortest = math.inf  # seconds of a round trip
        self._fastest = 0.0  # bytes a second

    def admits(self, lines: int, bytes: int) -> bool:
        """Return whether so many more lines, of so many bytes, may be sent now."""
        if not self.awaited:
            return True
        room = window(self._shortest, self._fastest) - self._awaitedBytes
        return self.awaited + lines <= self.most and bytes <= room

    def add(self, first: int, lines: list[bytes], now: float) -> Burst:
        """Note that `lines`, from number `first` on, are being sent."""
        burst = Burst(first, lines, now, self.answeredBytes)
        self.bursts.append(burst)
        self.awaited += len(lines)
        self._awaitedBytes += size(lines)
        return burst

    def answered(self, burst: Burst, count: int, now: float) -> float:
        """Note that the next `count` lines of a burst are answered; return how long that took."""
        start, burst.count = burst.count, burst.count + count
        bytes = size(burst.lines[start : burst.count])
        self.awaited -= count
        self._awaitedBytes -= bytes
        self.answeredBytes += bytes
        if burst.count == len(burst.lines):
            self.bursts.remove(burst)
        took = now - burst.sent
        if start == 0:
            self._shortest = min(self._shortest, took)
        if took > 0:
            self._fastest = max(self._fastest, (self.answeredBytes - burst.before) / took)
        return took

    def unfinished(self) -> tuple[int, int]:
        """Return the number of the first line that has no reply, and how many have none."""
        left = sum(len(burst.lines) - burst.count for burst in self.bursts)
        return (self.bursts[0].first + self.bursts[0].count if left else 0), left

    def unanswered(self, burst: Burst) -> None:
        """Note that the rest of a burst will not be answered."""
        left = burst.lines[burst.count :]
        self.awaited -= len(left)
        self._awaitedBytes -= size(left)
