"""Answers that come later: await them all alike, and keep replies in order."""

from collections import deque
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.escaping import printable

#: Bytes that an awaited answer takes up, about.
AWAITED_SIZE = 500

#: What a protocol says to a line or datagram: the reply, None for silence, or
#: a coroutine or Deferred of either.
Answer = bytes | None | Awaitable[bytes | None]

log = Logger()


class Refused(Exception):
    """Raise it from an answer to refuse a line: its text follows `error ` in the reply.

    It is no failure: nothing is logged but the count of refusals.
    """


def refusal(failure: Failure) -> bytes:
    """Give the reply, on one line, that a :class:`Refused` stands for."""
    return b"error " + str(failure.value).replace("\n", " ").encode()


def escaped(failure: Failure) -> Failure:
    """Make a failure fit for the log: a peer's bytes in its text can't command a terminal."""
    said = "\n".join(map(printable, failure.getTraceback().split("\n")))
    failure.getTraceback = lambda *_, **__: said  # type: ignore[method-assign]
    return failure


def awaited(answer: object) -> Deferred[Any]:
    """Give the Deferred of an answer that is not there; it fails if it never can be."""
    if isinstance(answer, Deferred):
        return answer
    if isawaitable(answer):
        return Deferred.fromCoroutine(_awaiting(answer))
    return fail(TypeError(f"an answer is bytes, None or awaitable of them, not {answer!r}"))


def cancel(awaited: Deferred[Any]) -> None:
    """Await an answer no longer; what fails in that is logged and holds nobody up."""
    try:
        awaited.cancel()
    except Exception:
        log.failure("an answer could not be cancelled", escaped(Failure()))


async def _awaiting(answer: Awaitable[Any]) -> Any:
    return await answer


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
        """Give the replies that no earlier one is awaited for."""
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
