"""Requests that wait for their replies."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from sockservice.wire.plurals import inSeconds


class Unanswered(Exception):
    """There is no reply, or none that can be told from others; the text says why."""


class TimedOut(Unanswered):
    """There was no reply in time; a late one is not taken for another's."""


def late(timeout: float) -> str:
    """Say that there was no reply for so many seconds."""
    return f"no reply within {inSeconds(timeout)}"


class Discarded(bytes):
    """Takes the place of a reply that was not accepted; the text, which says why, is ours."""


class Asked:
    """A line or datagram that was sent, and the reply to it.

    `torn` gives what has come of a reply that is not whole, in words; see :class:`Framed`.
    """

    __slots__ = ("_clock", "_torn", "datagram", "reply", "timeout")

    def __init__(
        self,
        datagram: bytes,
        clock: IReactorTime,
        timeout: float | None,
        torn: Callable[[], str] = str,
    ) -> None:
        self.datagram = datagram
        self._torn = torn
        self.reply: Deferred[bytes] | None = Deferred(self._cancelled)
        self._clock = clock
        self.timeout: IDelayedCall | None = None
        self.start(timeout)

    def start(self, timeout: float | None) -> None:
        """Fail in `timeout` seconds from now, unless it is None."""
        if timeout is not None:
            self.timeout = self._clock.callLater(timeout, self._due, timeout)

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
        self.fail(TimedOut(f"{late(timeout)}{self._torn()}"))

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
