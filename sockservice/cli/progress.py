"""A progress bar on a terminal to which other output goes as well."""

import os
import shutil
import sys
from contextlib import suppress

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
    said = f"{lines:,} lines  {_amount(size)}B  {_amount(rate)}lines/s"
    if total:
        done = min(1.0, size / total)
        left = f"{_duration(seconds * (1 - done) / done)} left" if done else "? left"
        said += f"  {left}"
    said += f"  {unacknowledged:,} unacknowledged"
    room = min(30, width - len(said) - 10)
    if total and room >= 5:
        full = int(done * room)
        said = f"{done:4.0%} [{'#' * full}{'-' * (room - full)}] {said}"
    return said[: max(0, width - 1)]


def _amount(number: float) -> str:
    units = ["T", "G", "M", "k"]
    while number >= 1000 and units:
        number, unit = number / 1000, units.pop()
        said = f"{number:.0f} {unit}" if number >= 100 else f"{number:.1f} {unit}"
    return said if len(units) < 4 else f"{number:.0f} "


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def timed(answered: int, gone: float, seconds: float, width: int) -> str:
    """Return the bar of a run of `seconds` seconds, at most `width` columns."""
    part = min(1.0, gone / seconds)
    said = f"{part * seconds:.1f} of {seconds:g} s, {answered:,} answered"
    room = min(40, width - len(said) - 4)
    if room >= 5:
        said = f"[{'#' * int(room * part):{room}}] {said}"
    return said[: max(0, width - 1)]


class Bar:
    """The last line on stderr, if that is a terminal that can erase a line.

    Otherwise nothing is shown.
    """

    def __init__(self) -> None:
        terminal = sys.stderr is not None and sys.stderr.isatty()
        #: Whether the bar is shown at all.
        self.there = terminal and os.environ.get("TERM", "dumb") != "dumb"
        self._descriptor = sys.stderr.fileno() if self.there else -1
        self._shown = False

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        try:
            return os.get_terminal_size(self._descriptor).columns or 80
        except OSError:
            return shutil.get_terminal_size().columns

    def show(self, text: str) -> None:
        """Replace what is shown by `text`."""
        if not self.there:
            return
        self._write(f"\r\x1b[K{text}")
        self._shown = True

    def clear(self) -> None:
        """Erase the bar, so that other output can be written."""
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    def _write(self, text: str) -> None:
        with suppress(OSError):
            os.write(self._descriptor, text.encode())
