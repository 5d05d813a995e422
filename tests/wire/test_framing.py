"""Bytes to lines, whatever the cuts."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sockservice.wire.chunks import Chunks, Packets
from sockservice.wire.framer import Framer
from sockservice.wire.framing import CRLF, LF, Lines, Refusal
from sockservice.wire.plurals import counted

#: A line or a refusal's reason, and its ending.
Item = tuple[str, bytes, bytes]


def model(stream: bytes, limit: int) -> list[Item]:
    """Say what is in a stream that has arrived whole."""
    *ended, rest = stream.split(LF)
    too_long = f"line longer than {counted(limit, 'byte')}".encode()
    items: list[Item] = []
    ending = LF
    for line in ended:
        ending = CRLF if line.endswith(b"\r") else LF
        text = line.removesuffix(b"\r")
        fits = len(text) <= limit
        items.append(("line", text, ending) if fits else ("refusal", too_long, ending))
    if rest:
        # One CR more than the limit might have been half an ending.
        fits = len(rest.removesuffix(b"\r")) <= limit
        items.append(("refusal", b"unterminated line" if fits else too_long, ending))
    return items


def taken(framer: Framer, most: int = 1000) -> list[Item]:
    items: list[Item] = []
    while (item := framer.take(most)) is not None:
        if isinstance(item, Lines):
            assert 1 <= len(item.lines) <= most
            items += [("line", line, item.ending) for line in item.lines]
        else:
            items.append(("refusal", *item))
    return items


def framed(chunks: list[bytes], limit: int, most: int = 1000) -> list[Item]:
    framer = Framer(limit)
    items: list[Item] = []
    for chunk in chunks:
        framer.receive(chunk)
        items += taken(framer, most)
    end = framer.finish()
    return items if end is None else [*items, ("refusal", *end)]


PIECES = st.sampled_from([LF, LF, CRLF, b"\r", b"a", b"bcd", b"e" * 9, b"\xff", b"\0"])
STREAMS = st.one_of(st.lists(PIECES, max_size=30).map(b"".join), st.binary(max_size=60))


@st.composite
def cut(draw: st.DrawFn) -> list[bytes]:
    """A stream in chunks, empty ones among them."""
    stream = draw(STREAMS)
    places = draw(st.lists(st.integers(0, len(stream)), max_size=12))
    return [stream[a:b] for a, b in pairwise(sorted([0, *places, len(stream)]))]


@given(cut(), st.integers(1, 10), st.integers(1, 4))
def test_any_stream_cut_anywhere_gives_the_same(chunks: list[bytes], limit: int, most: int) -> None:
    assert framed(chunks, limit, most) == model(b"".join(chunks), limit)


@given(STREAMS, st.integers(1, 10))
def test_a_stream_byte_by_byte_gives_the_same(stream: bytes, limit: int) -> None:
    chunks = [stream[at : at + 1] for at in range(len(stream))]
    assert framed(chunks, limit) == model(stream, limit)


@given(cut(), st.integers(1, 10), st.integers(1, 4))
def test_lines_may_wait_while_more_arrives(chunks: list[bytes], limit: int, most: int) -> None:
    framer = Framer(limit)
    items: list[Item] = []
    for chunk in chunks:
        framer.receive(chunk)
        item = framer.take(most)
        if isinstance(item, Lines):
            items += [("line", line, item.ending) for line in item.lines]
        elif item is not None:
            items.append(("refusal", *item))
    items += taken(framer)
    end = framer.finish()
    if end is not None:
        items.append(("refusal", *end))
    assert items == model(b"".join(chunks), limit)


@given(cut(), st.integers(1, 10), st.integers(1, 4))
@example([b"a\r\n", b"b\nc"], 9, 1)
def test_counted_lines_are_those_that_would_be_taken(
    chunks: list[bytes], limit: int, most: int
) -> None:
    framer = Framer(limit)
    items: list[Item | tuple[str, bytes]] = []
    for chunk in chunks:
        counted = framer.count(chunk)
        items += [("line", framer.ending)] * counted
        if not counted:
            framer.receive(chunk)
            items += taken(framer, most)
    end = framer.finish()
    if end is not None:
        items.append(("refusal", *end))
    expected = model(b"".join(chunks), limit)
    assert len(items) == len(expected)
    for item, due in zip(items, expected, strict=True):
        assert item == (due if len(item) == 3 else (due[0], due[2]))


LONG = b"x" * 600 + b"\n"


@pytest.mark.parametrize("lines", [[LONG], [LONG] * 9, [LONG] + [b"a\n"] * 99, [b"a\n", LONG]])
@pytest.mark.parametrize("rest", [b"", b"b"])
def test_long_lines_are_counted_as_short_ones_are(lines: list[bytes], rest: bytes) -> None:
    framer = Framer(65536)
    assert framer.count(b"".join(lines) + rest) == len(lines)
    assert bytes(framer.begun) == rest


@pytest.mark.parametrize(
    ("begun", "data", "counted"),
    [
        (b"", b"a\nb\n", 2),
        (b"", b"a\nb", 1),
        (b"a", b"b\nc", 1),
        (b"", b"abc", 0),
        (b"", b"a\r\nb\r\n", 2),
        (b"", b"a\r\nb\n", 0),
        (b"", b"a\rb\n", 1),
        (b"a\r", b"\n", 0),
        (b"abcde", b"fg\n", 0),
        (b"", b"a\n" * 4, 0),
    ],
)
def test_what_is_usual_can_be_counted(begun: bytes, data: bytes, counted: int) -> None:
    framer = Framer(6)
    framer.receive(begun)
    assert framer.take(1) is None
    assert framer.count(data) == counted


@given(cut())
def test_it_knows_whether_the_next_byte_starts_a_line(chunks: list[bytes]) -> None:
    framer = Framer(4)
    stream = b""
    for chunk in chunks:
        framer.receive(chunk)
        stream += chunk
        assert framer.startsLine == (stream == b"" or stream.endswith(LF))
        taken(framer)
        assert framer.startsLine == (stream == b"" or stream.endswith(LF))


@pytest.mark.parametrize("ending", [[LF], [CRLF], [b"\r", LF]], ids=["LF", "CRLF", "CR,LF"])
@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
def test_the_limit_counts_the_line_and_not_its_ending(
    ending: list[bytes], over: int, split: bool
) -> None:
    line = b"x" * (100 + over)
    start = [line[:60], line[60:]] if split else [line]
    items = framed([*start, *ending, b"next\n"], limit=100)
    expected: Item = ("line", line, b"".join(ending))
    if over > 0:
        expected = ("refusal", b"line longer than 100 bytes", b"".join(ending))
    assert items == [expected, ("line", b"next", LF)]


def test_a_line_of_the_limit_and_a_cr_that_ends_nothing_is_too_long() -> None:
    assert framed([b"xxxx\r", b"x\n"], limit=4) == [("refusal", b"line longer than 4 bytes", LF)]


def test_no_more_lines_are_taken_than_asked_for() -> None:
    framer = Framer(10)
    framer.receive(b"a\nb\nc\nd\r\ne\n")
    assert framer.take(2) == Lines([b"a", b"b"], LF)
    assert framer.take(1) == Lines([b"c"], LF)
    assert framer.take(5) == Lines([b"d"], CRLF)
    assert framer.take(5) == Lines([b"e"], LF)
    assert framer.take(5) is None


@pytest.mark.parametrize(
    ("received", "end"),
    [
        (b"", None),
        (b"a\n", None),
        (b"a\r\n", None),
        (b"a", Refusal(b"unterminated line", LF)),
        (b"a\r", Refusal(b"unterminated line", LF)),
        (b"a\r\nb", Refusal(b"unterminated line", CRLF)),
        (b"a\r\nb\nc", Refusal(b"unterminated line", LF)),
        (b"a\r\n" + b"b" * 99, Refusal(b"line longer than 10 bytes", CRLF)),
    ],
)
def test_only_a_line_without_an_ending_is_refused_at_the_end(
    received: bytes, end: Refusal | None
) -> None:
    framer = Framer(10)
    framer.receive(received)
    taken(framer)
    assert framer.finish() == end


def test_a_line_that_is_too_long_takes_no_memory() -> None:
    framer = Framer(65536)
    chunk = b"x" * 65536
    tracemalloc.start()
    try:
        for _ in range(1000):
            framer.receive(chunk)
            assert framer.take(1000) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    framer.receive(b"\nnext\n")
    assert taken(framer) == [
        ("refusal", b"line longer than 65536 bytes", LF),
        ("line", b"next", LF),
    ]
    assert peak < 4 * 65536


# Chunks and packets


@given(st.lists(st.binary(min_size=1), max_size=9), st.integers(1, 4))
def test_chunks_are_lines_as_they_came(chunks: list[bytes], most: int) -> None:
    framing = Chunks(10)
    for chunk in chunks:
        framing.receive(chunk)
    found: list[bytes] = []
    while (item := framing.take(most)) is not None:
        assert 1 <= len(item.lines) <= most
        assert item.ending == b""
        found += item.lines
    assert found == chunks
    framing.finish()
    assert framing.take(most) is None
    assert framing.encode(found, b"") == b"".join(chunks)


@pytest.mark.parametrize(
    ("packet", "item"),
    [
        (b"", Lines([b""], b"")),
        (b"a", Lines([b"a"], b"")),
        (b"a\n", Lines([b"a"], LF)),
        (b"a\r\n", Lines([b"a"], CRLF)),
        (b"a\nb", Lines([b"a\nb"], b"")),
        (b"12345\r\n", Lines([b"12345"], CRLF)),
        (b"123456", Refusal(b"line longer than 5 bytes", b"")),
        (b"123456\n", Refusal(b"line longer than 5 bytes", LF)),
    ],
)
def test_a_packet_is_a_line_with_or_without_an_ending(packet: bytes, item: object) -> None:
    framing = Packets(5)
    framing.receive(packet)
    framing.receive(b"next")
    assert framing.take(1000) == item
    assert framing.take(1000) == Lines([b"next"], b"")
    assert framing.take(1000) is None
    framing.finish()
    assert framing.take(1) is None
    assert framing.encode([b"a"], LF) == b"a\n"
