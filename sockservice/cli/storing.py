"""What the commands on a store have in common: its name, and what is wrong with it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sockservice.cli.progress import INTERVAL, Bar, fitted
from sockservice.cli.signals import handling, quitting, rearm
from sockservice.cli.status import NOT_ALL, SIGNALS, end, interrupted
from sockservice.cli.text import printable
from sockservice.store.copying import NoCopy
from sockservice.store.exclusive import InUse
from sockservice.store.reader import Unreadable

if TYPE_CHECKING:
    from sockservice.store.nats.reading import StreamReader

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: Adds the option --json to a command that prints one line.
inJson: Callable[[_Command], _Command] = click.option(
    "--json", "asJson", is_flag=True, help="Print an object."
)


def inNats(store: str) -> bool:
    """Say whether STORE is a stream: `nats://…`."""
    return store.startswith("nats:")


def place(store: str, instead: str = "it reads a file") -> str:
    """Return the path that STORE names, `sqlite:PATH` or just the path; a stream has none."""
    if inNats(store):
        raise click.UsageError(f"this command is not for a store in NATS: {instead}")
    path = store.removeprefix("sqlite:")
    if not path:
        raise click.UsageError("STORE names no file")
    return path


def stream(store: str, since: int | None = None) -> tuple[str, Callable[[], "StreamReader"]]:
    """Return the name of a stream without its password, and what reads it from `since` on."""
    from sockservice.store.nats.place import concealed, parsed

    try:
        found = parsed(store)
    except ValueError as problem:
        raise click.UsageError(f"{concealed(store)}: {problem}") from problem
    try:
        from sockservice.store.nats.reading import StreamReader
    except ModuleNotFoundError as missing:
        raise click.UsageError(
            f"{found} needs the extra nats, pip install 'sockservice[nats]' ({missing})"
        ) from missing
    return str(found), lambda: StreamReader(found, since)


def shown(path: str) -> str:
    """Return the name of a file, escaped."""
    return printable(os.fsencode(path)).decode()


def named(path: str, problem: object) -> str:
    """Return a message about a file, on one line."""
    return shown(f"{path}: {problem}")


class Steps:
    """A bar that says how far a thing is, in its unit, or for how long it has been going on."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar = Bar()
        self._begun = self._shown = monotonic()
        self._done = self._total = 0
        self._signal = 0  # that ends it

    def show(self, done: int = 0, total: int = 0) -> None:
        """Say that so much is done; call it as often as you like.

        :raises KeyboardInterrupt: A signal has come, if only before.
        """
        if self._signal:
            raise KeyboardInterrupt(self._signal)
        now = monotonic()
        self._done, self._total = done, total
        if now - self._shown < INTERVAL:
            return
        self._shown = now
        width = self._bar.width
        said = self.said()
        room = min(30, width - len(said) - 10)
        if total and room >= 5:
            full = done * room // total
            said = f"{done / total:4.0%} [{'#' * full}{'-' * (room - full)}] {said}"
        self._bar.show(fitted(said.split("  "), width - 1))

    def said(self) -> str:
        """Return in words how far it is."""
        done, total = self._done, self._total
        taken = monotonic() - self._begun
        if not total:
            return f"{self._what}  {taken:.0f} s"
        left = f"{taken * (total - done) / done:.0f} s left" if done else "? left"
        return f"{done:,} of {total:,} {self._what}  {left}"

    def signalled(self, number: int, frame: object) -> None:
        """End it, for a signal has come.

        :raises KeyboardInterrupt: Always; lost if SQLite has called what is going on.
        """
        rearm()
        self._signal = number
        raise KeyboardInterrupt(number)

    def interrupted(self) -> None:
        """Take it away, for the terminal has echoed the key of a signal."""
        self._bar.interrupted()

    def clear(self) -> None:
        """Take it away."""
        self._bar.clear()


@contextmanager
def working(store: str, written: str, steps: Steps) -> Iterator[None]:
    """Say in one line what ends the work on `store` before its end, and exit with its status."""
    try:
        with quitting(steps.said), handling(steps.signalled, *SIGNALS):
            yield
    except Unreadable as problem:
        steps.clear()
        end(NOT_ALL, f"Error: {named(store, problem)}")
    except (NoCopy, InUse) as problem:
        steps.clear()
        end(NOT_ALL, f"Error: {named(written, problem)}")
    except OSError as problem:
        steps.clear()
        end(NOT_ALL, f"Error: {named(written, problem.strerror)}")
    except KeyboardInterrupt as problem:
        steps.interrupted()
        end(*interrupted(problem))
    finally:
        steps.clear()
