"""Telnet commands out of lines, and answered; other bytes left alone."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockservice.wire.framer import Framer
from sockservice.wire.framing import CRLF, LF, Body, Control, Lines, Refusal
from sockservice.wire.telnet import Telnet

IAC, SE, NOP, DM, IP, AYT, SB = b"\xff", b"\xf0", b"\xf1", b"\xf2", b"\xf4", b"\xf6", b"\xfa"
WILL, WONT, DO, DONT = b"\xfb", b"\xfc", b"\xfd", b"\xfe"
ECHO, TIMING_MARK, TERMINAL_TYPE, NAWS, LINEMODE = b"\x01", b"\x06", b"\x18", b"\x1f", b"\x22"

#: What telnet's Ctrl-C sends.
INTERRUPT = IAC + IP + IAC + DO + TIMING_MARK

#: A line and its ending, a refusal and its ending, or what the client is told.
Item = tuple[str, bytes, bytes]


def told(data: bytes) -> Item:
    return "told", data, b""


def append_told(items: list[Item], data: bytes) -> None:
    """What is told without a line in between is one, however it comes."""
    before = items.pop()[1] if items and items[-1][0] == "told" else b""
    items.append(told(before + data))


def session(chunks: list[bytes], before: bytes = b"", most: int = 1000) -> list[Item]:
    """Give what is taken from a stream; `before` came to the framer before there was telnet."""
    framer = Framer(1000)
    framer.receive(before)
    telnet = Telnet(framer, first=not before)
    items: list[Item] = []
    for chunk in chunks or [b""]:
        telnet.receive(chunk)
        while (item := telnet.take(most)) is not None:
            if isinstance(item, Lines):
                assert 1 <= len(item.lines) <= most
                items += [("line", line, item.ending) for line in item.lines]
            elif isinstance(item, Refusal):
                items.append(("refusal", *item))
            else:
                append_told(items, item.data)
    end = telnet.finish()
    return items if end is None else [*items, ("refusal", *end)]


def each_byte(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def line(text: bytes, ending: bytes = LF) -> Item:
    return "line", text, ending


TORN: Item = ("refusal", b"unterminated line", LF)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (WILL + TERMINAL_TYPE, IAC + DONT + TERMINAL_TYPE),
        (WILL + NAWS, IAC + DONT + NAWS),
        (DO + ECHO, IAC + WONT + ECHO),
        (DO + LINEMODE, IAC + WONT + LINEMODE),
        (DO + TIMING_MARK, IAC + WILL + TIMING_MARK),
    ],
)
def test_an_option_is_refused_and_a_timing_mark_given(asked: bytes, answer: bytes) -> None:
    items = session([IAC + asked + b"hello\r\n"])
    assert items == [told(answer), line(b"hello", CRLF)]


@pytest.mark.parametrize("said", [WONT + ECHO, DONT + ECHO, NOP, DM, IP, b"\xf3", b"\xf5", b"\xf9"])
def test_what_asks_nothing_is_not_answered(said: bytes) -> None:
    items = session([INTERRUPT + b"a" + IAC + said + b"b\n"])
    assert items == [told(IAC + WILL + TIMING_MARK), line(b"ab")]


@pytest.mark.parametrize("before", [b"", b"one\n", b"one\nhal"])
def test_an_interrupt_anywhere_shows_a_telnet_client(before: bytes) -> None:
    items = session([INTERRUPT + IAC + DM + b"f\nnext\n"], before)
    text = before + b"f\nnext\n"
    marked = told(IAC + WILL + TIMING_MARK)
    lines = [line(each) for each in text.split(LF)[:-1]]
    assert [item for item in items if item != marked] == lines
    assert items.index(marked) == before.count(LF)


def test_an_option_asked_for_later_starts_a_line() -> None:
    assert session([b"a\n" + IAC + WILL + NAWS + b"b\n"], b"x\n") == [
        line(b"x"),
        line(b"a"),
        told(IAC + DONT + NAWS),
        line(b"b"),
    ]


def test_an_option_in_the_middle_of_a_line_is_text() -> None:
    text = b"a" + IAC + WILL + NAWS + b"b"
    assert session([text + LF]) == [line(text)]
    assert session([IAC + WILL + NAWS + b"b\n"], b"a") == [line(text)]


def test_are_you_there_is_answered_in_its_place() -> None:
    items = session([INTERRUPT + b"a\nb" + IAC + AYT + b"c\n"])
    assert items == [
        told(IAC + WILL + TIMING_MARK),
        line(b"a"),
        told(b"[yes]\r\n"),
        line(b"bc"),
    ]


@pytest.mark.parametrize(
    "inside",
    [b"", b"\x18\x00VT100", b"a\nb\r\n", IAC + IAC + SE, b"\xf0", b"x" * 4000, IAC + NOP],
)
def test_a_subnegotiation_is_passed_over(inside: bytes) -> None:
    stream = INTERRUPT + b"a" + IAC + SB + inside + IAC + SE + b"b\n"
    expected = [told(IAC + WILL + TIMING_MARK), line(b"ab")]
    assert session([stream]) == expected
    assert session(each_byte(stream)) == expected


def test_a_subnegotiation_without_an_end_is_given_up() -> None:
    telnet = Telnet(Framer(1000), first=True)
    telnet.receive(INTERRUPT + IAC + SB)
    with pytest.raises(ValueError, match="telnet subnegotiation longer than 4096 bytes"):
        for _ in range(5000):
            while telnet.take(1) is not None:
                pass
            telnet.receive(b"x")


@pytest.mark.parametrize("before", [b"a\nb\n", IAC + DO + ECHO, IAC + AYT, b"a\n" + IAC + AYT])
def test_what_came_before_a_subnegotiation_that_is_given_up_is_taken(before: bytes) -> None:
    stream = INTERRUPT + before + IAC + SB + b"x" * 5000

    def items(chunks: list[bytes]) -> list[Lines | Refusal | Control | Body | None]:
        telnet = Telnet(Framer(1000), first=True)
        taken: list[Lines | Refusal | Control | Body | None] = []
        with pytest.raises(ValueError, match="longer than"):
            for chunk in chunks:
                telnet.receive(chunk)
                while (item := telnet.take(1)) is not None:
                    taken.append(item)
        return taken

    expected = items([stream[: len(INTERRUPT)], *each_byte(stream[len(INTERRUPT) :])])
    assert expected
    assert items([stream[: len(INTERRUPT)], stream[len(INTERRUPT) :]]) == expected


@pytest.mark.parametrize("torn", [b"", IAC, WILL, b"\x18", b"\x18" + IAC, b"\x18\nline\n"])
def test_a_stream_that_ends_in_a_command_ends_in_a_torn_line(torn: bytes) -> None:
    torn = (IAC if torn == WILL else IAC + SB) + torn
    marked = told(IAC + WILL + TIMING_MARK)
    assert session([INTERRUPT + b"a\n" + torn]) == [marked, line(b"a"), TORN]


def test_a_stream_that_ends_in_half_of_a_first_command_ends_in_a_torn_line() -> None:
    assert session([IAC]) == [TORN]
    assert session([b"a\n" + IAC + DO]) == [line(b"a"), TORN]


def test_a_doubled_iac_is_a_byte_of_the_line() -> None:
    stream = INTERRUPT + b"a" + IAC + IAC + b"b" + IAC + IAC + LF
    assert session([stream]) == [told(IAC + WILL + TIMING_MARK), line(b"a\xffb\xff")]


def test_cr_nul_from_a_telnet_client_ends_a_line() -> None:
    stream = INTERRUPT + b"a\r\0b\r\nc\0\r\n"
    expected = [line(b"a", CRLF), line(b"b", CRLF), line(b"c\0", CRLF)]
    assert session([stream]) == [told(IAC + WILL + TIMING_MARK), *expected]


def test_cr_nul_from_anybody_else_is_text() -> None:
    assert session([b"a\r\0b" + IAC + b"\n"]) == [line(b"a\r\0b\xff")]


PLAIN = [
    pytest.param(b"\xff\xfeh\0i\0\n\0", id="UTF-16 with its mark"),
    pytest.param(b"\xff\xd8\xff\xe0\0\x10JFIF\0\n\xff\xdb\0C", id="JPEG"),
    pytest.param(b"\xff\xfb\x90\x64\0\0\n\xff\xfb\x92\x60", id="MP3"),
    pytest.param(b"caf\xe9\xff \xff\xff\n", id="Latin-1"),
    pytest.param(b"\xff\n" * 3, id="lone"),
    pytest.param(b"\xff\xff\xff\xff\n", id="many"),
    pytest.param(b"x" + b"".join(IAC + bytes([b]) for b in range(256) if b != 10), id="pairs"),
    pytest.param(b"x" + bytes(b for b in range(256) if b != 10), id="every byte, up"),
    pytest.param(bytes(b for b in range(255, -1, -1) if b != 10), id="every byte, down"),
]


@pytest.mark.parametrize("text", PLAIN)
def test_lines_that_merely_hold_0xff_survive(text: bytes) -> None:
    stream = text + LF
    expected = [line(each) for each in stream.split(LF)[:-1]]
    assert session([stream]) == expected
    assert session(each_byte(stream)) == expected
    assert session([stream], b"hello\n") == [line(b"hello"), *expected]


@pytest.mark.parametrize("command", [b"\xec", b"\xed", b"\xee", NOP, IP, AYT, b"\xf9"])
def test_any_command_may_come_first(command: bytes) -> None:
    stream = IAC + command + b"a\n"
    items = session(each_byte(stream))
    assert items[-1] == line(b"a")
    assert session([stream]) == items


#: Pieces of what a telnet client sends, each with the text in it and what it is told.
SENT: list[tuple[bytes, bytes, bytes]] = [
    (b"a", b"a", b""),
    (b"bc", b"bc", b""),
    (LF, LF, b""),
    (b"\r", b"\r", b""),
    (b"\0", b"\0", b""),
    (CRLF, CRLF, b""),
    (b"\r\0", b"\r\0", b""),
    (IAC + IAC, IAC, b""),
    (IAC + NOP, b"", b""),
    (IAC + WONT + ECHO, b"", b""),
    (IAC + WILL + NAWS, b"", IAC + DONT + NAWS),
    (IAC + DO + LF, IAC + DO + LF, b""),
    (IAC + AYT, b"", b"[yes]\r\n"),
    (INTERRUPT + IAC + DM, b"", IAC + WILL + TIMING_MARK),
    (IAC + SB + b"\x18x\n" + IAC + IAC + SE + IAC + SE, b"", b""),
]


def model(pieces: list[tuple[bytes, bytes, bytes]]) -> list[Item]:
    """Say what is in a session that begins with WILL TERMINAL-TYPE, a byte at a time (RFC 854)."""
    items = [told(IAC + DONT + TERMINAL_TYPE)]
    text = b""
    ending = LF
    for _, plain, answer in pieces:
        if answer:
            append_told(items, answer)
        for at in range(len(plain)):
            text += plain[at : at + 1]
            if text.endswith((LF, b"\r\0")):
                ending = CRLF if text[-2:] in (CRLF, b"\r\0") else LF
                items.append(("line", text[: -len(ending)], ending))
                text = b""
    return [*items, ("refusal", b"unterminated line", ending)] if text else items


@st.composite
def sessions(draw: st.DrawFn) -> tuple[list[bytes], list[Item]]:
    """A telnet client's stream in chunks, and what is in it."""
    pieces = draw(st.lists(st.sampled_from(SENT), max_size=12))
    opening = IAC + WILL + TERMINAL_TYPE
    stream = opening + b"".join(sent for sent, _, _ in pieces)
    places = draw(st.lists(st.integers(0, len(stream)), max_size=12))
    chunks = [stream[a:b] for a, b in pairwise(sorted([0, *places, len(stream)]))]
    return chunks, model(pieces)


@settings(max_examples=200)
@given(sessions(), st.integers(1, 3))
def test_a_telnet_session_cut_anywhere_gives_the_same(
    given: tuple[list[bytes], list[Item]], most: int
) -> None:
    chunks, expected = given
    assert session(chunks, most=most) == expected
    assert session(each_byte(b"".join(chunks))) == expected


def test_a_command_between_cr_and_nul_does_not_part_them() -> None:
    stream = INTERRUPT + b"a\r" + IAC + NOP + b"\0b\r\n"
    expected = [told(IAC + WILL + TIMING_MARK), line(b"a", CRLF), line(b"b", CRLF)]
    assert session([stream]) == expected
    assert session(each_byte(stream)) == expected


BYTES = st.sampled_from(
    [IAC, IAC, WILL, DO, IP, NOP, SB, SE, NAWS, TIMING_MARK, LF, b"\r", b"\0", b"a"]
)


@settings(max_examples=200)
@given(st.lists(BYTES, max_size=24), st.booleans(), st.lists(st.integers(0, 24), max_size=6))
def test_any_bytes_cut_anywhere_give_the_same(
    stream: list[bytes], begun: bool, places: list[int]
) -> None:
    before = b"begun" if begun else b""
    whole = b"".join(stream)
    bounds = sorted({0, len(whole), *(place for place in places if place < len(whole))})
    chunks = [whole[a:b] for a, b in pairwise(bounds)]
    assert session(chunks, before) == session([whole], before)
    assert session(each_byte(whole), before) == session([whole], before)


def test_what_the_client_is_told_is_no_line() -> None:
    telnet = Telnet(Framer(10), first=True)
    telnet.receive(IAC + WILL + NAWS)
    assert telnet.take(1) == Control(IAC + DONT + NAWS)
    assert telnet.take(1) is None
    assert telnet.finish() is None
