"""`send --follow`: one log file followed, as `ship` does."""

from typing import Any

import click
from click.core import ParameterSource

#: What it has no use for.
_OTHERS = {
    *("lines", "files", "retry_for", "retry_times", "continuing", "new", "resend", "unacked"),
    *("refusals", "crlf", "framing", "quiet", "spool", "spool_limit"),
    *("syslog", "severity", "facility", "app"),
}


def ship(
    target: str,
    path: str,
    session: str | None,
    timeout: float,
    rate: float | None,
    asJson: bool,
    how: dict[str, Any],
) -> None:
    """Ship the file at `path`, and leave.

    :raises click.UsageError: There is no session, or an option that does not apply.
    """
    if session is None:
        raise click.UsageError("--follow needs --session NAME")
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in _OTHERS and source is ParameterSource.COMMANDLINE:
            named = "LINES" if parameter.name == "lines" else max(parameter.opts, key=len)
            raise click.UsageError(f"{named} is not for --follow, which sends a file as ship does")

    # With what decompresses files, which nothing else here needs.
    from sockservice.cli.ship.command import follow

    follow(target, (path,), session, timeout, rate, asJson, how)
