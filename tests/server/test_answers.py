"""Answers that come later keep the order of the lines."""

import json
from collections.abc import Generator
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import FakeDatagramTransport, StringTransport
from twisted.logger import jsonFileLogObserver, textFileLogObserver
from twisted.python.failure import Failure

from sockservice import DatagramServer, LineFactory, LineServer
from sockservice.limits.lograte import Journal
from sockservice.server.answers import Answer, awaited, cancel
from sockservice.server.replies import AWAITED_SIZE, Replies
from tests.conftest import Log


def encoded(answer: Any) -> bytes:
    assert isinstance(answer, bytes)
    return answer


def failed(failure: Failure, lines: int) -> bytes:
    return b"<%s>" % type(failure.value).__name__.encode()


def framed(replies: list[bytes], ending: bytes, lines: int) -> bytes:
    return b"".join(replies)


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
    replies = Replies(Count(), framed)
    answers: list[Deferred[bytes]] = [Deferred() for _ in order]
    for answer in answers:
        replies.wait(replies.expect(1, 10, b""), answer, encoded, failed)
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
    replies = Replies(changed, framed)
    first: Deferred[bytes] = Deferred()
    replies.wait(replies.expect(2, 10, b""), first, encoded, failed)
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
    replies = Replies(Count(), framed)
    answer: Deferred[bytes] = Deferred()
    replies.wait(replies.expect(1, 10, b""), answer, encoded, failed)
    answer.errback(Failure(ZeroDivisionError()))
    assert ready(replies) == b"<ZeroDivisionError>"


def test_an_answer_that_cannot_be_encoded_becomes_a_reply() -> None:
    replies = Replies(Count(), framed)
    replies.wait(replies.expect(1, 10, b""), succeed("text"), encoded, failed)
    assert ready(replies) == b"<AssertionError>"


def test_what_is_cancelled_is_told_so() -> None:
    told: list[object] = []
    replies = Replies(Count(), framed)
    replies.wait(replies.expect(1, 10, b""), Deferred[bytes](told.append), encoded, failed)
    replies.put(b"there", 1)
    replies.cancel()
    assert len(told) == 1
    assert ready(replies) == b""


def test_one_that_cannot_be_cancelled_does_not_keep_the_others_from_it(log: Log) -> None:
    def canceller(_: Deferred[bytes]) -> None:
        raise ZeroDivisionError

    told: list[object] = []
    replies = Replies(Count(), framed)
    replies.wait(replies.expect(1, 10, b""), Deferred[bytes](canceller), encoded, failed)
    replies.wait(replies.expect(1, 10, b""), Deferred[bytes](told.append), encoded, failed)
    replies.cancel()
    assert len(told) == 1
    assert replies.held == 0
    assert len(log.failures(ZeroDivisionError)) == 1


def test_an_answer_that_comes_although_it_was_cancelled_is_nobodys() -> None:
    inner: Deferred[bytes] = Deferred()
    answer: Deferred[bytes] = Deferred(lambda _: None)
    answer.addErrback(lambda _: inner)
    changed = Count()
    replies = Replies(changed, framed)
    replies.wait(replies.expect(1, 10, b""), answer, encoded, failed)
    replies.cancel()
    inner.callback(b"late")
    assert (replies.held, changed.changes, ready(replies)) == (0, 0, b"")


# What peers send in the log of a failure

FORGED = "\x1b]0;owned\x07\r\n2026-01-01T00:00:00+0000 [-] forged \x9b2J \u2028\x85"


class Raising(LineServer):
    def answer(self, line: bytes) -> Answer:
        raise ZeroDivisionError(line.decode())


class RaisingDatagrams(DatagramServer):
    def answer(self, datagram: bytes, peer: Any) -> Answer:
        raise ZeroDivisionError(datagram.decode())


def lines() -> None:
    factory = LineFactory(Clock(), Raising)
    server = factory.buildProtocol(None)
    server.makeConnection(StringTransport())
    server.dataReceived(FORGED.replace("\n", "").encode() + b"\n")


def datagrams() -> None:
    served = RaisingDatagrams()
    served.transport = FakeDatagramTransport()
    served.datagramReceived(FORGED.encode(), ("192.0.2.1", 40000))


@pytest.mark.parametrize("serve", [lines, datagrams])
def test_an_exceptions_text_can_neither_command_a_terminal_nor_forge_a_line(
    serve: Any, log: Log
) -> None:
    serve()
    assert len(log.failures(ZeroDivisionError)) == 1
    said, told = StringIO(), StringIO()
    for event in log.events:
        textFileLogObserver(said)(event)
        jsonFileLogObserver(told)(event)
    written = said.getvalue()
    assert "forged" in written
    assert all(c.isprintable() or c in "\n\t" for c in written)
    starts = [line for line in written.splitlines() if line.startswith("2026-01-01")]
    assert starts == []
    assert written.isascii() or "\x1b" not in written
    for record in filter(None, told.getvalue().split("\x1e")):
        json.loads(record)


def test_failures_in_a_flood_are_summed_up(log: Log) -> None:
    clock = Clock()
    factory = LineFactory(clock, Raising, journal=Journal(clock, 2))
    server = factory.buildProtocol(None)
    server.makeConnection(StringTransport())
    server.dataReceived(b"x\n" * 50)
    served = RaisingDatagrams(journal=factory.journal)
    served.transport = FakeDatagramTransport()
    for _ in range(50):
        served.datagramReceived(b"x", ("192.0.2.1", 40000))
    assert len(log.failures(ZeroDivisionError)) == 2
    clock.advance(10)
    assert "98 more in 10 seconds: an answer failed" in log.texts


def test_a_datagrams_answer_that_cannot_be_cancelled_holds_up_nobody(log: Log) -> None:
    def canceller(_: Deferred[Any]) -> None:
        raise ZeroDivisionError

    cancel(Deferred(canceller))
    assert len(log.failures(ZeroDivisionError)) == 1
