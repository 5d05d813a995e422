"""The line with which a server greets, and which is no reply."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from sockservice.client.requests import Asked, TimedOut
from sockservice.client.waiting import Gate
from sockservice.wire.plurals import inSeconds


class Greeting(Gate):
    """Open once the greeting is there, or can't come any more; from the start if there is none.

    It is awaited like the reply to a line that was sent before all others.
    """

    def __init__(self, clock: IReactorTime, expected: bool) -> None:
        super().__init__(not expected)
        self.line: bytes | None = None
        self._missing: Failure | None = None
        self._clock = clock

    def awaited(self) -> list[Asked]:
        """Return what awaits it in the place of a line's reply, if it is expected."""
        if self.isOpen:
            return []
        asked = Asked(b"", self._clock, None)
        assert asked.reply is not None
        asked.reply.addCallbacks(self._came, self._failed)
        return [asked]

    def come(self, timeout: float | None) -> Deferred[None]:
        """Return a Deferred that fires when it is there, and fails when it can't or doesn't come.

        `timeout` is in seconds.
        """
        come = self.wait()
        if timeout is not None:
            come.addTimeout(timeout, self._clock, _silent)
        return come.addCallback(lambda _: self._missing)

    def _came(self, line: bytes) -> None:
        self.line = line
        self.open()

    def _failed(self, why: Failure) -> None:
        self._missing = why
        self.open()


def _silent(result: Any, timeout: float) -> Any:
    if isinstance(result, Failure) and result.check(CancelledError):
        raise TimedOut(f"no greeting within {inSeconds(timeout)}")
    return result
