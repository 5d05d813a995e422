"""RELP to messages and answers, whatever the cuts."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockservice.wire.framing import LF, Control, Lines, Refusal
from sockservice.wire.relp import RelpFraming

OFFERS = b"relp_version=0\nrelp_software=librelp,1.11.0,http://librelp.adiscon.com\ncommands=syslog"
WELCOME = b"1 rsp 63 200 OK\nrelp_version=0\nrelp_software=sockservice\ncommands=syslog\n"
CLOSED = b"0 serverclose 0\n"

#: What was taken: a message and its number, a refusal's, or an answer.
Item = tuple[str, bytes, bytes]


def frame(number: int, command: bytes, data: bytes = b"") -> bytes:
    return b"%d %b %d%b\n" % (number, command, len(data), b" " + data if data else b"")


OPEN = frame(1, b"open", OFFERS)


def take(framing: RelpFraming, items: list[Item], most: int = 1000) -> None:
    while (item := framing.take(most)) is not None:
        if isinstance(item, Lines):
            assert 1 <= len(item.lines) <= most
            first = int(item.ending)
            items += [("message", line, b"%d" % (first + at)) for at, line in enumerate(item.lines)]
        elif isinstance(item, Refusal):
            items.append(("refusal", *item))
        else:
            assert isinstance(item, Control)
            items.append(("answer", item.data, b"last" if item.last else b""))
            if item.last:
                break


def taken(framing: RelpFraming) -> list[Item]:
    items: list[Item] = []
    take(framing, items)
    return items


def framed(
    stream: bytes, limit: int = 100, size: int | None = None, most: int = 1000
) -> list[Item]:
    framing = RelpFraming(limit)
    items: list[Item] = []
    for at in range(0, len(stream), size or len(stream) or 1):
        framing.receive(stream[at : at + (size or len(stream))])
        try:
            take(framing, items, most)
        except ValueError as problem:
            return [*items, ("invalid", str(problem).encode(), b"")]
        if items and items[-1][2] == b"last":
            return items
    end = framing.finish()
    return items if end is None else [*items, ("refusal", *end)]


SESSION = b"".join(
    (
        OPEN,
        frame(2, b"syslog", b"<13>one"),
        frame(3, b"syslog", b"<13>two\n"),
        frame(4, b"syslog"),
        frame(5, b"syslog", b"<13>" + b"x" * 100),
        frame(6, b"syslog", b"<13>of two\nlines\n"),
        frame(7, b"close"),
    )
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
@pytest.mark.parametrize("most", [1, 2, 1000])
def test_a_session_is_the_same_however_it_arrives(size: int, most: int) -> None:
    assert framed(SESSION, 100, size, most) == [
        ("answer", WELCOME, b""),
        ("message", b"<13>one", b"2"),
        ("message", b"<13>two", b"3"),
        ("message", b"", b"4"),
        ("refusal", b"line longer than 100 bytes", b"5"),
        ("message", b"<13>of two\nlines", b"6"),
        ("answer", b"7 rsp 0\n" + CLOSED, b"last"),
    ]


def test_a_session_is_the_same_with_any_two_cuts() -> None:
    offers = b"relp_version=0\ncommands=syslog"
    stream = b"".join(
        (
            frame(1, b"open", offers),
            frame(2, b"syslog", b"<1>one\n"),
            frame(3, b"syslog", b"more than ten"),
            frame(4, b"syslog"),
            frame(5, b"close"),
        )
    )
    whole = framed(stream, 10)
    assert len(whole) == 5
    for first, second in combinations(range(1, len(stream)), 2):
        framing, items = RelpFraming(10), list[Item]()
        for chunk in (stream[:first], stream[first:second], stream[second:]):
            framing.receive(chunk)
            take(framing, items)
        assert items == whole


@given(
    st.lists(
        st.one_of(
            st.sampled_from([OPEN, frame(2, b"syslog", b"a\n"), b"2 syslog 3 ab\n", b" ", LF]),
            st.builds(
                frame,
                st.integers(0, 4),
                st.sampled_from([b"open", b"syslog", b"close", b"rsp", b"x"]),
                st.binary(max_size=12),
            ),
            st.binary(max_size=5),
        ),
        max_size=6,
    ),
    st.integers(1, 9),
    st.integers(1, 3),
)
def test_any_bytes_are_the_same_however_they_arrive(
    frames: list[bytes], size: int, most: int
) -> None:
    stream = OPEN + b"".join(frames)
    whole = framed(stream, 10)
    assert framed(stream, 10, size, most) == whole
    assert whole[:1] == [("answer", WELCOME, b"")]


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"hello\n", "not RELP: a frame begins with a number, a command and a length"),
        (b"GET / HTTP/1.1\r\n", "not RELP: a frame begins with a number, a command and a length"),
        (b"1234567890 ", "not RELP: a frame begins with a number, a command and a length"),
        (b"1 open x", "not RELP: a frame begins with a number, a command and a length"),
        (b"1 op3n", "not RELP: a frame begins with a number, a command and a length"),
        (b"1  open", "not RELP: a frame begins with a number, a command and a length"),
        (b"1 " + b"x" * 33, "not RELP: a frame begins with a number, a command and a length"),
        (b"1 syslog 1 a\n", "a RELP message before the session is open"),
        (b"2 open 0\n", "RELP transaction 2 where 1 is due"),
        (OPEN + frame(3, b"syslog", b"a"), "RELP transaction 3 where 2 is due"),
        (OPEN + frame(2, b"open", OFFERS), "a second open in one RELP session"),
        (OPEN + b"2 syslog 2\nab\n", "a RELP frame ends before its data"),
        (OPEN + b"2 syslog 1 ab\n", "a RELP frame that does not end where it says"),
        (OPEN + b"2 syslog 101 " + b"x" * 102, "a RELP frame that does not end where it says"),
        (OPEN + b"2 close 4097 ", "a RELP command longer than 4096 bytes"),
        (b"1 syslog 1000000 a", "a RELP message before the session is open"),
    ],
)
def test_what_is_no_session_is_told_so(stream: bytes, why: str) -> None:
    assert framed(stream)[-1] == ("invalid", why.encode(), b"")
    assert framed(stream, size=1)[-1] == ("invalid", why.encode(), b"")


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        (b"\n" + OFFERS, WELCOME),
        (OFFERS.replace(b"=0", b"=1"), WELCOME),
        (b"relp_version=0\ncommands=eventlog,syslog", WELCOME),
        (b"commands=syslog", b"1 rsp 27 500 no relp_version offered\n"),
        (b"relp_version=0", b"1 rsp 29 500 no command syslog offered\n"),
        (b"", b"1 rsp 27 500 no relp_version offered\n"),
    ],
)
def test_an_open_is_answered_by_what_it_offers(offers: bytes, answer: bytes) -> None:
    [(kind, data, last)] = framed(frame(1, b"open", offers))
    assert (kind, data) == ("answer", answer)
    assert (last == b"last") is (answer is not WELCOME)


def test_an_unknown_command_is_refused_and_ends_the_session() -> None:
    answer = b"2 rsp 22 500 unknown command go\n" + CLOSED
    assert framed(OPEN + frame(2, b"go", b"on"))[-1] == ("answer", answer, b"last")


def test_a_hint_wants_no_answer() -> None:
    hint = frame(0, b"hint", b"anything")
    assert framed(OPEN + hint + frame(2, b"syslog", b"a"))[1:] == [
        ("answer", b"", b""),
        ("message", b"a", b"2"),
    ]


def test_replies_are_numbered_from_the_first_message() -> None:
    framing = RelpFraming(100)
    replies = [b"ok", b"error line longer than 100 bytes", b"ok"]
    said = b"17 rsp 6 200 OK\n18 rsp 30 500 line longer than 100 bytes\n19 rsp 6 200 OK\n"
    assert framing.encode(replies, b"17") == said


def test_numbers_go_round() -> None:
    framing = RelpFraming(100)
    said = b"999999999 rsp 6 200 OK\n1 rsp 6 200 OK\n"
    assert framing.encode([b"ok", b"ok"], b"999999999") == said


def test_last_words_end_the_session() -> None:
    said = b"0 serverclose 18 error idle for 9 s\n"
    assert RelpFraming(100).encode([b"error idle for 9 s"], LF) == said


@pytest.mark.parametrize("stream", [b"1", OPEN[:-1], OPEN + b"2 syslog 500 xxx"])
def test_a_frame_that_the_stream_ends_in_is_refused(stream: bytes) -> None:
    assert framed(stream)[-1] == ("refusal", b"unterminated RELP frame", LF)


def test_a_message_that_is_too_long_takes_no_memory() -> None:
    framing = RelpFraming(100)
    framing.receive(OPEN + b"2 syslog 1000000 ")
    taken(framing)
    for _ in range(1000):
        framing.receive(b"x" * 1000)
        assert taken(framing) == []
        assert framing.held == 0
        assert not framing.startsLine
    framing.receive(b"\n")
    assert taken(framing) == [("refusal", b"line longer than 100 bytes", b"2")]
    assert framing.startsLine
