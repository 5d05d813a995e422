"""Syslog over a stream to messages, in both framings, whatever the cuts."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockservice.wire.framing import LF, Lines
from sockservice.wire.syslog import SyslogFraming

TOO_LONG = ("refusal", b"line longer than 20 bytes")


def framed(stream: bytes, size: int | None = None, most: int = 1000) -> list[tuple[str, bytes]]:
    framing = SyslogFraming(20)
    items: list[tuple[str, bytes]] = []
    step = size or len(stream) or 1
    for at in range(0, len(stream), step):
        framing.receive(stream[at : at + step])
        try:
            while (item := framing.take(most)) is not None:
                assert item.ending == b""
                if isinstance(item, Lines):
                    assert 1 <= len(item.lines) <= most
                    items += [("message", line) for line in item.lines]
                else:
                    items.append(("refusal", item.reason))
        except ValueError as problem:
            return [*items, ("invalid", str(problem).encode())]
    end = framing.finish()
    if end is not None:
        assert end.ending == LF
        items.append(("refusal", end.reason))
    return items


@pytest.mark.parametrize("size", [1, 2, 3, 7, None])
@pytest.mark.parametrize("most", [1, 2, 1000])
def test_each_frame_says_how_it_is_framed(size: int | None, most: int) -> None:
    stream = (
        b"<13>lines\n"
        b"9 <13>count<13>more\r\n"
        b"<13>nul\0\n"
        b"13 <13>two\nlines\n\n\0"
        b"<13>more than 20 bytes are too many\n"
        b"21 <13>xxxxxxxxxxxxxxxxx"
        b"<13>exactly 20 bytes\r\n"
        b"20 <13>exactly 20 bytes"
        b"2 hi"
        b"8 <13>one\n9 <13>two\n\n"
    )
    assert framed(stream, size, most) == [
        ("message", b"<13>lines"),
        ("message", b"<13>count"),
        ("message", b"<13>more"),
        ("message", b"<13>nul"),
        ("message", b"<13>two\nlines"),
        TOO_LONG,
        TOO_LONG,
        ("message", b"<13>exactly 20 bytes"),
        ("message", b"<13>exactly 20 bytes"),
        ("message", b"hi"),
        ("message", b"<13>one"),
        ("message", b"<13>two\n"),
    ]


def test_frames_are_the_same_with_any_two_cuts() -> None:
    stream = (
        b"<1>one\r\n9 <13>count<2>nul\0\n\n21 <13>" + b"x" * 17 + b"<13>" + b"y" * 20 + b"\n2 hi"
    )
    whole = framed(stream)
    assert len(whole) == 6
    for first, second in combinations(range(1, len(stream)), 2):
        framing, items = SyslogFraming(20), []
        for chunk in (stream[:first], stream[first:second], stream[second:]):
            framing.receive(chunk)
            while (item := framing.take(1)) is not None:
                items.append(
                    ("message", item.lines[0])
                    if isinstance(item, Lines)
                    else ("refusal", item.reason)
                )
        assert items == whole


PIECES = st.sampled_from(
    [b"<", b"<1>", b"a", b"\n", b"\r", b"\0", b"1 ", b"3 ", b"25 ", b"0", b"x" * 19, b"7"]
)


@given(st.lists(PIECES, max_size=20).map(b"".join), st.integers(1, 9), st.integers(1, 3))
def test_any_bytes_are_the_same_however_they_arrive(stream: bytes, size: int, most: int) -> None:
    assert framed(stream, size, most) == framed(stream)


@pytest.mark.parametrize(
    "stream", [b"hello\n", b"0 x", b" 3 abc", b"1234567 ", b"3\nabc", b"12x", b"\xff"]
)
def test_where_the_next_frame_begins_must_be_known(stream: bytes) -> None:
    why = ("invalid", b"not syslog: a frame begins with < or a length")
    assert framed(b"<13>a\n" + stream) == [("message", b"<13>a"), why]
    assert framed(stream, 1) == [why]


@pytest.mark.parametrize("stream", [b"<13>a", b"<", b"1", b"5 abcd", b"30 abcd", b"<" * 30])
def test_a_frame_that_the_stream_ends_in_is_refused(stream: bytes) -> None:
    assert framed(b"<13>a\n" + stream) == [
        ("message", b"<13>a"),
        ("refusal", b"unterminated syslog frame"),
    ]


def test_what_is_too_long_takes_no_memory() -> None:
    for begin in (b"<13>", b"900000 "):
        framing = SyslogFraming(20)
        framing.receive(begin)
        for _ in range(500):
            framing.receive(b"x" * 1000)
            assert framing.take(9) is None
            assert framing.held == 0 and not framing.startsLine


def test_only_last_words_are_sent() -> None:
    framing = SyslogFraming(20)
    assert framing.encode([b"ok", b"ok"], b"") == b""
    assert framing.encode([b"error busy"], LF) == b"error busy\n"
