"""The sender that reconnects, over connections in memory, then over the loopback."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice import Full, ReliableSender, Unanswered
from sockservice.client.attempts import backoff
from tests.conftest import Log, Reactor, Serving
from tests.doubles import Outcome


class FarEnd(StringTransport):
    """The far end of one connection."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self._protocol = protocol
        self.ended = False

    def answer(self, *replies: bytes) -> None:
        self._protocol.dataReceived(b"".join(reply + b"\n" for reply in replies))

    def lose(self, why: Exception) -> None:
        if not self.ended:
            self.ended = True
            self._protocol.connectionLost(Failure(why))

    def loseConnection(self) -> None:
        self.lose(ConnectionDone())

    def abortConnection(self) -> None:
        self.lose(ConnectionLost())

    @property
    def lines(self) -> list[bytes]:
        value: bytes = self.value()
        return value.splitlines()


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Gives connections in memory, while it is told to."""

    def __init__(self) -> None:
        self.wires: list[FarEnd] = []
        self.refusing = False

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.refusing:
            return fail(Refused())
        protocol = factory.buildProtocol(None)
        wire = FarEnd(protocol)
        self.wires.append(wire)
        protocol.makeConnection(wire)
        return succeed(protocol)


class Sender(ReliableSender):
    """One that keeps what it would log."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint()
        self.heard: list[tuple[str, float, int]] = []
        settings.setdefault("backoff", float)
        super().__init__(self.clock, self.endpoint, **settings)

    def retrying(self, why: str, delay: float) -> None:
        self.heard.append((why, delay, self.outstanding))

    @property
    def wire(self) -> FarEnd:
        """The latest connection."""
        return self.endpoint.wires[-1]


def started(**settings: Any) -> Sender:
    sender = Sender(**settings)
    sender.startService()
    return sender


def test_each_line_gets_its_reply() -> None:
    sender = started()
    outcomes = [Outcome(sender.send(line)) for line in (b"a", b"b")]
    assert (sender.wire.lines, sender.outstanding) == ([b"a", b"b"], 2)
    sender.wire.answer(b"A")
    assert (outcomes[0].value, outcomes[1].came, sender.outstanding) == (b"A", False, 1)
    sender.wire.answer(b"B")
    assert (outcomes[1].value, sender.unacknowledged) == (b"B", [])


def test_lines_given_before_the_start_are_sent_then() -> None:
    sender = Sender()
    reply = Outcome(sender.send(b"a"))
    assert sender.sent == 0
    sender.startService()
    assert (sender.wire.lines, sender.sent) == ([b"a"], 1)
    sender.wire.answer(b"ok")
    assert reply.value == b"ok"


def test_what_has_no_reply_is_sent_again_and_nothing_else() -> None:
    sender = started()
    replies: list[bytes] = []
    done = Outcome(sender.sendAll([b"a", b"b", b"c"], replies.extend))
    single = Outcome(sender.send(b"d"))
    sender.wire.answer(b"A", b"B")
    sender.wire.lose(ConnectionDone())
    assert sender.heard == [("connection lost: closed by the server", 1.0, 2)]
    assert sender.unacknowledged == [b"c", b"d"]
    assert sender.sent == 4
    sender.clock.advance(0.9)
    assert len(sender.endpoint.wires) == 1
    sender.clock.advance(0.1)
    assert sender.wire.lines == [b"c", b"d"]
    sender.wire.answer(b"C", b"D")
    assert (replies, done.value, single.value) == ([b"A", b"B", b"C"], None, b"D")
    assert sender.sent == 4


def test_an_unknown_outcome_is_a_reply_and_the_line_is_not_sent_again() -> None:
    sender = started()
    reply = Outcome(sender.send(b"a"))
    sender.wire.answer(b"error unknown: I/O error")
    assert reply.value == b"error unknown: I/O error"
    sender.wire.lose(ConnectionDone())
    sender.clock.advance(100)
    assert (sender.unacknowledged, sender.sent) == ([], 1)
    assert [wire.lines for wire in sender.endpoint.wires[1:]] in ([], [[]])


@given(st.lists(st.integers(0, 4), max_size=6), st.integers(1, 12))
def test_wherever_connections_break_every_line_is_answered_once(
    answered: list[int], count: int
) -> None:
    sender = started()
    lines = [b"%d" % number for number in range(count)]
    replies: list[bytes] = []
    for start in range(0, count, 3):
        sender.sendAll(lines[start : start + 3], replies.extend)
    for most in answered:
        sender.wire.answer(*sender.wire.lines[:most])
        sender.wire.lose(ConnectionLost())
        sender.clock.advance(100)
    sender.wire.answer(*sender.wire.lines)
    assert replies == lines


def test_delays_grow_while_nothing_is_answered() -> None:
    sender = started()
    sender.send(b"a")
    sender.wire.lose(ConnectionLost())
    sender.endpoint.refusing = True
    sender.clock.advance(1)
    sender.endpoint.refusing = False
    sender.clock.advance(2)
    sender.wire.lose(ConnectionLost())
    assert [delay for _, delay, _ in sender.heard] == [1.0, 2.0, 3.0]
    assert sender.heard[1][0].startswith("could not connect: ")
    sender.clock.advance(3)
    sender.wire.answer(b"A")
    sender.wire.lose(ConnectionLost())
    assert sender.heard[3][1] == 1.0


def test_a_server_too_busy_to_take_anything_is_asked_again_and_again() -> None:
    sender = started()
    reply = Outcome(sender.send(b"a"))
    for _ in range(3):
        sender.wire.answer(b"error busy: 1 connection, the limit; try again later")
        sender.wire.lose(ConnectionDone())
        sender.clock.advance(9)
    why = "the server ended the connection: error busy: 1 connection, the limit; try again later"
    assert sender.heard == [(why, delay, 1) for delay in (1.0, 2.0, 3.0)]
    sender.wire.answer(b"ok")
    assert reply.value == b"ok"


def test_the_delay_is_capped_and_differs() -> None:
    assert all(backoff(attempt) <= 60 for attempt in range(1, 2000))
    assert all(0.05 <= backoff(1) <= 0.15 for _ in range(100))
    assert len({backoff(20) for _ in range(100)}) > 90


def test_a_server_that_keeps_silent_is_left() -> None:
    sender = started(timeout=5)
    reply = Outcome(sender.send(b"a"))
    first = sender.wire
    sender.clock.advance(4)
    assert not first.ended
    sender.clock.advance(1)
    assert first.ended
    assert sender.heard == [("no reply within 5 seconds", 1.0, 1)]
    sender.clock.advance(1)
    sender.wire.answer(b"ok")
    assert reply.value == b"ok"


def test_no_more_is_kept_than_allowed() -> None:
    sender = started(lines=2)
    first, second = Outcome(sender.ready()), Outcome(sender.send(b"a"))
    assert first.came
    sender.send(b"b")
    assert isinstance(Outcome(sender.send(b"c")).error, Full)
    waiting = [Outcome(sender.ready().addCallback(lambda _: sender.send(b"d"))) for _ in "12"]
    assert sender.wire.lines == [b"a", b"b"]
    sender.wire.answer(b"A")
    assert second.value == b"A"
    # There was room for one: the one who asked first.
    assert sender.wire.lines == [b"a", b"b", b"d"]
    sender.wire.answer(b"B", b"D")
    assert [each.came for each in waiting] == [True, False]
    assert sender.outstanding == 1


def test_no_more_bytes_are_kept_than_allowed() -> None:
    sender = started(bytes=10)
    sender.send(b"x" * 10)
    waiting = sender.ready()
    assert not Outcome(waiting).came
    waiting.cancel()
    sender.wire.answer(b"ok")
    assert Outcome(sender.ready()).came


def test_a_line_with_an_lf_is_two() -> None:
    sender = started()
    with pytest.raises(ValueError, match="a line holds no LF"):
        sender.send(b"a\nb")
    assert sender.outstanding == 0


def test_stopping_waits_for_the_replies_due() -> None:
    sender = started()
    reply = Outcome(sender.send(b"a"))
    stopped = Outcome(sender.stopService())
    assert not stopped.came
    assert isinstance(Outcome(sender.send(b"b")).error, Unanswered)
    sender.wire.lose(ConnectionLost())
    sender.clock.advance(1)
    sender.wire.answer(b"A")
    assert (reply.value, stopped.value, sender.wire.ended) == (b"A", [], True)
    sender.clock.advance(100)
    assert len(sender.endpoint.wires) == 2


def test_stopping_tells_what_has_no_reply_in_the_end() -> None:
    sender = started(drainTimeout=7)
    replies = [Outcome(sender.send(line)) for line in (b"a", b"b")]
    sender.wire.answer(b"A")
    stopped = Outcome(sender.stopService())
    waiting = Outcome(sender.ready())
    sender.clock.advance(6.9)
    assert not stopped.came
    sender.clock.advance(0.1)
    assert (stopped.value, sender.wire.ended, waiting.came) == ([b"b"], True, True)
    assert str(replies[1].error) == "the sender is stopped"
    assert sender.clock.getDelayedCalls() == []


def test_it_can_be_started_again() -> None:
    sender = started()
    assert Outcome(sender.stopService()).value == []
    sender.startService()
    reply = Outcome(sender.send(b"a"))
    sender.wire.answer(b"A")
    assert (reply.value, len(sender.endpoint.wires)) == (b"A", 2)


@pytest.mark.parametrize("refusing", [False, True])
def test_stopping_before_anything_was_sent_is_at_once(refusing: bool) -> None:
    sender = Sender()
    sender.endpoint.refusing = refusing
    sender.startService()
    assert Outcome(sender.stopService()).value == []
    assert sender.clock.getDelayedCalls() == []


def test_what_another_wrote_cannot_end_the_attempts(log: Log) -> None:
    sender = started()

    def broken(why: str, delay: float) -> None:
        raise ZeroDivisionError

    sender.retrying = broken  # type: ignore[method-assign]
    sender.wire.lose(ConnectionLost())
    assert len(log.failures(ZeroDivisionError)) == 1
    sender.clock.advance(1)
    assert len(sender.endpoint.wires) == 2


def test_what_happens_is_logged(log: Log) -> None:
    clock, endpoint = Clock(), Endpoint()
    sender = ReliableSender(clock, endpoint, backoff=float)
    sender.startService()
    endpoint.wires[0].answer(b"\x1bstrange")
    sender.send(b"a")
    endpoint.wires[0].lose(ConnectionLost())
    assert r"a line came that nobody asked for: \x1bstrange" in log.texts
    said = "; trying again in 1 second, 1 unacknowledged"
    assert any(text.startswith("connection lost") and text.endswith(said) for text in log.texts)


@pytest.mark.parametrize("target", ["udp:127.0.0.1:5", "nonsense:x"])
def test_what_is_no_target_for_it_is_told_at_once(real: Reactor, target: str) -> None:
    with pytest.raises(ValueError):
        ReliableSender(real, target)


@pytest.mark.parametrize("scheme", ["unix", "unix-seqpacket"])
async def test_lines_reach_a_server(
    real: Reactor, serving: Serving, tmp_path: Any, scheme: str
) -> None:
    path = f"{scheme}:{tmp_path}/s"
    serving.start("--listen", f"ack@{path}")
    sender = ReliableSender(real, path)
    sender.startService()
    replies: list[bytes] = []
    await sender.sendAll([b"a", b"", b"c"], replies.extend)
    assert replies == [b"ok"] * 3
    assert await sender.stopService() == []
