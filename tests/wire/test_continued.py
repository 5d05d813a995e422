"""Lines that belong together, taken as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockservice import Continued, Lines, Refusal


class Dashed(Continued):
    """A line that ends in a dash is continued."""

    def continues(self, line: bytes) -> bool:
        return line.endswith(b"-")


def taken(framing: Continued, *chunks: bytes) -> list[object]:
    items: list[object] = []
    for chunk in chunks:
        framing.receive(chunk)
        while (item := framing.take(10)) is not None:
            items.append(item)
    return items


@given(st.lists(st.sampled_from([b"a-", b"b", b"-", b""]), max_size=8), st.integers(1, 20))
def test_the_same_lines_belong_together_however_they_are_cut(lines: list[bytes], cut: int) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    whole = taken(Dashed(100), stream)
    cuts = [stream[at : at + cut] for at in range(0, len(stream), cut)]
    framing = Dashed(100)
    assert taken(framing, *cuts) == whole
    together = b"\n".join(lines).replace(b"-\n", b"-\0").split(b"\n")
    if framing.finish() is not None:
        together.pop()
    expected = [Lines([each.replace(b"\0", b"\n")], b"\n") for each in together] if lines else []
    assert whole == expected


def test_what_is_begun_is_held_and_torn_at_the_end() -> None:
    framing = Dashed(100)
    assert taken(framing, b"a-\r\n") == []
    assert (framing.held, framing.startsLine) == (3, False)
    assert framing.finish() == Refusal(b"unterminated line", b"\r\n")
    assert taken(framing, b"b\r\n") == [Lines([b"a-\nb"], b"\r\n")]
    assert (framing.held, framing.startsLine, framing.finish()) == (0, True, None)


def test_there_is_a_limit_to_all_of_them_together() -> None:
    framing = Dashed(5)
    assert taken(framing, b"12-\n3\n") == [Lines([b"12-\n3"], b"\n")]
    with pytest.raises(ValueError, match="lines that belong together are longer than 5 bytes"):
        taken(framing, b"12-\n345\n")


def test_a_line_alone_that_is_too_long_is_refused_as_ever() -> None:
    refused = Refusal(b"line longer than 5 bytes", b"\n")
    assert taken(Dashed(5), b"123456\nok\n") == [refused, Lines([b"ok"], b"\n")]


def test_a_subclass_says_what_is_continued() -> None:
    with pytest.raises(NotImplementedError, match="Continued has no continues"):
        taken(Continued(5), b"a\n")
