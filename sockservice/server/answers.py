"""What a protocol answers: lines, none, or an awaitable of them; failures fit for the log."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from inspect import isawaitable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.errors import Refused, StoreError
from sockservice.wire.escaping import printable

#: What is there at once: the reply, several lines in its place, or None for silence.
Said = bytes | list[bytes] | None
#: What a protocol answers to a line: that, an awaitable of it, or an iterator of lines that come
#: one after the other.
Answer = Said | Awaitable[Said] | AsyncIterator[bytes]

log = Logger()


class Told:
    """An answer, and the lines that were told before it."""

    __slots__ = ("answer", "lines")

    def __init__(self, lines: Sequence[bytes], answer: Answer) -> None:
        self.lines = lines
        self.answer = answer


def said(answer: Any) -> list[bytes]:
    """Return the lines that an answer is.

    :raises TypeError: It is none, or holds what is no bytes.
    """
    if answer is None:
        return []
    lines = answer if isinstance(answer, (list, tuple)) else [answer]
    # Bytes, or what is one buffer of them.
    return [line if isinstance(line, bytes) else memoryview(line).tobytes() for line in lines]


def batch(answer: Sequence[Said]) -> list[bytes]:
    """Return the lines that the answers to several lines are.

    :raises TypeError: One is no bytes.
    """
    return [line for each in answer for line in said(each)]


def reason(failure: Failure) -> str:
    """Return the text, on one line, of a :class:`Refused`."""
    return str(failure.value).replace("\n", " ")


def why(failure: Failure) -> str:
    """Return the kind of a failure, in a word: what counters tell apart."""
    kinds = {StoreError: "store", Refused: "protocol", MemoryError: "memory"}
    return next((each for kind, each in kinds.items() if failure.check(kind)), "internal")


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
