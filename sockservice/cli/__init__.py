"""The `sockservice` command."""

from importlib import import_module
from typing import Any

import click

from sockservice import __version__
from sockservice.cli import completion
from sockservice.cli.progress import Bar
from sockservice.cli.status import Ended, interrupted

#: The commands, and in which modules they are. Each is imported when it is asked for: what reads
#: a store needs no network, which takes more than half of the time to start.
COMMANDS = {
    "backup": "backup",
    "bench": "bench.command",
    "compact": "compact",
    "completion": "completion",
    "lines": "lines",
    "man": "man",
    "ping": "ping.command",
    "relay": "relay",
    "send": "send.command",
    "serve": "serve",
    "sessions": "sessions",
    "ship": "ship.command",
    "verify": "verify",
}


class _Commands(click.Group):
    """Commands that a signal ends with its own status, in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module = import_module(f"{__name__}.{COMMANDS[cmd_name]}")
            self.add_command(getattr(module, cmd_name))
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as problem:
            if not problem.args:
                Bar().interrupted()
            raise Ended(*interrupted(problem)) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sockservice")
def main() -> None:
    """Talk to line and datagram servers."""


# Shells ask it for what is begun before there is a command.
main.add_command(completion.completion)
