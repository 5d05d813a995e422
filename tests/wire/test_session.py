"""The hello of a session and its reply: what is taken, and what is said of the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockservice.wire.session import HIGHEST, Hello, Opened

NAMES = st.from_regex(r"[A-Za-z0-9._:@/%+-]{1,255}", fullmatch=True)
NOTES = st.from_regex(r"[!-~]{1,512}", fullmatch=True)
NUMBERS = st.integers(0, HIGHEST)
CRCS = st.integers(0, 2**32 - 1)
# st.builds would make up what has a default, too.
BARE = (st.booleans(), NUMBERS, CRCS, NUMBERS, NUMBERS, NAMES, st.none(), st.just(0), st.just(0))


@given(st.builds(Hello, NAMES, st.none() | NUMBERS, st.none() | NOTES))
def test_a_hello_is_read_as_it_was_written(hello: Hello) -> None:
    assert Hello.parse(hello.encode()) == hello


@given(
    st.builds(Opened, *BARE)
    | st.builds(
        lambda first, *noted: first._replace(**dict(zip(Opened._fields[6:], noted, strict=True))),
        st.builds(Opened, *BARE),
        NOTES,
        NUMBERS,
        CRCS,
    )
)
def test_a_reply_is_read_as_it_was_written(opened: Opened) -> None:
    assert Opened.parse(opened.encode()) == opened
    assert Opened.parse(opened.encode() + b" later=1") == opened


@given(st.binary(max_size=80).filter(lambda line: b"\n" not in line))
def test_whatever_is_no_hello_is_told_in_one_printable_line(line: bytes) -> None:
    try:
        hello = Hello.parse(line)
    except ValueError as problem:
        assert str(problem).isprintable()
    else:
        assert line.startswith(b"session/1 " + hello.name.encode())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "the first line is no hello, which is: session/1 NAME"),
        (b"hello", "the first line is no hello, which is: session/1 NAME"),
        (b"session", "the first line is no hello, which is: session/1 NAME"),
        (b"SESSION/1 demo", "the first line is no hello, which is: session/1 NAME"),
        (b"session/2 demo", "version 2 is not known, 1 is"),
        (b"session/1.0 demo", "version 1.0 is not known, 1 is"),
        (b"session/ demo", "version  is not known, 1 is"),
        (b"session/1", "bad name: 1 to 255 of A-Z a-z 0-9 . _ : @ / % + - make one"),
        (b"session/1  demo", "bad name: 1 to 255 of A-Z a-z 0-9 . _ : @ / % + - make one"),
        (b"session/1 d\xe9", "bad name: 1 to 255 of A-Z a-z 0-9 . _ : @ / % + - make one"),
        (b"session/1 " + b"x" * 256, "bad name: 1 to 255 of A-Z a-z 0-9 . _ : @ / % + - make one"),
        (b"session/1 demo ", " is not known; at=, note= are"),
        (b"session/1 demo\t", "bad name: 1 to 255 of A-Z a-z 0-9 . _ : @ / % + - make one"),
        (b"session/1 demo x=1", "x=1 is not known; at=, note= are"),
        (b"session/1 demo \x1b[2J", "\\x1b[2J is not known; at=, note= are"),
        (b"session/1 demo at=1 at=1", "at=1 is given twice"),
        (b"session/1 demo at=", "bad position: a number from 0 to 9223372036854775807 is one"),
        (b"session/1 demo at=-1", "bad position: a number from 0 to 9223372036854775807 is one"),
        (
            b"session/1 demo at=9223372036854775808",
            "bad position: a number from 0 to 9223372036854775807 is one",
        ),
        (b"session/1 demo note=", "bad note: 1 to 512 printable bytes without a space make one"),
        (
            b"session/1 demo note=\xe9",
            "bad note: 1 to 512 printable bytes without a space make one",
        ),
        (
            b"session/1 demo note=" + b"x" * 513,
            "bad note: 1 to 512 printable bytes without a space make one",
        ),
    ],
)
def test_what_is_wrong_with_a_hello_is_told(line: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as problem:
        Hello.parse(line)
    assert str(problem.value) == said


def test_the_largest_hello_is_taken() -> None:
    line = b"session/1 " + b"x" * 255 + b" at=9223372036854775807 note=" + b"~" * 512
    assert Hello.parse(line) == ("x" * 255, HIGHEST, "~" * 512)
