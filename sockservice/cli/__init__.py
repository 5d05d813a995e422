"""The `sockservice` command."""

import click

from sockservice import __version__
from sockservice.cli.backup import backup
from sockservice.cli.bench.command import bench
from sockservice.cli.compact import compact
from sockservice.cli.completion import completion
from sockservice.cli.lines import lines
from sockservice.cli.man import man
from sockservice.cli.ping.command import ping
from sockservice.cli.send.command import send
from sockservice.cli.serve import serve
from sockservice.cli.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sockservice")
def main() -> None:
    """Talk to line and datagram servers."""


for command in (backup, bench, compact, completion, lines, man, ping, send, serve, verify):
    main.add_command(command)
