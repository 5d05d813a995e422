"""Requests that wait for their replies."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


class Unanswered(Exception):
    """There is no reply, or none that can be told from others; the text says why."""


class TimedOut(Unanswered):
    """There was no reply in time; a late one is not taken for another's."""


class Asked:
    """A line or datagram that was sent, and the reply to it."""

    __slots__ = ("_clock", "datagram", "reply", "timeout")

    def __init__(self, datagram: bytes, clock: IReactorTime, timeout: float | None) -> None:
        self.datagram = datagram
        self.reply: Deferred[bytes] | None = Deferred(self._cancelled)
        self._clock = clock
        self.timeout = None if timeout is None else clock.callLater(timeout, self._due, timeout)

    def answer(self, reply: bytes) -> None:
        waiting = self._settle()
        if waiting is not None:
            waiting.callback(reply)

    def fail(self, why: Unanswered) -> None:
        waiting = self._settle()
        if waiting is not None:
            waiting.errback(why)

    def _settle(self) -> Deferred[bytes] | None:
        if self.timeout is not None and self.timeout.active():
            self.timeout.cancel()
        waiting, self.reply = self.reply, None
        return waiting

    def _due(self, timeout: float) -> None:
        # The process may have been suspended, and the reply may be waiting to be read.
        self.timeout = self._clock.callLater(0, self._expire, timeout)

    def _expire(self, timeout: float) -> None:
        self.fail(TimedOut(f"no reply within {timeout:g} seconds"))

    def _cancelled(self, _: object) -> None:
        self._settle()


class Run:
    """Lines that were sent at once, and the callback for their replies."""

    __slots__ = ("answered", "done", "left", "since", "timeout")

    def __init__(
        self,
        count: int,
        answered: Callable[[list[bytes]], object],
        since: float,
        timeout: float | None,
    ) -> None:
        self.left = count
        self.answered: Callable[[list[bytes]], object] | None = answered
        self.since = since
        self.timeout = timeout
        self.done: Deferred[None] = Deferred()
