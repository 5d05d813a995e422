"""The `sockservice` command, also as `python -m sockservice`, and what it says when it can't run.

Imported without the rest of the package: while that is imported, Ctrl-C is told in one line, too.
"""

import os
import sys
from contextlib import suppress


def run() -> None:
    """Run the command; exit with its status."""
    if sys.argv[1:2] == ["serve"]:
        from sockservice.daemon.early import Early

        Early().install()
    try:
        import click

        from sockservice.cli import main
        from sockservice.cli.output import discard
        from sockservice.cli.text import tell
    except KeyboardInterrupt:
        with suppress(OSError):
            os.write(2, b"interrupted\n")
        raise SystemExit(130) from None
    try:
        raise SystemExit(main(prog_name="sockservice", standalone_mode=False))
    except (click.Abort, KeyboardInterrupt):
        status, said = 130, "interrupted"
    except click.UsageError as problem:
        status, said = problem.exit_code, problem.format_message()
        # Or it is all of the help, where no command is given.
        if problem.ctx is not None and "\n" not in said:
            said = f"{problem.ctx.command_path}: {said}"
    except click.ClickException as problem:
        status, said = problem.exit_code, f"Error: {problem.format_message()}"
    except OSError as problem:
        # Of what click prints itself, as --help.
        discard()
        status, said = 1, f"standard output: {problem.strerror}"
    tell(said)
    raise SystemExit(status)


if __name__ == "__main__":
    run()
