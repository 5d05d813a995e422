"""`send --syslog`: lines behind the headers of syslog messages."""

import functools
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from sockservice.cli.send.source import LineSource
from sockservice.wire.syslogheader import Heading
from sockservice.wire.syslogmessage import FACILITIES, SEVERITIES


class Headed:
    """Puts a header before each line of `source`; `now` gives the seconds since the epoch."""

    def __init__(self, source: LineSource, header: Heading, now: Callable[[], float]) -> None:
        self._source = source
        self._header = header
        self._now = now
        self.size: int | None = None

    @property
    def problem(self) -> str:
        return self._source.problem

    @property
    def kept(self) -> str:
        return self._source.kept

    @property
    def counts(self) -> dict[str, int]:
        return self._source.counts

    async def read(self) -> list[bytes]:
        return self._headed(await self._source.read())

    def stop(self) -> None:
        self._source.stop()

    def rest(self) -> Iterator[list[bytes]]:
        return map(self._headed, self._source.rest())

    def _headed(self, lines: list[bytes]) -> list[bytes]:
        before = self._header.encode(self._now())
        return [before + line for line in lines]


def heading(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --syslog and its options to a command, which gets `header`: what wraps a source."""

    @functools.wraps(command)
    def wrapped(
        *given: Any, syslog: bool, severity: str, facility: str, app: str, **named: Any
    ) -> Any:
        said = {"severity": severity, "facility": facility, "app": app}
        context = click.get_current_context()
        if not syslog:
            for name in said:
                if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
                    raise click.UsageError(f"--{name} is for --syslog")
            return command(*given, header=None, **named)
        try:
            header = Heading(socket.gethostname(), **said)
        except ValueError as problem:
            raise click.UsageError(f"--app: {problem}") from problem

        def headed(source: LineSource) -> Headed:
            return Headed(source, header, time.time)

        return command(*given, header=headed, **named)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


_OPTIONS = (
    click.option(
        "--syslog",
        is_flag=True,
        help="Make each line a syslog message, with the header of RFC 5424.",
    ),
    click.option(
        "--severity",
        type=click.Choice(SEVERITIES),
        default="notice",
        show_default=True,
        help="The severity of these messages.",
    ),
    click.option(
        "--facility",
        type=click.Choice(FACILITIES),
        metavar="NAME",
        default="user",
        show_default=True,
        help="Their facility: user, daemon, local0 to local7 and so on.",
    ),
    click.option(
        "--app",
        metavar="NAME",
        default="sockservice",
        show_default=True,
        help="The name of the program that they come from.",
    ),
)
