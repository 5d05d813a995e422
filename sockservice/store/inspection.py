"""Read through all lines of a store in the background, a little at a time.

It finds pages that can't be read or were overwritten. It is no complete check of the file, which
would take one transaction in which the log can't be cleared; that is `sockservice verify`.
"""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from signal import SIG_BLOCK, pthread_sigmask, valid_signals
from threading import Event, Thread
from urllib.parse import quote

from twisted.logger import Logger

from sockservice.wire.plurals import counted

#: Seconds between the start, or what another program has written, and the first look: whoever
#: waits to be served comes first.
DELAY = 1.0
#: Seconds that a look takes, about, and the share of the time that all of them take together.
LOOK, SHARE = 0.005, 0.1
#: Lines in a look, at first and at most.
FEWEST, MOST = 100, 10_000

# Reads each line to its end.
_LOOK = (
    "SELECT count(*), max(id), total(instr(line, x'00')) FROM "
    "(SELECT id, line FROM lines WHERE id > ? ORDER BY id LIMIT ?)"
)

#: Told how many lines were found, in how many seconds, and what is wrong, or "".
Told = Callable[[int, float, str], object]

log = Logger()


class Inspection:
    """Looks through the database at `path`, and again when `again` is called."""

    def __init__(self, path: str, told: Told | None = None, delay: float = DELAY) -> None:
        self._path = path
        self._told = told or self._log
        self._delay = delay
        self._wanted = Event()
        self._ending = Event()
        self._database: sqlite3.Connection | None = None
        self._thread = Thread(target=self._run, name="inspection", daemon=True)
        self._said: str | None = None

    def start(self) -> None:
        """Begin, in a thread of its own; returns at once."""
        self._wanted.set()
        self._thread.start()

    def again(self) -> None:
        """Look through it again when that is over which is under way."""
        self._wanted.set()

    def stop(self) -> None:
        """End; returns when the file is not used any more."""
        self._ending.set()
        self._wanted.set()
        database = self._database
        if database is not None:
            # It may be closed by now.
            with suppress(sqlite3.Error):
                database.interrupt()
        if self._thread.is_alive():
            self._thread.join()

    # What follows runs in the thread.

    def _run(self) -> None:
        # They are to interrupt what the main thread waits for.
        pthread_sigmask(SIG_BLOCK, valid_signals())
        while self._wanted.wait() and not self._ending.wait(self._delay):
            self._wanted.clear()
            begun = time.monotonic()
            lines = after = 0
            problem = ""
            try:
                uri = f"file:{quote(os.fsencode(self._path))}?mode=ro"
                with closing(
                    sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
                ) as self._database:
                    lines, after, problem = self._pass(self._database)
            except sqlite3.Error as failed:
                problem = str(failed)
            finally:
                self._database = None
            if self._ending.is_set():
                return
            if problem and after:
                problem = f"{problem}, behind id {after}"
            self._told(lines, time.monotonic() - begun, problem)

    def _pass(self, database: sqlite3.Connection) -> tuple[int, int, str]:
        """Return how many lines are there; the last id, and what is wrong behind it."""
        lines = after = 0
        most = FEWEST
        while not self._ending.is_set():
            begun = time.monotonic()
            try:
                count, last, _ = database.execute(_LOOK, (after, most)).fetchone()
            except sqlite3.Error as problem:
                return lines, after, str(problem)
            taken = time.monotonic() - begun
            if not count:
                break
            lines, after = lines + count, last
            if taken < LOOK / 2:
                most = min(2 * most, MOST)
            elif taken > LOOK:
                most = max(most // 2, 1)
            self._ending.wait(taken / SHARE)
        return lines, after, ""

    def _log(self, lines: int, seconds: float, problem: str) -> None:
        """Log the first result, and what is different later."""
        if problem == self._said or not (lines or problem):
            return
        self._said = problem
        if problem:
            log.error(
                "store {path} is damaged: {problem}; `sockservice verify` says more. "
                "Lines are stored all the same",
                path=self._path,
                problem=problem,
            )
        else:
            log.info(
                "store {path}: all can be read, {lines} ({seconds:.1f} s)",
                path=self._path,
                lines=counted(lines, "line"),
                seconds=seconds,
            )
