"""Answers that come later keep the order of the lines."""

from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from sockservice.answers import AWAITED_SIZE, Replies, awaited


def encoded(answer: Any) -> bytes:
    assert isinstance(answer, bytes)
    return answer


def failed(failure: Failure) -> bytes:
    return b"<%s>" % type(failure.value).__name__.encode()


class Count:
    """How often it was told of a change."""

    def __init__(self) -> None:
        self.changes = 0

    def __call__(self) -> None:
        self.changes += 1


def ready(replies: Replies) -> bytes:
    return b"".join(replies.take())


class Custom:
    """Awaitable, and neither a coroutine nor a Deferred."""

    def __init__(self, answer: Deferred[bytes]) -> None:
        self._answer = answer

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._answer.__await__()


def result(deferred: Deferred[Any]) -> Any:
    """Give what a Deferred has fired with."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    return results.pop()


@pytest.mark.parametrize("wrong", [7, "text", ["list"], object])
def test_what_is_no_answer_fails_when_awaited(wrong: object) -> None:
    failure = result(awaited(wrong))
    assert failure.check(TypeError)
    assert repr(wrong) in failure.getErrorMessage()


def test_coroutines_deferreds_and_other_awaitables_are_awaited_alike() -> None:
    async def coroutine() -> bytes:
        return await succeed(b"coroutine")

    deferred = succeed(b"deferred")
    assert result(awaited(coroutine())) == b"coroutine"
    assert result(awaited(deferred)) == b"deferred"
    assert result(awaited(Custom(succeed(b"custom")))) == b"custom"


@given(st.permutations(range(6)))
def test_replies_come_out_in_the_order_of_the_lines(order: list[int]) -> None:
    replies = Replies(Count())
    answers: list[Deferred[bytes]] = [Deferred() for _ in order]
    for answer in answers:
        replies.wait(answer, 1, 10, encoded, failed)
    out: list[bytes] = []
    there: set[int] = set()
    for number in order:
        answers[number].callback(b"%d" % number)
        there.add(number)
        out.append(ready(replies))
        leading = next((n for n in range(7) if n not in there), 6)
        assert b"".join(out) == b"012345"[:leading]
        assert replies.outstanding == 6 - leading


def test_replies_that_are_there_wait_for_those_before_them() -> None:
    changed = Count()
    replies = Replies(changed)
    first: Deferred[bytes] = Deferred()
    replies.wait(first, 2, 10, encoded, failed)
    replies.put(b"later", 3)
    assert ready(replies) == b""
    assert replies.outstanding == 5
    assert replies.held == 10 + AWAITED_SIZE + len(b"later")
    assert changed.changes == 0
    first.callback(b"first,")
    assert changed.changes == 1
    assert replies.held == len(b"first,later")
    assert ready(replies) == b"first,later"
    assert replies.outstanding == replies.held == 0


def test_a_failure_becomes_a_reply() -> None:
    replies = Replies(Count())
    answer: Deferred[bytes] = Deferred()
    replies.wait(answer, 1, 10, encoded, failed)
    answer.errback(Failure(ZeroDivisionError()))
    assert ready(replies) == b"<ZeroDivisionError>"


def test_an_answer_that_cannot_be_encoded_becomes_a_reply() -> None:
    replies = Replies(Count())
    replies.wait(succeed("text"), 1, 10, encoded, failed)
    assert ready(replies) == b"<AssertionError>"


def test_what_is_cancelled_is_told_so() -> None:
    told: list[object] = []
    replies = Replies(Count())
    replies.wait(Deferred[bytes](told.append), 1, 10, encoded, failed)
    replies.put(b"there", 1)
    replies.cancel()
    assert len(told) == 1
    assert ready(replies) == b""
