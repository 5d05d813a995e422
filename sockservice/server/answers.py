"""What a protocol answers: bytes, None, or an awaitable of them; failures fit for the log."""

from collections.abc import Awaitable
from inspect import isawaitable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.wire.escaping import printable

#: What a protocol says to a line or datagram: the reply, None for silence, or
#: a coroutine or Deferred of either.
Answer = bytes | None | Awaitable[bytes | None]

log = Logger()


def refusal(failure: Failure) -> bytes:
    """Return the reply, on one line, that a :class:`Refused` stands for."""
    return b"error " + str(failure.value).replace("\n", " ").encode()


def escaped(failure: Failure) -> Failure:
    """Make a failure fit for the log: a peer's bytes in its text can't command a terminal."""
    said = "\n".join(map(printable, failure.getTraceback().split("\n")))
    failure.getTraceback = lambda *_, **__: said  # type: ignore[method-assign]
    return failure


def awaited(answer: object) -> Deferred[Any]:
    """Return the Deferred of an answer that is not there yet; it fails if there can be none."""
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
