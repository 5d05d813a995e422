"""Close a connection such that its last bytes arrive: half-close, and go on reading a while.

Unread input would turn the close into a reset, which destroys what the peer has not read yet
(RFC 1122, 4.2.2.13).
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall


class Linger:
    """The end of a connection from this side; `expired` is called after `seconds`, unless it ends.

    The transport has to be one that half-closes.
    """

    __slots__ = ("_timer",)

    def __init__(
        self, transport: Any, clock: Any, seconds: float, expired: Callable[[], object]
    ) -> None:
        transport.loseWriteConnection()
        transport.resumeProducing()
        self._timer: IDelayedCall = clock.callLater(seconds, expired)

    def active(self) -> bool:
        """Whether it is still waited for the peer."""
        return self._timer.active()

    def cancel(self) -> None:
        """Wait no longer: the connection has ended."""
        if self._timer.active():
            self._timer.cancel()
