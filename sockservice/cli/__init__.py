"""The `sockservice` command."""

import click

from sockservice import __version__
from sockservice.cli.bench.command import bench
from sockservice.cli.completion import completion
from sockservice.cli.lines import lines
from sockservice.cli.man import man
from sockservice.cli.ping.command import ping
from sockservice.cli.send.command import send
from sockservice.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sockservice")
def main() -> None:
    """Talk to line and datagram servers."""


for command in (bench, completion, lines, man, ping, send, serve):
    main.add_command(command)
