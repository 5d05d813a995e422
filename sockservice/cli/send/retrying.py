"""The sender behind `sockservice send --retry`, and behind several targets."""

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionClosed

from sockservice.cli.status import NOT_ALL, NOT_CONNECTED, TIMED_OUT
from sockservice.client.reliable import ReliableSender
from sockservice.client.requests import TimedOut, Unanswered
from sockservice.wire.plurals import counted, inSeconds


class Retrying(ReliableSender):
    """A sender that reports retries to `said`, and unrequested lines to `heard`.

    `failed` is called when it gives up, with the reason and the exit status.
    """

    said: Callable[[str], None]
    heard: Callable[[bytes], None]
    failed: Callable[[str, int], None]

    #: Lines that need not be sent, and their bytes.
    skipped = skippedBytes = 0
    #: Why to begin once more with the whole input, or "".
    again = ""

    def begun(self) -> Deferred[None]:
        """Return a Deferred that fires when lines may be sent."""
        return succeed(None)

    def retrying(self, why: str, delay: float) -> None:
        when = f"trying again in {inSeconds(round(delay, 1))}" if delay else "trying the next"
        self.said(f"{why}; {when}, {counted(self.outstanding, 'line')} unacknowledged")

    def gaveUp(self, why: str, cause: BaseException | None) -> None:
        status = NOT_CONNECTED
        if isinstance(cause, TimedOut):
            status = TIMED_OUT
        elif cause is None or isinstance(cause, (Unanswered, ConnectionClosed)):
            status = NOT_ALL
        self.failed(why, status)

    def using(self, name: str) -> None:
        self.said(f"connected to {name}")

    def unasked(self, line: bytes) -> None:
        self.heard(line)
