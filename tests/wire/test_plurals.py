"""Words are in the number that goes with what is counted."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sockservice
from sockservice.wire.plurals import counted, inSeconds, plural, ranged

#: What is counted in what users see.
NOUNS = (
    "bytes|characters|clients|commands|connections|datagrams|days|descriptors|entries|errors|"
    "faults|files|frames|hosts|hours|ids|lines|listeners|lookups|messages|minutes|names|networks|"
    "nodes|octets|peers|ports|probes|processes|records|reloads|replies|requests|seconds|sessions|"
    "sockets|targets|times|values|workers"
)
#: Words that may stand before such a noun.
BEFORE = "header|more|open|other|status|syslog"
#: A number that is put in, and a noun in the plural; a constant in capitals is never 1.
OFFENCE = re.compile(
    r"(?:\{(?![A-Z_]+\b)[^{}]*\}|%[.\d]*[dfg])\s*"
    rf"(?:(?:{BEFORE}) )?(?:{NOUNS})\b(?!/s)"
)


def test_one_alone_is_singular() -> None:
    assert [plural(n, "line") for n in (0, 1, 2, 0.5)] == ["lines", "line", "lines", "lines"]
    assert [plural(n, "is", "are") for n in (0, 1, 2)] == ["are", "is", "are"]
    assert [counted(n, "line") for n in (0, 1, 2)] == ["0 lines", "1 line", "2 lines"]
    assert [counted(n, "reply", "replies") for n in (1, 2)] == ["1 reply", "2 replies"]


def test_a_row_of_one_is_no_range() -> None:
    assert [ranged(5, last, "line") for last in (5, 6)] == ["line 5", "lines 5 to 6"]
    assert ranged(1, 3, "line with id", "lines with ids") == "lines with ids 1 to 3"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (0.5, "0.5 seconds"),
        (1, "1 second"),
        (1.0, "1 second"),
        (0.999999999999, "1 second"),
        (30, "30 seconds"),
        (2592001, "2592001 seconds"),
    ],
)
def test_seconds_agree_with_the_number_that_is_shown(seconds: float, words: str) -> None:
    assert inSeconds(seconds) == words


def offences(source: str) -> Iterator[tuple[int, str]]:
    """Give the texts in which a number is followed by a noun that is always in the plural."""
    tree = ast.parse(source)
    told: set[int] = set()  # parts of f-strings, and docstrings
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            told.update(map(id, node.values))
        elif isinstance(node, ast.Expr):
            told.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                f"{{{_bare(each.value)}}}" if isinstance(each, ast.FormattedValue) else _text(each)
                for each in node.values
            )
        elif isinstance(node, ast.Constant) and id(node) not in told:
            text = str(node.value)
        elif isinstance(node, ast.IfExp) and re.fullmatch("'' if .* else 's'", ast.unparse(node)):
            text = "{} lines"
        else:
            continue
        if OFFENCE.search(text):
            yield node.lineno, text


def _bare(node: ast.expr) -> str:
    return re.sub("[{}]", "", ast.unparse(node))


def _text(node: ast.expr) -> str:
    assert isinstance(node, ast.Constant)
    return str(node.value)


@pytest.mark.parametrize(
    "source",
    [
        'f"{n} lines"',
        'f"{n:,} lines are kept"',
        'f"{len(each)} header lines"',
        'f"busy: {self.most} connections, the limit"',
        'b"longer than %d bytes" % n',
        'log.info("after {seconds:.1f} seconds", seconds=n)',
        "f\"{n} line{'' if n == 1 else 's'}\"",
    ],
)
def test_a_noun_always_in_the_plural_is_found(source: str) -> None:
    assert list(offences(source))


@pytest.mark.parametrize(
    "source",
    [
        "f\"{counted(n, 'line')}\"",
        'f"longer than {LIMIT} bytes"',
        'f"{name} stores lines"',
        'f"{rate} lines/s"',
        '"""Send {n} lines."""',
    ],
)
def test_other_texts_are_let_be(source: str) -> None:
    assert not list(offences(source))


def test_all_that_users_see_agrees_with_its_number() -> None:
    root = Path(sockservice.__file__).parent
    found = [
        f"{path.relative_to(root)}:{line}: {text}"
        for path in sorted(root.rglob("*.py"))
        for line, text in offences(path.read_text("utf-8"))
    ]
    assert found == []
