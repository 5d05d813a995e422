"""RELP as a client speaks it: messages numbered, and responses matched to them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockservice.wire.framing import LF, Control, Farewell, Lines
from sockservice.wire.relp import RelpFraming
from sockservice.wire.relpclient import RelpReplies
from tests.wire.test_relp import CLOSED, WELCOME, frame


def replies(framing: RelpReplies, data: bytes, size: int | None = None) -> list[bytes]:
    found: list[bytes] = []
    for at in range(0, len(data), size or len(data)):
        framing.receive(data[at : at + (size or len(data))])
        while (item := framing.take(2)) is not None:
            found += item.lines
    return found


def opened(*lines: bytes) -> RelpReplies:
    """Give one that has sent `lines`, and whose session is open."""
    framing = RelpReplies(1000)
    framing.encode(list(lines), LF)
    assert replies(framing, WELCOME) == []
    return framing


def test_messages_follow_an_open_and_are_numbered() -> None:
    framing = RelpReplies(1000)
    assert framing.encode([b"a"], LF) == (
        b"1 open 56 relp_version=0\nrelp_software=sockservice\ncommands=syslog\n2 syslog 1 a\n"
    )
    assert framing.encode([b"", b"c\nd"], LF) == b"3 syslog 0\n4 syslog 3 c\nd\n"


@given(st.lists(st.binary(max_size=5), min_size=1), st.integers(1, 30))
def test_what_is_sent_is_what_the_listener_takes_and_its_responses_are_the_replies(
    lines: list[bytes], size: int
) -> None:
    server, client = RelpFraming(3), RelpReplies(1000)
    server.receive(client.encode(lines, LF))
    answers = []
    kept = []
    while (item := server.take(2)) is not None:
        if isinstance(item, Lines):
            kept += item.lines
            answers.append(server.encode([b"ok"] * len(item.lines), item.ending))
        elif isinstance(item, Control):
            answers.append(item.data)
        else:
            answers.append(server.encode([b"error " + item.reason], item.ending))
    fits = [len(line) <= 3 for line in lines]
    assert kept == [line.removesuffix(LF) for line, each in zip(lines, fits, strict=True) if each]
    wanted = [b"ok" if each else b"error line longer than 3 bytes" for each in fits]
    assert replies(client, b"".join(answers), size) == wanted


def test_numbers_go_round() -> None:
    framing = opened(b"")
    framing._next = framing._due = 999_999_999
    assert framing.encode([b"a", b"b"], LF) == b"999999999 syslog 1 a\n1 syslog 1 b\n"
    data = frame(999_999_999, b"rsp", b"200 OK") + frame(1, b"rsp", b"500 no\nway")
    assert replies(framing, data) == [b"ok", b"error no way"]


def test_a_close_is_answered_and_the_servers_is_no_surprise() -> None:
    assert RelpReplies(1000).goodbye() == b""
    framing = opened(b"a")
    assert replies(framing, frame(2, b"rsp", b"200 OK")) == [b"ok"]
    assert (framing.goodbye(), framing.goodbye()) == (b"3 close 0\n", b"")
    assert replies(framing, frame(3, b"rsp") + CLOSED) == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (frame(1, b"rsp", b"500 no command syslog offered"), "500 no command syslog offered"),
        (WELCOME + frame(0, b"serverclose", b"error busy: \xff"), r"error busy: \xff"),
        (WELCOME + CLOSED, ""),
    ],
)
def test_a_session_that_is_refused_or_ended_says_why(data: bytes, said: str) -> None:
    framing = RelpReplies(1000)
    framing.encode([b"a"], LF)
    with pytest.raises(Farewell) as ended:
        replies(framing, data)
    assert str(ended.value) == said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"error busy: later\n", "not RELP"),
        (frame(3, b"rsp", b"200 OK"), "a response to RELP transaction 3 where 2 is due"),
        (b"2 rsp 6 200 OKx", "does not end where it says"),
        (frame(2, b"rsp", b"okay"), "without a code"),
        (frame(2, b"rsp", b"2000"), "without a code"),
        (frame(2, b"syslog", b"x"), "where a response is due"),
        (b"2 rsp 1001 ", "longer than 1000 bytes"),
    ],
)
def test_what_is_no_response_is_told(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replies(opened(b"a"), data)


def test_responses_before_one_that_is_none_count() -> None:
    framing = opened(b"a", b"b")
    framing.receive(frame(2, b"rsp", b"200 OK") + b"nonsense\n")
    assert framing.take(10) == Lines([b"ok"], LF)
    with pytest.raises(ValueError, match="not RELP"):
        framing.take(10)
