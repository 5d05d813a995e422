"""One line server: on a transport in memory, then on real sockets with a reactor turned by hand."""

import re
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure

from sockservice import Ack, Counters, Framing, LineFactory, LineServer
from sockservice.errors import Refused
from sockservice.limits.lograte import Journal
from sockservice.server.answers import Answer
from tests.conftest import HandReactor, Log
from tests.doubles import Bye, Shout, Slow
from tests.wire import test_framing

INTERRUPT = b"\xff\xf4\xff\xfd\x06"
INTERNAL = b"error internal error\n"


class Scripted(LineServer):
    """Does to each line what the test says."""

    def __init__(self, does: Callable[[LineServer, bytes], Any]) -> None:
        self._does = does

    def answer(self, line: bytes) -> Answer:
        answer: Answer = self._does(self, line)
        return answer


class Batch(LineServer):
    """Answers whole batches as the test says."""

    def __init__(self, does: Callable[[list[bytes]], Any]) -> None:
        self._does = does

    def answers(self, lines: list[bytes]) -> list[Answer] | Awaitable[Sequence[bytes | None]]:
        answers: list[Answer] = self._does(lines)
        return answers


class Memory:
    """A line server on a transport in memory."""

    def __init__(self, protocol: Callable[[], LineServer], **settings: Any) -> None:
        self.clock = Clock()
        self.factory = LineFactory(self.clock, protocol, **settings)
        self.wire = StringTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", 1234))
        self.server = self.factory.buildProtocol(self.wire.getPeer())
        self.server.makeConnection(self.wire)

    def send(self, data: bytes) -> None:
        self.server.dataReceived(data)

    @property
    def producer(self) -> Any:
        """What the transport tells how fast the peer reads."""
        return self.wire.producer

    def half_close(self) -> None:
        IHalfCloseableProtocol(self.server).readConnectionLost()

    def lose(self) -> None:
        self.server.connectionLost(Failure(ConnectionDone()))

    @property
    def sent(self) -> bytes:
        """What the peer has received since it last looked."""
        data: bytes = self.wire.value()
        self.wire.clear()
        return data

    @property
    def paused(self) -> bool:
        return self.wire.producerState == "paused"


class Asked(Ack):
    """Answers as `Ack` does, but wants to see the lines."""

    def answers(self, lines: list[bytes]) -> list[Answer]:
        return [b"ok" for _ in lines]


# What it replies


@given(test_framing.cut(), st.integers(1, 10))
def test_lines_that_nobody_sees_get_what_others_get(chunks: list[bytes], limit: int) -> None:
    counting, asked = Memory(Ack, lineLimit=limit), Memory(Asked, lineLimit=limit)
    for chunk in chunks:
        for each in (counting, asked):
            each.send(chunk)
        assert counting.sent == asked.sent
        assert counting.factory.counters == asked.factory.counters
        assert counting.factory.memory.held == asked.factory.memory.held
    for each in (counting, asked):
        each.half_close()
    assert counting.sent == asked.sent


def test_what_answers_otherwise_sees_the_lines() -> None:
    class Louder(Ack):
        def answers(self, lines: list[bytes]) -> list[Answer]:
            return [line.upper() for line in lines]

    memory = Memory(Louder)
    memory.send(b"a\nb\n")
    assert memory.sent == b"A\nB\n"


def test_lines_that_nobody_sees_wait_while_replies_are_unread() -> None:
    memory = Memory(Ack)
    memory.producer.pauseProducing()
    memory.send(b"a\nb")
    assert (memory.sent, memory.paused) == (b"", True)
    memory.producer.resumeProducing()
    memory.send(b"\n")
    assert memory.sent == b"ok\nok\n"


def test_lines_that_nobody_sees_are_not_answered_after_a_close() -> None:
    memory = Memory(Ack)
    memory.server.close()
    memory.send(b"a\n")
    assert (memory.sent, memory.factory.counters.lines) == (b"", 0)


@pytest.mark.parametrize(
    ("received", "replies"),
    [
        (b"a\n", b"ok\n"),
        (b"a\r\n", b"ok\r\n"),
        (b"\n", b"ok\n"),
        (b"\r\n", b"ok\r\n"),
        (b"a\r\nb\nc\r\n\n", b"ok\r\nok\nok\r\nok\n"),
        (b"\0\xff\xfe\r\x80\n", b"ok\n"),
        (b"no ending", b""),
    ],
)
def test_each_line_is_acknowledged_with_its_own_ending(received: bytes, replies: bytes) -> None:
    memory = Memory(Ack)
    memory.send(received)
    assert memory.sent == replies
    byByte = Memory(Ack)
    for at in range(len(received)):
        byByte.send(received[at : at + 1])
    assert byByte.sent == replies


def test_the_reply_is_what_answer_returns() -> None:
    memory = Memory(Shout)
    memory.send(b"hello\nw\xf6rld\r\n")
    assert memory.sent == b"HELLO\nW\xf6RLD\r\n"


def test_no_line_that_holds_any_byte_but_lf_is_changed() -> None:
    asked: list[bytes] = []
    memory = Memory(lambda: Scripted(lambda server, line: asked.append(line)))
    lines = [b"x" + bytes([byte]) + b"x" for byte in range(256) if byte != 10]
    memory.send(b"".join(line + b"\n" for line in lines))
    assert asked == lines


def test_one_read_gets_one_write() -> None:
    memory = Memory(Ack)
    writes: list[bytes] = []
    memory.wire.write = writes.append  # type: ignore[method-assign]
    memory.send(b"line\n" * 500)
    assert writes == [b"ok\n" * 500]


def test_a_line_that_is_too_long_is_refused_and_the_next_counts() -> None:
    memory = Memory(Ack, lineLimit=10)
    memory.send(b"a\n" + b"x" * 11 + b"\r\nb\n")
    assert memory.sent == b"ok\nerror line longer than 10 bytes\r\nok\n"
    assert (memory.server.lines, memory.server.refused) == (3, 1)


def test_none_is_silence() -> None:
    memory = Memory(lambda: Scripted(lambda server, line: None if line == b"hush" else line))
    memory.send(b"hush\na\nhush\r\nhush\nb\n")
    assert memory.sent == b"a\nb\n"


@pytest.mark.parametrize("later", [False, True], ids=["at once", "awaited"])
def test_one_line_never_gets_two_replies(later: bool, log: Log) -> None:
    def answer(server: LineServer, line: bytes) -> object:
        if line == b"refused":
            raise Refused("two\nlines")
        reply = b"two\nlines" if line == b"b" else line
        return succeed(reply) if later else reply

    memory = Memory(lambda: Scripted(answer))
    memory.send(b"a\nb\nrefused\nc\n")
    assert memory.sent == b"a\nerror internal error\nerror two lines\nc\n"
    assert "holds an LF" in log.failures(ValueError)[0].getErrorMessage()


def test_an_empty_reply_is_an_empty_line() -> None:
    memory = Memory(lambda: Scripted(lambda server, line: b""))
    memory.send(b"a\nb\r\n")
    assert memory.sent == b"\n\r\n"


@pytest.mark.parametrize("wrong", [7, "text", [b"list", 7], object()])
@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
def test_what_is_no_answer_is_an_internal_error(wrong: object, later: bool, log: Log) -> None:
    def answer(server: LineServer, line: bytes) -> object:
        if line != b"wrong":
            return line
        return succeed(wrong) if later else wrong

    memory = Memory(lambda: Scripted(answer))
    memory.send(b"a\nwrong\nb\n")
    assert memory.sent == b"a\n" + INTERNAL + b"b\n"
    assert len(log.failures(TypeError)) == 1


def test_an_exception_is_logged_and_answered_and_the_connection_goes_on(log: Log) -> None:
    def answer(server: LineServer, line: bytes) -> bytes:
        return b"%d" % (12 // int(line))

    memory = Memory(lambda: Scripted(answer))
    memory.send(b"3\n0\r\n4\nx\n")
    assert memory.sent == b"4\nerror internal error\r\n3\n" + INTERNAL
    assert len(log.failures(ZeroDivisionError)) == 1
    assert len(log.failures(ValueError)) == 1
    assert memory.server.refused == memory.factory.counters.refused == 2
    assert not memory.wire.disconnecting


def test_a_server_without_an_answer_says_so_in_the_log(log: Log) -> None:
    memory = Memory(LineServer)
    memory.send(b"a\n")
    assert memory.sent == INTERNAL
    assert "LineServer has no answer()" in log.failures(NotImplementedError)[0].getErrorMessage()


def test_a_coroutine_answers() -> None:
    due: Deferred[bytes] = Deferred()

    async def answer(server: LineServer, line: bytes) -> bytes | None:
        return line + await due if line == b"slow" else None

    memory = Memory(lambda: Scripted(answer))
    memory.send(b"hush\nslow\r\nhush\n")
    assert memory.sent == b""
    due.callback(b"!")
    assert memory.sent == b"slow!\r\n"


def test_a_failed_deferred_is_an_internal_error_in_its_place(log: Log) -> None:
    memory = Memory(Slow)
    memory.send(b"a\nb\nc\n")
    slow = memory.server
    assert isinstance(slow, Slow)
    slow.due[1].errback(ZeroDivisionError())
    slow.due[2].callback(b"C")
    assert memory.sent == b""
    slow.due[0].callback(b"A")
    assert memory.sent == b"A\n" + INTERNAL + b"C\n"
    assert len(log.failures(ZeroDivisionError)) == 1


@given(
    st.permutations(range(5)),
    st.lists(st.sampled_from(["now", "later", "silent", "late silence"]), min_size=5, max_size=5),
)
def test_replies_keep_the_order_of_the_lines_however_answers_come(
    order: list[int], kinds: list[str]
) -> None:
    due: dict[int, Deferred[bytes | None]] = {}

    def answer(server: LineServer, line: bytes) -> Answer:
        number = int(line)
        if kinds[number] in ("now", "silent"):
            return line if kinds[number] == "now" else None
        due[number] = Deferred()
        return due[number]

    endings = [b"\n", b"\r\n", b"\n", b"\n", b"\r\n"]
    memory = Memory(lambda: Scripted(answer))
    memory.send(b"".join(b"%d%s" % (number, endings[number]) for number in range(5)))
    there = {number for number in range(5) if number not in due}
    sent = memory.sent
    for number in [None, *order]:
        if number in due:
            due[number].callback(b"%d" % number if kinds[number] == "later" else None)
            there.add(number)
            sent += memory.sent
        leading = next((n for n in range(6) if n not in there), 5)
        replies = [
            b"%d%s" % (n, endings[n]) for n in range(leading) if kinds[n] in ("now", "later")
        ]
        assert sent == b"".join(replies)


# The hook for batches


def test_the_batch_hook_gets_the_lines_that_came_together() -> None:
    batches: list[list[bytes]] = []

    def answers(lines: list[bytes]) -> list[bytes]:
        batches.append(lines)
        return [line.upper() for line in lines]

    memory = Memory(lambda: Batch(answers))
    memory.send(b"a\nb\nc")
    memory.send(b"\nd\n")
    assert batches == [[b"a", b"b"], [b"c", b"d"]]
    assert memory.sent == b"A\nB\nC\nD\n"


def test_the_batch_hook_may_return_any_kind_of_answers() -> None:
    due: Deferred[bytes | None] = Deferred()
    memory = Memory(lambda: Batch(lambda lines: [None, b"B", due, b"D"]))
    memory.send(b"a\nb\nc\nd\n")
    assert memory.sent == b"B\n"
    due.callback(b"C")
    assert memory.sent == b"C\nD\n"


def test_the_batch_hook_may_answer_all_later() -> None:
    due: Deferred[list[bytes | None]] = Deferred()
    batches = [due, [b"C"]]
    memory = Memory(lambda: Batch(lambda lines: batches.pop(0)))
    memory.send(b"a\r\nb\r\n")
    memory.send(b"c\n")
    assert memory.sent == b""
    due.callback([b"A", None])
    assert memory.sent == b"A\r\nC\n"


def test_the_batch_hook_may_be_a_coroutine() -> None:
    async def answers(lines: list[bytes]) -> list[bytes]:
        return [line.upper() for line in lines]

    memory = Memory(lambda: Batch(answers))
    memory.send(b"a\nb\n")
    assert memory.sent == b"A\nB\n"


@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
def test_a_batch_hook_that_fails_fails_every_line_of_the_batch(later: bool, log: Log) -> None:
    def answers(lines: list[bytes]) -> list[bytes]:
        if b"bad" in lines:
            raise ZeroDivisionError
        return lines

    async def laterAnswers(lines: list[bytes]) -> list[bytes]:
        return answers(lines)

    memory = Memory(lambda: Batch(laterAnswers if later else answers))
    memory.send(b"a\nbad\n")
    memory.send(b"b\n")
    assert memory.sent == INTERNAL * 2 + b"b\n"
    assert memory.server.refused == 2
    assert len(log.failures(ZeroDivisionError)) == 1


# Half-close and its end


def test_every_reply_due_goes_out_after_a_half_close() -> None:
    memory = Memory(Slow)
    memory.send(b"a\nb\n")
    memory.half_close()
    assert not memory.wire.disconnecting
    slow = memory.server
    assert isinstance(slow, Slow)
    slow.due[1].callback(b"B")
    slow.due[0].callback(b"A")
    assert memory.sent == b"A\nB\n"
    assert memory.wire.disconnecting


def test_a_half_close_without_lines_closes() -> None:
    memory = Memory(Ack)
    memory.half_close()
    assert memory.sent == b""
    assert memory.wire.disconnecting


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_an_unterminated_last_line_is_refused(ending: bytes) -> None:
    asked: list[bytes] = []
    memory = Memory(lambda: Scripted(lambda server, line: asked.append(line)))
    memory.send(b"a" + ending + b"torn")
    memory.half_close()
    assert memory.sent == b"error unterminated line" + ending
    assert asked == [b"a"]
    assert memory.wire.disconnecting
    assert memory.server.lines == 2


def test_the_refusal_of_the_last_line_waits_for_the_replies_before_it() -> None:
    memory = Memory(Slow)
    memory.send(b"a\ntorn")
    memory.half_close()
    assert memory.sent == b""
    slow = memory.server
    assert isinstance(slow, Slow)
    slow.due[0].callback(b"A")
    assert memory.sent == b"A\nerror unterminated line\n"
    assert memory.wire.disconnecting


# Bounds


def test_no_more_lines_are_taken_than_may_be_outstanding() -> None:
    class Narrow(Slow):
        answerLimit = 3

    memory = Memory(Narrow)
    slow = memory.server
    assert isinstance(slow, Slow)
    memory.send(b"1\n2\n")
    assert not memory.paused
    memory.send(b"3\n4\n5\n6\n7\n")
    assert slow.asked == [b"1", b"2", b"3"]
    assert memory.paused
    slow.due[1].callback(b"two")
    assert slow.asked == [b"1", b"2", b"3"]
    slow.due[0].callback(b"one")
    assert memory.sent == b"one\ntwo\n"
    assert slow.asked == [b"1", b"2", b"3", b"4", b"5"]
    assert memory.paused
    for number in range(2, 7):
        slow.due[number].callback(b"more")
    assert memory.sent == b"more\n" * 5
    assert not memory.paused
    memory.send(b"8\n")
    slow.due[7].callback(b"eight")
    assert memory.sent == b"eight\n"


def test_nothing_more_is_read_once_as_many_are_outstanding_as_may_be() -> None:
    class Narrow(Slow):
        answerLimit = 2

    memory = Memory(Narrow)
    memory.send(b"1\n2\n")
    assert memory.paused


def test_a_half_close_while_lines_wait_loses_none() -> None:
    class Narrow(Slow):
        answerLimit = 2

    memory = Memory(Narrow)
    slow = memory.server
    assert isinstance(slow, Slow)
    memory.send(b"1\n2\n3\n4\n5\n")
    memory.half_close()
    for number in range(5):
        slow.due[number].callback(b"%d" % number)
    assert memory.sent == b"0\n1\n2\n3\n4\n"
    assert memory.wire.disconnecting


def test_answers_that_are_there_at_once_need_no_room() -> None:
    class Narrow(Scripted):
        answerLimit = 3

    memory = Memory(lambda: Narrow(lambda server, line: succeed(line)))
    memory.send(b"a\n" * 50)
    assert memory.sent == b"a\n" * 50
    assert not memory.paused


def test_nothing_is_answered_while_the_peer_does_not_read() -> None:
    memory = Memory(Shout)
    assert memory.producer is not None
    memory.producer.pauseProducing()
    memory.send(b"a\nb\n")
    assert memory.sent == b""
    assert memory.paused
    memory.producer.resumeProducing()
    assert memory.sent == b"A\nB\n"
    assert not memory.paused


def test_a_transport_that_fills_up_stops_the_lines_at_once() -> None:
    """A transport tells so from within write."""

    class Narrow(Shout):
        answerLimit = 2

    memory = Memory(Narrow)
    write = memory.wire.write

    def fill(data: bytes) -> None:
        write(data)
        memory.producer.pauseProducing()

    memory.wire.write = fill  # type: ignore[method-assign]
    memory.send(b"a\nb\nc\nd\n")
    assert memory.sent == b"A\nB\n"
    assert memory.paused
    memory.producer.resumeProducing()
    assert memory.sent == b"C\nD\n"


def test_a_peer_that_half_closed_and_reads_late_gets_every_reply() -> None:
    memory = Memory(Shout)
    memory.producer.pauseProducing()
    memory.send(b"a\nb")
    memory.half_close()
    assert not memory.wire.disconnecting
    memory.producer.resumeProducing()
    assert memory.sent == b"A\nerror unterminated line\n"
    assert memory.wire.disconnecting


def test_answers_that_come_while_the_peer_does_not_read_are_kept() -> None:
    memory = Memory(Slow)
    slow = memory.server
    assert isinstance(slow, Slow)
    memory.send(b"a\nb\n")
    memory.producer.pauseProducing()
    slow.due[0].callback(b"A")
    slow.due[1].callback(b"B")
    memory.producer.resumeProducing()
    assert memory.sent == b"A\nB\n"


# The end of a connection


def test_what_is_awaited_is_cancelled_when_the_peer_has_gone() -> None:
    memory = Memory(Slow)
    slow = memory.server
    assert isinstance(slow, Slow)
    memory.send(b"a\nb\nc\n")
    slow.due[1].callback(b"B")
    memory.lose()
    assert slow.cancelled == [b"a", b"c"]
    assert memory.sent == b""
    assert slow.refused == 0


def test_a_cancelled_coroutine_sees_it() -> None:
    seen: list[str] = []

    async def answer(server: LineServer, line: bytes) -> bytes:
        try:
            return await Deferred[bytes]()
        except CancelledError:
            seen.append("cancelled")
            raise
        finally:
            seen.append("left")

    memory = Memory(lambda: Scripted(answer))
    memory.send(b"a\n")
    memory.lose()
    assert seen == ["cancelled", "left"]
    assert memory.sent == b""


def test_an_answer_cancelled_by_others_is_an_internal_error(log: Log) -> None:
    memory = Memory(Slow)
    slow = memory.server
    assert isinstance(slow, Slow)
    memory.send(b"a\n")
    slow.due[0].cancel()
    assert memory.sent == INTERNAL
    assert len(log.failures(CancelledError)) == 1


def test_a_failure_while_the_peer_goes_is_logged(log: Log) -> None:
    async def answer(server: LineServer, line: bytes) -> bytes:
        try:
            return await Deferred[bytes]()
        except CancelledError:
            raise ZeroDivisionError from None

    memory = Memory(lambda: Scripted(answer))
    memory.send(b"a\n")
    memory.lose()
    assert memory.sent == b""
    assert len(log.failures(ZeroDivisionError)) == 1


def test_close_in_an_answer_ends_the_connection_after_that_reply() -> None:
    asked: list[bytes] = []

    def answer(server: LineServer, line: bytes) -> bytes:
        asked.append(line)
        if line == b"quit":
            server.close()
        return line

    memory = Memory(lambda: Scripted(answer))
    memory.send(b"a\nquit\nb\nc\r\n")
    memory.send(b"d\n")
    assert memory.sent == b"a\nquit\n"
    assert asked == [b"a", b"quit"]
    assert memory.wire.disconnecting


def test_close_waits_for_the_replies_already_due() -> None:
    memory = Memory(Slow)
    slow = memory.server
    assert isinstance(slow, Slow)
    memory.send(b"a\n")
    slow.close()
    assert memory.paused
    memory.send(b"b\n")
    assert not memory.wire.disconnecting
    slow.due[0].callback(b"A")
    assert memory.sent == b"A\n"
    assert slow.asked == [b"a"]
    assert memory.wire.disconnecting


def test_close_in_a_coroutine_lets_its_reply_out() -> None:
    due: Deferred[None] = Deferred()

    async def answer(server: LineServer, line: bytes) -> bytes:
        await due
        server.close()
        return b"bye"

    memory = Memory(lambda: Scripted(answer))
    memory.send(b"a\n")
    due.callback(None)
    assert memory.sent == b"bye\n"
    assert memory.wire.disconnecting


def test_finish_answers_what_was_received() -> None:
    class Narrow(Slow):
        answerLimit = 1

    memory = Memory(Narrow)
    slow = memory.server
    assert isinstance(slow, Slow)
    memory.send(b"a\nb\nhalf")
    slow.finish()
    slow.due[0].callback(b"A")
    slow.due[1].callback(b"B")
    assert memory.sent == b"A\nB\n"
    assert memory.wire.disconnecting


# The factory


def test_connections_share_nothing_but_the_counters() -> None:
    counters = Counters()
    one, other = Memory(Ack, counters=counters), Memory(Ack, counters=counters, lineLimit=1)
    one.send(b"a\nb")
    other.send(b"c\nlong\n")
    assert one.sent == b"ok\n"
    assert other.sent == b"ok\nerror line longer than 1 byte\n"
    assert (counters.connections, counters.lines, counters.refused) == (2, 3, 1)


def test_drain_fires_when_every_connection_is_closed() -> None:
    memory = Memory(Slow)
    slow = memory.server
    assert isinstance(slow, Slow)
    memory.send(b"a\n")
    drained = memory.factory.drain()
    assert memory.paused
    assert not memory.wire.disconnecting
    slow.due[0].callback(b"A")
    assert memory.sent == b"A\n"
    assert memory.wire.disconnecting
    assert not drained.called
    memory.lose()
    assert drained.called


def test_drain_of_nothing_fires_at_once() -> None:
    assert LineFactory(Clock(), Ack).drain().called


def test_cut_closes_what_drain_waits_for() -> None:
    memory = Memory(Slow)
    memory.send(b"a\n")
    drained = memory.factory.drain()
    memory.factory.cut()
    assert memory.wire.disconnected
    memory.lose()
    assert drained.called


# The log


def test_the_log_has_connections_coming_and_going_with_their_counts(log: Log) -> None:
    memory = Memory(Ack, lineLimit=3)
    memory.send(b"secret\nb\n")
    memory.lose()
    assert log.texts[0] == "192.0.2.1:1234 connected"
    assert log.texts[-1].startswith("192.0.2.1:1234 closed: lines=2 refused=1 after ")
    assert not [text for text in log.texts if "secret" in text]


def test_verbose_logs_every_line_escaped(log: Log) -> None:
    memory = Memory(Ack, verbose=True)
    memory.send(b"a\nb\x1b[31m\xff\r{x}\r\n")
    lines = [text for text in log.texts if " line " in text]
    assert lines == [
        "192.0.2.1:1234 line b'a'",
        r"192.0.2.1:1234 line b'b\x1b[31m\xff\r{x}'",
    ]


# Telnet


def test_a_telnet_clients_interrupt_leaves_a_usable_session() -> None:
    memory = Memory(Shout)
    memory.send(b"one\r\ntw")
    memory.send(INTERRUPT + b"o\r\nthree\r\n")
    assert memory.sent == b"ONE\r\n\xff\xfb\x06TWO\r\nTHREE\r\n"


def test_a_telnet_client_is_answered_in_the_order_of_its_lines() -> None:
    memory = Memory(Slow)
    slow = memory.server
    assert isinstance(slow, Slow)
    memory.send(b"a\r\n" + INTERRUPT + b"b\r\n")
    assert memory.sent == b""
    slow.due[1].callback(b"B\xff")
    slow.due[0].callback(b"A")
    assert memory.sent == b"A\r\n\xff\xfb\x06B\xff\xff\r\n"


def test_only_a_telnet_client_gets_0xff_twice() -> None:
    plain = Memory(Shout)
    plain.send(b"a\xff\n")
    assert plain.sent == b"A\xff\n"
    telnet = Memory(Shout)
    telnet.send(b"\xff\xfb\x1fa\xff\xff\n")
    assert telnet.sent == b"\xff\xfe\x1fA\xff\xff\n"


def test_a_server_may_take_telnet_commands_as_text() -> None:
    class Raw(Shout):
        telnet = False

    memory = Memory(Raw)
    memory.send(INTERRUPT + b"a\n")
    assert memory.sent == INTERRUPT + b"A\n"


def test_a_command_that_opens_a_later_read_is_no_first_command() -> None:
    memory = Memory(Shout)
    memory.send(b"a")
    memory.send(b"\xff\xf4b\n")
    assert memory.sent == b"A\xff\xf4B\n"


# Real sockets


class Sockets:
    """A listening factory, and its connections, on the loopback."""

    def __init__(
        self, reactor: HandReactor, opened: ExitStack, protocol: Callable[[], LineServer]
    ) -> None:
        self.reactor = reactor
        self._opened = opened
        self.servers: list[LineServer] = []

        def kept() -> LineServer:
            server = protocol()
            self.servers.append(server)
            return server

        self.factory = LineFactory(reactor, kept)
        self._port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        opened.callback(self._close)

    def connect(self, receiving: int | None = None) -> tuple[socket.socket, LineServer]:
        peer = self._opened.enter_context(closing(socket.socket()))
        peer.settimeout(20)
        if receiving is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receiving)
        before = self.factory.counters.connections
        peer.connect(("127.0.0.1", self._port.getHost().port))
        self.reactor.until(lambda: self.factory.counters.connections > before)
        return peer, self.servers[-1]

    def reading(self, server: LineServer) -> bool:
        return server.transport in self.reactor.getReaders()

    def _close(self) -> None:
        self.reactor.result(self._port.stopListening())
        self.factory.cut()
        self.reactor.result(self.factory.drain())


@pytest.fixture
def sockets(reactor: HandReactor, opened: ExitStack) -> Callable[..., Sockets]:
    return lambda protocol: Sockets(reactor, opened, protocol)


def test_a_connection_sends_small_replies_at_once_and_notices_the_dead(
    sockets: Callable[..., Sockets],
) -> None:
    _, server = sockets(Ack).connect()
    transport: Any = server.transport
    handle = transport.getHandle()
    assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_an_idle_connections_reply_needs_no_second_turn(
    reactor: HandReactor, sockets: Callable[..., Sockets]
) -> None:
    peer, server = sockets(Ack).connect()
    peer.sendall(b"a\n")
    reactor.until(lambda: server.lines)
    assert server.transport not in reactor.getWriters()
    assert peer.recv(100) == b"ok\n"


def test_where_the_socket_is_not_the_wire_replies_go_through_the_transport(
    reactor: HandReactor, sockets: Callable[..., Sockets]
) -> None:
    served = sockets(Shout)
    port = reactor.listenTCP(0, WrappingFactory(served.factory), interface="127.0.0.1")
    with closing(socket.create_connection(("127.0.0.1", port.getHost().port))) as peer:
        peer.sendall(b"a\nb\r\n")
        assert reactor.received(peer, 5) == b"A\nB\r\n"
        drained = served.factory.drain()
        assert reactor.received(peer) == b""
        reactor.result(drained)
    reactor.result(port.stopListening())


def fill(sockets: Sockets, peer: socket.socket, server: LineServer) -> int:
    """Send lines without reading replies until the server reads no more; say how many."""
    transport: Any = server.transport
    handle = transport.getHandle()
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    peer.setblocking(False)
    sent = 0

    def full() -> bool:
        nonlocal sent
        try:
            sent += peer.send(b"\n" * 65536)
        except BlockingIOError:
            return not sockets.reading(server)
        return False

    sockets.reactor.until(full)
    return sent


def test_a_peer_that_never_reads_is_not_read_and_nobody_else_notices(
    reactor: HandReactor, sockets: Callable[..., Sockets]
) -> None:
    served = sockets(Ack)
    deaf, server = served.connect(receiving=4096)
    fill(served, deaf, server)
    stopped = server.lines
    other, _ = served.connect()
    other.sendall(b"a\n")
    assert reactor.received(other, 3) == b"ok\n"
    assert server.lines == stopped


@pytest.mark.parametrize("protocol", [Ack, Asked])
def test_nothing_more_is_read_from_the_moment_a_reply_is_unsent(
    sockets: Callable[..., Sockets], protocol: Callable[[], LineServer]
) -> None:
    served = sockets(protocol)
    _, server = served.connect(receiving=4096)
    transport: Any = server.transport
    transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    while not served.factory.memory.held:
        assert served.reading(server)
        server.dataReceived(b"a\n" * 1000)
    assert not served.reading(server)
    assert not server.tell(b"told")
    # What is held are replies of the last lines, for those before went out.
    assert 0 < served.factory.memory.held <= 1000 * len(b"ok\n")


def test_a_peer_that_reads_late_gets_every_reply(
    reactor: HandReactor, sockets: Callable[..., Sockets]
) -> None:
    served = sockets(Ack)
    peer, server = served.connect(receiving=4096)
    sent = fill(served, peer, server)
    assert reactor.received(peer, sent * 3) == b"ok\n" * sent
    assert served.reading(server)
    peer.send(b"\n")
    assert reactor.received(peer, 3) == b"ok\n"


def test_a_peer_that_half_closes_and_reads_late_gets_every_reply(
    reactor: HandReactor, sockets: Callable[..., Sockets]
) -> None:
    served = sockets(Ack)
    peer, server = served.connect(receiving=4096)
    sent = fill(served, peer, server)
    peer.shutdown(socket.SHUT_WR)
    assert reactor.received(peer) == b"ok\n" * sent


def test_late_answers_reach_a_peer_that_half_closed(
    reactor: HandReactor, sockets: Callable[..., Sockets]
) -> None:
    peer, server = sockets(Slow).connect()
    assert isinstance(server, Slow)
    peer.sendall(b"a\nb\n")
    peer.shutdown(socket.SHUT_WR)
    reactor.until(lambda: len(server.due) == 2 and server.transport not in reactor.getReaders())
    server.due[1].callback(b"B")
    server.due[0].callback(b"A")
    assert reactor.received(peer) == b"A\nB\n"


def test_a_reply_longer_than_any_buffer_arrives_whole_and_then_the_end(
    reactor: HandReactor, sockets: Callable[..., Sockets]
) -> None:
    long = bytes(range(32, 127)) * 100_000

    def answer(server: LineServer, line: bytes) -> bytes:
        server.close()
        return long

    peer, _ = sockets(lambda: Scripted(answer)).connect()
    peer.sendall(b"a\nb\n")
    assert reactor.received(peer) == long + b"\n"


def test_what_is_awaited_is_cancelled_at_a_reset(
    reactor: HandReactor, sockets: Callable[..., Sockets]
) -> None:
    served = sockets(Slow)
    peer, server = served.connect()
    assert isinstance(server, Slow)
    peer.sendall(b"a\n")
    reactor.until(lambda: server.due)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    reactor.until(lambda: server.cancelled == [b"a"])
    reactor.result(served.factory.drain())


def test_a_reply_to_a_peer_that_has_reset_is_nobodys_trouble(
    reactor: HandReactor, sockets: Callable[..., Sockets]
) -> None:
    served = sockets(Slow)
    peer, server = served.connect()
    assert isinstance(server, Slow)
    peer.sendall(b"a\nb\n")
    reactor.until(lambda: len(server.due) == 2)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    server.due[0].callback(b"A")
    server.due[1].callback(b"B")
    reactor.result(served.factory.drain())


class Lingering(Bye):
    lingerTimeout = 7.0


def test_input_nobody_reads_does_not_destroy_the_last_reply(
    reactor: HandReactor, sockets: Callable[..., Sockets]
) -> None:
    served = sockets(Lingering)
    peer, server = served.connect()
    peer.sendall(b"a\n" + b"more\n" * 10_000)
    reactor.until(lambda: server.lines)
    peer.sendall(b"and more\n" * 1000)
    assert reactor.received(peer) == b"bye\n"
    peer.send(b"still more\n")
    reactor.advance(served.servers[0].lingerTimeout - 0.1)
    assert len(reactor.getDelayedCalls()) == 2  # one looks for idle connections
    peer.close()
    reactor.result(served.factory.drain())
    assert len(reactor.getDelayedCalls()) == 1


def test_a_peer_that_never_closes_is_left_after_a_time(
    reactor: HandReactor, sockets: Callable[..., Sockets]
) -> None:
    served = sockets(Lingering)
    peer, _ = served.connect()
    peer.sendall(b"a\n")
    assert reactor.received(peer) == b"bye\n"
    drained = served.factory.drain()
    reactor.advance(6.9)
    assert not drained.called
    reactor.advance(0.2)
    reactor.result(drained)


def test_urgent_data_stays_in_the_stream(
    reactor: HandReactor, sockets: Callable[..., Sockets]
) -> None:
    """A telnet client sends its Data Mark so (RFC 854)."""
    peer, _ = sockets(Shout).connect()
    peer.sendall(b"\xff\xf4")
    peer.send(b"\xff\xf2", socket.MSG_OOB)
    peer.sendall(b"a\r\n")
    assert reactor.received(peer, 3) == b"A\r\n"


def test_a_stream_that_is_no_tcp_is_served(
    reactor: HandReactor, opened: ExitStack, tmp_path: Any
) -> None:
    factory = LineFactory(reactor, Ack)
    path = str(tmp_path / "s")
    port = reactor.listenUNIX(path, factory)
    peer = opened.enter_context(closing(socket.socket(socket.AF_UNIX)))
    peer.connect(path)
    peer.sendall(b"a\nb\r\n")
    assert reactor.received(peer, 7) == b"ok\nok\r\n"
    peer.shutdown(socket.SHUT_WR)
    assert reactor.received(peer) == b""
    reactor.result(port.stopListening())
    reactor.result(factory.drain())


def test_the_log_names_the_peer(
    reactor: HandReactor, sockets: Callable[..., Sockets], log: Log
) -> None:
    peer, _ = sockets(Ack).connect()
    host, port = peer.getsockname()
    assert f"{host}:{port} connected" in log.texts
    assert not [text for text in log.texts if re.search(r"[\r\n]", text)]


def test_a_line_is_not_unfinished_when_it_could_not_be_read_until_now() -> None:
    memory = Memory(Ack)
    memory.send(b"a\nbegun")
    memory.producer.pauseProducing()
    memory.send(b"")
    assert memory.paused
    for second in range(100):
        memory.server.inspect(float(second), 600, 60)
    memory.producer.resumeProducing()
    assert not memory.paused
    memory.server.inspect(100.0, 600, 60)
    assert memory.sent == b"ok\n"
    memory.send(b" and ended\n")
    assert memory.sent == b"ok\n"
    for second in range(100, 200):
        memory.send(b"x")
        memory.server.inspect(float(second), 600, 60)
    assert memory.sent == b"error unfinished line for 60 seconds\n"


def test_the_age_of_a_line_counts_from_its_beginning() -> None:
    memory = Memory(Ack)
    for second in range(100):
        memory.server.inspect(float(second), 600, 60)
    memory.send(b"begun")
    for second in range(100, 160):
        memory.server.inspect(float(second), 600, 60)
    assert memory.sent == b""
    memory.send(b" and ended\n")
    assert memory.sent == b"ok\n"
    memory.send(b"begun")
    for second in range(160, 222):
        memory.server.inspect(float(second), 600, 60)
    assert memory.sent == b"error unfinished line for 60 seconds\n"


# Ends that the service makes


class Unopened(LineServer):
    def opened(self) -> None:
        raise ZeroDivisionError


def test_a_connection_whose_opened_fails_is_cut(log: Log) -> None:
    memory = Memory(Unopened)
    assert memory.wire.disconnecting or memory.wire.disconnected
    memory.lose()
    assert len(log.failures(ZeroDivisionError)) == 1


class Senseless(Framing):
    """A framing that finds no sense in the stream, at once or when lines are asked for."""

    def __init__(self, at: str, limit: int) -> None:
        super().__init__(limit)
        self._at = at

    @property
    def held(self) -> int:
        return 0

    def receive(self, data: bytes) -> None:
        if self._at == "receive":
            raise ValueError("no sense")

    def take(self, most: int) -> None:
        if self._at == "take":
            raise ValueError("no sense")

    def finish(self) -> None:
        """Nothing is wrong with the end."""

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        return b"".join(reply + ending for reply in replies)


@pytest.mark.parametrize("at", ["receive", "take"])
def test_a_stream_without_sense_is_refused_and_closed(at: str) -> None:
    class Strange(Ack):
        framing = staticmethod(lambda limit: Senseless(at, limit))

    memory = Memory(Strange)
    memory.send(b"x")
    assert memory.sent == b"error no sense\n"
    assert memory.wire.disconnecting
    assert memory.factory.memory.held == 0


def cut(memory: Memory) -> None:
    memory.producer.pauseProducing()
    memory.server.inspect(0.0, 5, 0)
    memory.server.inspect(0.0, 5, 0)
    memory.server.inspect(9.0, 5, 0)


def closed(memory: Memory) -> None:
    memory.server.makeRoom("busy")


def refused(memory: Memory) -> None:
    memory.send(b"x" * 70_000 + b"\n")


@pytest.mark.parametrize(
    ("protocol", "does", "said", "kind"),
    [
        (Ack, lambda _: None, " connected", "connected"),
        (Ack, Memory.lose, " closed: ", "closed"),
        (Ack, cut, " cut: ", "connections cut"),
        (Ack, closed, " refused: ", "connections closed to make room"),
        (Ack, refused, " refused: ", "connections refused a line"),
        (Unopened, lambda _: None, ": opened failed", "connections whose opened failed"),
    ],
)
def test_a_flood_of_any_kind_is_summed_up(
    log: Log, protocol: Any, does: Callable[[Memory], None], said: str, kind: str
) -> None:
    clock = Clock()
    journal = Journal(clock, 2)
    for _ in range(5):
        does(Memory(protocol, journal=journal))
    log.failures(ZeroDivisionError)
    assert len([text for text in log.texts if said in text]) == 2
    clock.advance(10)
    assert f"3 more in 10 seconds: {kind}" in log.texts
