"""What the commands on a store have in common: its name, and what is wrong with it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import click

from sockservice.cli.progress import INTERVAL, Bar
from sockservice.cli.status import INTERRUPTED
from sockservice.cli.text import printable, tell
from sockservice.store.compacting import NotCompacted
from sockservice.store.copying import NoCopy
from sockservice.store.reader import Unreadable


def place(store: str) -> str:
    """Return the path that STORE names, `sqlite:PATH` or just the path."""
    path = store.removeprefix("sqlite:")
    if not path:
        raise click.UsageError("STORE names no file")
    return path


def named(path: str, problem: object) -> str:
    """Return a message about a file, on one line."""
    return printable(os.fsencode(f"{path}: {problem}")).decode()


class Steps:
    """A bar that says how far a thing is, in its unit, or for how long it has been going on."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar = Bar()
        self._begun = self._shown = monotonic()

    def show(self, done: int = 0, total: int = 0) -> None:
        """Say that so much is done; call it as often as you like."""
        now = monotonic()
        if now - self._shown < INTERVAL:
            return
        self._shown = now
        taken = now - self._begun
        width = self._bar.width
        said = f"{self._what}  {taken:.0f} s"
        if total:
            left = f"{taken * (total - done) / done:.0f} s left" if done else "? left"
            said = f"{done:,} of {total:,} {self._what}  {left}"
            room = min(30, width - len(said) - 10)
            if room >= 5:
                full = done * room // total
                said = f"{done / total:4.0%} [{'#' * full}{'-' * (room - full)}] {said}"
        self._bar.show(said[: max(0, width - 1)])

    def clear(self) -> None:
        """Take it away."""
        self._bar.clear()


@contextmanager
def working(store: str, written: str, steps: Steps) -> Iterator[None]:
    """Say in one line what ends the work on `store` before its end, and exit with its status."""
    try:
        yield
    except Unreadable as problem:
        steps.clear()
        raise click.ClickException(named(store, problem)) from problem
    except (NoCopy, NotCompacted) as problem:
        steps.clear()
        raise click.ClickException(named(written, problem)) from problem
    except OSError as problem:
        steps.clear()
        raise click.ClickException(named(written, problem.strerror)) from problem
    except KeyboardInterrupt:
        steps.clear()
        tell("interrupted")
        raise SystemExit(INTERRUPTED) from None
    finally:
        steps.clear()
