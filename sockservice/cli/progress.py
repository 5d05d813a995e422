"""A progress bar on a terminal to which other output goes as well."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from sockservice.cli.columns import columns, cut, span
from sockservice.wire.plurals import grouped, plural

#: Seconds until it appears, and between updates.
INTERVAL = 0.25


def drawn(
    lines: int, size: int, total: int | None, seconds: float, unacknowledged: int, width: int
) -> str:
    """Return the text of the bar, at most `width` columns.

    `lines` lines of `size` bytes have been answered in `seconds` seconds; all of them
    have `total` bytes, if that is known.
    """
    rate = lines / seconds if seconds else 0.0
    parts = [
        grouped(lines, "line"),
        f"{amount(size)}B",
        speed(rate),
        f"{unacknowledged:,} unacknowledged",
    ]
    room = max(0, width - 1)
    begin = ""
    if total:
        done = min(1.0, size / total)
        begin = f"{done:4.0%} "
        parts.insert(3, f"{_duration(seconds * (1 - done) / done)} left" if done else "? left")
    said = fitted(parts, room - len(begin))
    bar = min(30, room - len(begin) - len(said) - 3)
    if total and bar >= 5:
        full = int(done * bar)
        begin += f"[{'#' * full}{'-' * (bar - full)}] "
    return (begin + said)[:room]


def fitted(parts: Iterable[str], room: int, gap: str = "  ") -> str:
    """Return `parts` in a line of at most `room` columns.

    What there is no room for is left out whole, the last first; of the first is left what fits.
    """
    shown = list(parts)
    while len(shown) > 1 and span(gap.join(shown)) > room:
        shown.pop()
    return cut(gap.join(shown), room)


def amount(number: float) -> str:
    """Return a number with the prefix of its unit."""
    units = ["T", "G", "M", "k"]
    while number >= 1000 and units:
        number, unit = number / 1000, units.pop()
        said = f"{number:.0f} {unit}" if number >= 100 else f"{number:.1f} {unit}"
    return said if len(units) < 4 else f"{number:.0f} "


def speed(lines: float) -> str:
    """Return how many lines there are in a second."""
    return f"{amount(lines)}{plural(round(lines), 'line')}/s"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def timed(answered: int, gone: float, seconds: float, width: int) -> str:
    """Return the bar of a run of `seconds` seconds, at most `width` columns."""
    part = min(1.0, gone / seconds)
    parts = [f"{part * seconds:.1f} of {seconds:g} s", f"{answered:,} answered"]
    said = ", ".join(parts)
    room = min(40, width - len(said) - 4)
    if room >= 5:
        return f"[{'#' * int(room * part):{room}}] {said}"
    return fitted(parts, width - 1, ", ")


class Bar:
    """The last line on stderr, if that is a terminal that can erase a line.

    Otherwise, or if somebody types on it, nothing is shown.
    """

    def __init__(self, typed: bool = False) -> None:
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._erases = self._terminal and os.environ.get("TERM", "dumb") != "dumb"
        #: Whether the bar is shown at all.
        self.there = self._erases and not typed
        self._descriptor = sys.stderr.fileno() if self._terminal else -1
        self._text = ""  # what is shown

    @property
    def width(self) -> int:
        """Columns for it, but those behind it in which the terminal echoes the key of a signal."""
        return columns(sys.stderr) - 2

    def show(self, text: str) -> None:
        """Replace what is shown by `text`."""
        if not self.there:
            return
        self._write(f"\r\x1b[K{text}")
        self._text = text

    def clear(self) -> None:
        """Erase the bar, so that other output can be written."""
        if self._text:
            self._write("\r\x1b[K")
            self._text = ""

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Erase the bar while other output is written, and show it again at once."""
        text = self._text
        self.clear()
        yield
        if text:
            self.show(text)

    def interrupted(self) -> None:
        """Begin another line, for the terminal has echoed the key of a signal."""
        if self._text:
            self.clear()
        elif self._terminal:
            self._write("\r\x1b[K" if self.there else "\n")

    def _write(self, text: str) -> None:
        with suppress(OSError):
            os.write(self._descriptor, text.encode())
