"""Choose the stored lines to remove next, by age and by the space they take up."""

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from sockservice.store.engine import EVERYTHING, Retention
from sockservice.store.plausible import Plausible

#: Lines removed in one step, at least, unless they take up more bytes than this.
STEP, STEP_BYTES = 1000, 512 * 1024

#: Bytes that a line takes up in its file besides its own, about.
LINE_SIZE = 64


class Expired(NamedTuple):
    """The lines to remove in one step: ids below `end`, received before `before` unless None."""

    end: int
    #: Microseconds since 1970-01-01T00:00:00Z.
    before: int | None

    def remove(self, database: sqlite3.Connection) -> None:
        """Delete them in a transaction of its own."""
        if self.before is None:
            database.execute("DELETE FROM lines WHERE id < ?", (self.end,))
        else:
            database.execute("DELETE FROM lines WHERE id < ? AND received < ?", self)


class Expiry:
    """Finds what `retention` does not cover, the oldest first, in small steps.

    `clock` gives seconds since 1970-01-01T00:00:00Z.
    """

    def __init__(self, retention: Retention, clock: Callable[[], float]) -> None:
        self._retention = retention
        self._time = Plausible(clock)
        self._added = 0  # lines in the latest commit

    def begin(self, database: sqlite3.Connection) -> None:
        """Note when the last line there was received."""
        if self._retention.age is not None:
            last = database.execute(
                "SELECT received FROM lines ORDER BY id DESC LIMIT 1"
            ).fetchone()
            if last is not None:
                self._time.begin(last[0] / 1_000_000)

    def added(self, lines: int) -> None:
        """Note how many lines a commit has added: a step has to keep up with them."""
        self._added = lines

    def step(self, database: sqlite3.Connection) -> Expired | None:
        """Return the lines to remove in one step, or None if all are retained."""
        if self._retention == EVERYTHING:
            return None
        oldest = database.execute("SELECT id, received FROM lines ORDER BY id LIMIT 1").fetchone()
        if oldest is None:
            return None
        first, received = oldest
        age, size = self._retention
        if size is not None and (excess := _used(database) - size) > 0:
            # A little more, so that it need not be done again for each page.
            return self._from(database, first, None, excess + size // 32)
        before = None if age is None else int((self._time.now() - age) * 1_000_000)
        if before is not None and received < before:
            return self._from(database, first, before, STEP_BYTES)
        return None

    def _from(
        self, database: sqlite3.Connection, first: int, before: int | None, size: int
    ) -> Expired:
        """Return a step from the id `first` on, of `size` bytes or fewer."""
        # Twice what came in, to get ahead of it, and no more than takes milliseconds.
        most, size = max(STEP, 2 * self._added), min(size, STEP_BYTES)
        self._added = 0
        return Expired(_end(database, first, most, size), before)


def _end(database: sqlite3.Connection, first: int, most: int, size: int) -> int:
    """Return the id after `most` lines from `first` on, or after `size` bytes of them."""
    lengths = database.execute(
        "SELECT id, length(line) FROM lines WHERE id >= ? ORDER BY id LIMIT ?", (first, most)
    )
    end = first
    taken = 0
    for number, length in lengths:
        end = number + 1
        taken += length + LINE_SIZE
        if taken > size:
            break
    return end


def _used(database: sqlite3.Connection) -> int:
    """Return the bytes of the database that are in use."""
    sizes = ("page_count", "freelist_count", "page_size")
    pages, free, size = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in sizes)
    return int((pages - free) * size)
