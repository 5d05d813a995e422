"""The `sockservice` command."""

import click

from sockservice import __version__
from sockservice.cli.bench import bench
from sockservice.cli.lines import lines
from sockservice.cli.ping import ping
from sockservice.cli.send import send


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sockservice")
def main() -> None:
    """Talk to line and datagram servers."""


main.add_command(bench)
main.add_command(lines)
main.add_command(ping)
main.add_command(send)
