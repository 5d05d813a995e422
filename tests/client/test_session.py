"""The sender of a session, against servers in memory that break, forget and take over."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock

from sockservice.client.session import (
    Behind,
    Different,
    Forgotten,
    SessionRefused,
    SessionSender,
    TakenOver,
)
from sockservice.wire.session import Opened, folded
from tests.client.test_sending import Endpoint, FarEnd
from tests.doubles import Outcome

STORE = "9b1c6f0d4c7e4b0fa2d35c8e7f601234"


class Sender(SessionSender):
    """One whose connections are in memory; `server` holds what is stored."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint()
        self.heard: list[str] = []
        self.positions: list[int] = []
        settings.setdefault("backoff", float)
        super().__init__(self.clock, self.endpoint, "demo", **settings)
        self.problem: BaseException | None = None

    def retrying(self, why: str, delay: float) -> None:
        self.heard.append(why)

    def gaveUp(self, why: str, cause: BaseException | None) -> None:
        assert self.problem is None and why == str(cause)
        self.problem = cause

    async def opened(self, opened: Opened) -> None:
        self.positions.append(opened.position)

    @property
    def wire(self) -> FarEnd:
        return self.endpoint.wires[-1]

    @property
    def sentBehindHello(self) -> list[bytes]:
        return self.wire.lines[1:]


class Stored:
    """What a server has of one session."""

    def __init__(self, *lines: bytes, store: str = STORE, limit: int = 1000) -> None:
        self.lines = list(lines)
        self.epoch = 0
        self.store = store
        self.limit = limit

    def open(self, sender: Sender) -> None:
        """Answer the hello of the present connection."""
        self.epoch += 1
        opened = Opened(
            not self.lines,
            len(self.lines),
            folded(self.lines),
            self.limit,
            self.epoch,
            self.store,
        )
        sender.wire.answer(opened.encode())


def started(server: Stored, **settings: Any) -> Sender:
    sender = Sender(**settings)
    sender.startService()
    server.open(sender)
    return sender


def again(sender: Sender, server: Stored) -> None:
    sender.wire.lose(ConnectionDone())
    sender.clock.advance(100)
    server.open(sender)


def test_nothing_is_sent_before_the_server_has_said_where_it_is() -> None:
    sender = Sender()
    done = Outcome(sender.send(b"a"))
    sender.startService()
    assert sender.wire.lines == [b"session/1 demo"]
    Stored().open(sender)
    assert (sender.sentBehindHello, sender.positions) == ([b"a"], [0])
    sender.wire.answer(b"ok")
    assert (done.value, sender.position, sender.crc) == (b"ok", 1, folded([b"a"]))


def test_what_is_stored_is_acknowledged_and_the_rest_sent_again() -> None:
    server = Stored()
    sender = started(server)
    replies: list[bytes] = []
    done = Outcome(sender.sendAll([b"a", b"b", b"c"], replies.extend))
    last = Outcome(sender.send(b"d"))
    sender.wire.answer(b"ok")
    server.lines += [b"a", b"b"]
    again(sender, server)
    assert (replies, sender.sentBehindHello) == ([b"ok", b"ok"], [b"c", b"d"])
    server.lines += [b"c", b"d"]
    again(sender, server)
    assert (len(replies), done.value, last.value) == (3, None, b"ok")
    assert (sender.position, sender.unacknowledged) == (4, [])


def test_a_rerun_begins_where_the_server_is() -> None:
    server = Stored(b"a", b"b")
    sender = started(server)
    sender.send(b"c")
    assert (sender.positions, sender.sentBehindHello, sender.position) == ([2], [b"c"], 2)
    server.lines.append(b"c")
    again(sender, server)
    assert sender.position == 3


@pytest.mark.parametrize(
    ("server", "kind", "why"),
    [
        (Stored(b"a"), Behind, "2 lines of session demo were acknowledged; line 2 is no"),
        (Stored(), Forgotten, "2 lines of session demo were acknowledged, and the server knows"),
        (Stored(b"a", b"b", store="f" * 32), Forgotten, "the server knows nothing of them"),
        (Stored(b"a", b"x"), Different, "the 2 lines that the server has are not those sent"),
        (Stored(b"a", b"b", b"x"), Different, "the 3 lines that the server has"),
        (Stored(b"a", b"b", b"c", b"d"), Different, "the 4 lines that the server has"),
    ],
)
def test_a_server_that_disagrees_ends_the_session(server: Stored, kind: Any, why: str) -> None:
    sender = started(Stored())
    for line in (b"a", b"b"):
        sender.send(line)
    sender.wire.answer(b"ok", b"ok")
    left = Outcome(sender.send(b"c"))
    again(sender, server)
    assert isinstance(sender.problem, kind)
    assert why in str(sender.problem)
    assert why in str(left.error)
    sender.clock.advance(1000)
    assert len(sender.endpoint.wires) == 2
    assert why in str(Outcome(sender.send(b"d")).error)
    assert Outcome(sender.stopService()).value == []


@pytest.mark.parametrize("awaited", [0, 1])
def test_the_older_of_two_senders_stops(awaited: int) -> None:
    sender = started(Stored())
    for _ in range(awaited):
        Outcome(sender.send(b"a"))
    sender.wire.answer(b"error session: taken over by 192.0.2.7:40022")
    assert isinstance(sender.problem, TakenOver)
    assert sender.wire.ended
    sender.clock.advance(1000)
    assert len(sender.endpoint.wires) == 1


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"error session: belongs to another", "error session: belongs to another"),
        (b"ok", "it answered ok to the opening line, which it may have stored"),
        (b"\x1b[31m", r"the server knows no sessions: it answered \x1b[31m"),
        (b"session/2 new position=0", "the server's reply can't be understood: version 2 is not"),
        (b"session/1 new position=0", "the server's reply can't be understood: "),
    ],
)
def test_a_hello_that_is_refused_for_good_is_not_repeated(reply: bytes, why: str) -> None:
    sender = Sender()
    sender.startService()
    sender.wire.answer(reply)
    assert isinstance(sender.problem, SessionRefused)
    assert why in str(sender.problem)
    assert sender.wire.ended
    sender.clock.advance(1000)
    assert len(sender.endpoint.wires) == 1


@pytest.mark.parametrize(
    "reply", [b"error busy: 5 connections, the limit", b"error not stored: disk full", b"error x"]
)
def test_any_other_refusal_is_met_by_asking_again(reply: bytes) -> None:
    server = Stored()
    sender = Sender()
    sender.startService()
    sender.wire.answer(reply)
    sender.wire.lose(ConnectionDone())
    sender.clock.advance(1)
    assert reply.decode() in sender.heard[0]
    server.open(sender)
    replies = Outcome(sender.send(b"a"))
    sender.wire.answer(reply)
    sender.wire.lose(ConnectionDone())
    sender.clock.advance(2)
    server.open(sender)
    assert (sender.sentBehindHello, replies.came) == ([b"a"], False)
    sender.wire.answer(b"ok")
    assert (replies.value, sender.position) == (b"ok", 1)


def test_what_follows_a_refusal_counts_for_nothing() -> None:
    sender = started(Stored())
    replies: list[bytes] = []
    sender.sendAll([b"a", b"b", b"c"], replies.extend)
    sender.wire.answer(b"ok", b"error not stored: disk full", b"ok")
    assert (replies, sender.position, sender.wire.ended) == ([b"ok"], 1, True)


def test_a_server_that_does_not_answer_the_hello_is_asked_again() -> None:
    sender = Sender(timeout=5)
    sender.startService()
    for _ in range(2):
        sender.clock.advance(5)
    assert sender.heard == ["no reply within 5 seconds"]
    assert len(sender.endpoint.wires) == 2


def test_lines_longer_than_the_session_takes_are_never_sent() -> None:
    server = Stored(limit=3)
    sender = Sender()
    early = Outcome(sender.send(b"long"))
    sender.startService()
    server.open(sender)
    assert (sender.sentBehindHello, sender.outstanding) == ([], 0)
    assert "longer than 3 bytes" in str(early.error)
    with pytest.raises(ValueError, match="longer than 3 bytes"):
        sender.sendAll([b"a", b"long"], print)
    assert Outcome(sender.send(b"abc")).came is False
    assert sender.sentBehindHello == [b"abc"]


def test_a_note_is_kept_with_the_position() -> None:
    server = Stored()
    sender = started(server)
    sender.send(b"a")
    with pytest.raises(ValueError, match="replies"):
        sender.mark("here")
    sender.wire.answer(b"ok")
    server.lines.append(b"a")
    with pytest.raises(ValueError, match="bad note"):
        sender.mark("not here")
    marked = Outcome(sender.mark("here"))
    later = Outcome(sender.send(b"b"))
    sender.clock.advance(0)
    assert sender.wire.lines == [b"session/1 demo at=1 note=here"]
    # Lost with the connection, it is given again.
    sender.wire.lose(ConnectionLost())
    assert (marked.came, len(sender.heard)) == (False, 1)
    sender.clock.advance(10)
    assert sender.wire.lines == [b"session/1 demo at=1 note=here"]
    server.open(sender)
    assert (marked.value, sender.sentBehindHello) == (None, [b"b"])
    sender.wire.answer(b"ok")
    server.lines.append(b"b")
    again(sender, server)
    assert (later.value, sender.wire.lines) == (b"ok", [b"session/1 demo"])


def test_a_note_that_comes_while_the_session_is_opened_is_kept_too() -> None:
    server = Stored()
    sender = started(server)
    sender.wire.lose(ConnectionLost())
    sender.clock.advance(10)
    marked = Outcome(sender.mark("here"))
    server.open(sender)
    assert marked.came is False
    sender.clock.advance(0)
    assert sender.wire.lines == [b"session/1 demo at=0 note=here"]
    server.open(sender)
    assert marked.value is None


def test_a_session_that_has_to_be_new_says_so() -> None:
    sender = Sender(new=True)
    sender.startService()
    assert sender.wire.lines == [b"session/1 demo at=0"]


@pytest.mark.parametrize("name", ["", "a b", "\n", "x" * 256, "ä"])
def test_a_bad_name_is_refused_at_once(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        SessionSender(Clock(), Endpoint(), name)


def test_a_sender_that_is_stopped_while_it_opens_disconnects() -> None:
    sender = Sender()
    sender.startService()
    stopped = Outcome(sender.stopService())
    assert sender.wire.ended
    assert stopped.value == []


def test_a_note_that_comes_while_the_session_is_opened_goes_with_the_next_hello() -> None:
    server = Stored(b"a")
    sender = started(server)
    sender.wire.lose(ConnectionDone())
    sender.clock.advance(100)
    assert sender.wire.lines == [b"session/1 demo"]
    marked = Outcome(sender.mark("here"))
    sender.send(b"b")
    server.open(sender)
    assert not marked.came
    sender.clock.advance(0)
    assert sender.wire.lines == [b"session/1 demo at=1 note=here"]
    server.open(sender)
    assert (marked.value, sender.sentBehindHello) == (None, [b"b"])


@given(st.data())
def test_wherever_connections_break_each_line_is_stored_once_and_in_order(data: Any) -> None:
    count = data.draw(st.integers(1, 12))
    lines = [b"%d" % number for number in range(count)]
    server = Stored(limit=5)
    sender = Sender()
    replies: list[bytes] = []
    for start in range(0, count, 3):
        sender.sendAll(lines[start : start + 3], replies.extend)
    sender.startService()
    for _ in range(data.draw(st.integers(0, 6))):
        heard = data.draw(st.booleans())
        if heard:
            server.open(sender)
            arrived = sender.sentBehindHello[: data.draw(st.integers(0, 12))]
            server.lines += arrived
            sender.wire.answer(*[b"ok"] * data.draw(st.integers(0, len(arrived))))
        sender.wire.lose(ConnectionLost())
        sender.clock.advance(100)
    server.open(sender)
    rest = sender.sentBehindHello
    server.lines += rest
    sender.wire.answer(*[b"ok"] * len(rest))
    assert server.lines == lines
    assert replies == [b"ok"] * count
    assert (sender.position, sender.crc) == (count, folded(lines))


@pytest.mark.parametrize("reply", [Opened(True, 3, 9, 8, 1, STORE, "x", 2, 1)])
def test_what_is_written_is_read(reply: Any) -> None:
    assert type(reply).parse(reply.encode()) == reply
