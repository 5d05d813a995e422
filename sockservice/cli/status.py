"""Exit statuses of the commands, and how a command ends: what it says, and its last object."""

import json
import signal
from typing import Any, NoReturn

import click

from sockservice.cli.output import Output, settle
from sockservice.cli.text import tell

DONE, NOT_ALL, USAGE, NOT_CONNECTED, TIMED_OUT, INTERRUPTED = 0, 1, 2, 3, 4, 130
#: What a session was to go on with is there no more.
GONE = 5
#: Added to the number of the signal that ended the command.
SIGNALLED = 128
#: Signals that end a command in good order, in words.
SIGNALS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "hung up",
}


class Ended(click.ClickException):
    """A signal has ended the command, which had nothing to sum up."""

    def __init__(self, status: int, word: str) -> None:
        super().__init__(word)
        self.status = status


def signalled(number: int) -> tuple[int, str]:
    """Return the exit status of a command that a signal has ended, and the word for it."""
    return SIGNALLED + number, SIGNALS[signal.Signals(number)]


def interrupted(problem: KeyboardInterrupt) -> tuple[int, str]:
    """Return what `signalled` does, for the signal that `problem` was raised for."""
    return signalled(problem.args[0] if problem.args else signal.SIGINT)


def end(
    status: int, why: str, sum: dict[str, Any] | None = None, *, quiet: bool = False
) -> NoReturn:
    """End the command, with a message on stderr unless `why` is empty.

    With --json an object comes first, on stdout: `sum`, the status, and `why` or null; `quiet`
    if it does not matter that its reader has gone.
    """
    context = click.get_current_context(silent=True)
    if context is not None and context.params.get("asJson"):
        status, why = conclude(status, why, sum, quiet=quiet)
    leave(status, why)


def give(text: str) -> None:
    """Print a result, a line; if that can't be, end the command with status 1."""
    output = Output()
    output.fold(text)
    if output.broken:
        leave(NOT_ALL, output.broken)


def conclude(
    status: int, why: str, sum: dict[str, Any] | None = None, *, quiet: bool = False
) -> tuple[int, str]:
    """Write the last object; return status and message, which differ if it can't be written."""
    output = Output()
    output.write(json.dumps((sum or {}) | {"status": status, "why": why or None}))
    if output.broken and not (status or (quiet and output.left)):
        return NOT_ALL, output.broken
    return status, why


def leave(status: int, said: str) -> NoReturn:
    """End the command, with a message on stderr unless it is empty."""
    if said:
        tell(said)
    if status:
        settle()
    raise SystemExit(status)
