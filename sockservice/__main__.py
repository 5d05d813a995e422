"""The `sockservice` command, also as `python -m sockservice`, and what it says when it can't run.

Imported without the rest of the package: while that is imported, signals are told in one line, too.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from itertools import takewhile
from typing import NoReturn


def run() -> None:
    """Run the command; exit with its status."""
    if sys.argv[1:2] == ["serve"]:
        from sockservice.daemon.early import USELESS, Early

        Early().install(*USELESS)
    else:
        for each in (signal.SIGTERM, signal.SIGHUP):
            # The parent may want it ignored (nohup).
            if signal.getsignal(each) is signal.SIG_DFL:
                signal.signal(each, _interrupt)
        if signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL:
            signal.signal(signal.SIGQUIT, Waiting())
    try:
        import click

        from sockservice.cli import main
        from sockservice.cli.output import discard
        from sockservice.cli.status import INTERRUPTED, Ended, conclude, interrupted, leave
    except KeyboardInterrupt as problem:
        _early(problem)
    try:
        raise SystemExit(main(prog_name="sockservice", standalone_mode=False))
    except KeyboardInterrupt as problem:
        status, said = interrupted(problem)
    except Ended as problem:
        status, said = problem.status, problem.message
    except click.Abort:
        status, said = INTERRUPTED, "interrupted"
    except click.exceptions.NoArgsIsHelpError as problem:
        # All of the help.
        try:
            click.echo(problem.format_message(), err=True)
        except OSError:
            discard(2)
        raise SystemExit(problem.exit_code) from None
    except click.UsageError as problem:
        status, said = problem.exit_code, problem.format_message()
        if problem.ctx is not None:
            said = f"{problem.ctx.command_path}: {said}"
    except click.ClickException as problem:
        status, said = problem.exit_code, f"Error: {problem.format_message()}"
    except OSError as problem:
        # Of what click prints itself, as --help.
        discard()
        status, said = 1, f"standard output: {problem.strerror}"
    if _inJson():
        conclude(status, said)
    leave(status, said)


class Waiting:
    """Keeps a signal for what will act on it, and sees whether it has come."""

    came = False

    def __call__(self, number: int, frame: object) -> None:
        self.came = True


def _interrupt(number: int, frame: object) -> NoReturn:
    """End the command as Ctrl-C does; whoever catches it finds the signal in it."""
    # A second one ends it at once.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, signal.SIG_DFL)
    raise KeyboardInterrupt(number)


def _early(problem: KeyboardInterrupt) -> NoReturn:
    """End before there is a command."""
    words = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
    number = problem.args[0] if problem.args else signal.SIGINT
    with suppress(OSError):
        if _inJson() and sys.stdout is not None:
            said = json.dumps({"status": 128 + number, "why": words[number]})
            os.write(1, f"{said}\n".encode())
    with suppress(OSError):
        # Behind the key that a terminal has echoed.
        start = "\n" if number == signal.SIGINT and os.isatty(2) else ""
        os.write(2, f"{start}{words[number]}\n".encode())
    raise SystemExit(128 + number) from None


def _inJson() -> bool:
    """Return whether the last object is wanted, as far as can be seen without parsing."""
    given = list(takewhile(lambda each: each != "--", sys.argv[1:]))
    # What relay has as --json is how lines travel.
    return ("--events" if given[:1] == ["relay"] else "--json") in given


if __name__ == "__main__":
    run()
