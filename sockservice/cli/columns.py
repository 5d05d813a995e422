"""The columns of a terminal, and text laid out in them."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from unicodedata import category, east_asian_width

#: Columns of what is no terminal, or does not know.
COLUMNS = 80
#: Columns below which what stands behind a label begins on a line of its own.
NARROW = 40

#: Where a phrase may be torn: not between a number and its unit.
_GAP = re.compile(r" (?!m?s\b)")


def columns(stream: Any) -> int:
    """Return how many columns there are: those of COLUMNS, the terminal of `stream`, or 80."""
    with suppress(ValueError):
        if (said := int(os.environ.get("COLUMNS", "0"))) > 0:
            return said
    try:
        return os.get_terminal_size(stream.fileno()).columns or COLUMNS
    except (AttributeError, OSError, ValueError):
        return COLUMNS


def span(text: str) -> int:
    """Return how many columns printable text takes (Unicode Standard Annex 11)."""
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def _width(character: str) -> int:
    if category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def cut(text: str, room: int) -> str:
    """Return as much of the beginning of `text` as fits into `room` columns."""
    if text.isascii():
        return text[: max(0, room)]
    for place, character in enumerate(text):
        room -= _width(character)
        if room < 0:
            return text[:place]
    return text


def folded(text: str, room: int, indent: int = 2) -> list[str]:
    """Return `text` as lines of at most `room` columns, all but the first indented.

    It is folded behind commas, colons and semicolons; what is too long for that at any space,
    and a word that is too long anywhere.
    """
    if span(text) <= room:
        return [text]
    lines, line = [], ""
    for gap, piece in _pieces(text, max(2, room - indent)):
        if line and span(line + gap + piece) > room:
            lines.append(line)
            line = " " * indent + piece
        else:
            line += gap + piece
    return [*lines, line]


def _pieces(text: str, room: int) -> Iterator[tuple[str, str]]:
    """Yield pieces of `text` that fit into `room` columns, each behind the gap before it."""
    gap = ""
    for phrase in re.split(r"(?<=[,:;]) ", text):
        for word in [phrase] if span(phrase) <= room else _GAP.split(phrase):
            while span(word) > room:
                piece = cut(word, room)
                yield gap, piece
                gap, word = "", word[len(piece) :]
            yield gap, word
            gap = " "


def labelled(label: str, rows: list[str], room: int) -> list[str]:
    """Return `rows` behind a label, which ends in the spaces that set it off.

    If they are too long for so many columns, they are folded as one text with commas.
    """
    whole = [label + rows[0], *(" " * len(label) + row for row in rows[1:])]
    if max(map(span, whole)) <= room:
        return whole
    text = ", ".join(rows)
    if room >= NARROW:
        return folded(label + text, room, len(label))
    return [*folded(label.rstrip(), room), *("  " + line for line in folded(text, room - 2, 0))]
