"""Keep replies in order while some of them are awaited."""

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from sockservice.server.answers import awaited, cancel

#: Bytes that an awaited answer takes up, about.
AWAITED_SIZE = 500


class Due:
    """The place of the replies to some lines."""

    __slots__ = ("awaited", "data", "lines", "size")

    def __init__(self, lines: int, size: int) -> None:
        self.lines = lines
        self.size = size
        self.data: bytes | None = None  # until they are there
        self.awaited: Deferred[Any] | None = None


class Replies:
    """The replies of one connection, in order, from the first that must be waited for.

    `changed` is called when one has come.
    """

    __slots__ = ("_changed", "_due", "held", "outstanding")

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._due: deque[Due] = deque()
        #: Lines whose replies are here.
        self.outstanding = 0
        #: Bytes of these lines and replies.
        self.held = 0

    def put(self, data: bytes, lines: int) -> None:
        """Take the replies to `lines` lines."""
        self.expect(lines, len(data)).data = data

    def expect(self, lines: int, size: int) -> Due:
        """Keep the place of the replies to `lines` lines of `size` bytes; `fill` it later."""
        due = Due(lines, size)
        self._due.append(due)
        self.outstanding += lines
        self.held += size
        return due

    def fill(self, due: Due, data: bytes) -> None:
        """Put the replies where their place was kept."""
        self.held += len(data) - due.size
        due.size = len(data)
        due.data = data

    def wait(
        self,
        answer: object,
        lines: int,
        size: int,
        encoded: Callable[[Any], bytes],
        failed: Callable[[Failure], bytes],
    ) -> None:
        """Keep the place of an answer that comes later, to `lines` lines of `size` bytes."""
        deferred = awaited(answer)
        due = self.expect(lines, size + AWAITED_SIZE)
        due.awaited = deferred
        deferred.addCallback(encoded).addErrback(failed).addCallback(self._came, due)

    def take(self) -> list[bytes]:
        """Return the replies that wait for no earlier one."""
        ready: list[bytes] = []
        while self._due and self._due[0].data is not None:
            due = self._due.popleft()
            self.outstanding -= due.lines
            self.held -= due.size
            ready.append(due.data)  # type: ignore[arg-type]
        return ready

    def cancel(self) -> None:
        """Await nothing more."""
        due, self._due = self._due, deque()
        for waiting in due:
            answer, waiting.awaited = waiting.awaited, None
            if answer is not None:
                cancel(answer)
        self.held = 0

    def _came(self, data: bytes, due: Due) -> None:
        if due.awaited is None:
            # It came although it had been cancelled.
            return
        due.awaited = None
        self.fill(due, data)
        self._changed()


#: Stands where no answer has had to be awaited yet; nothing is ever put into it.
NONE_AWAITED = Replies(lambda: None)
