"""Options that several commands share, above all how a target is reached."""

import math
import os
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from sockservice.client.framed import Framed
from sockservice.client.framings import FRAMINGS, framingNamed
from sockservice.client.line import REPLY_LIMIT
from sockservice.wire.framing import LF, Framing
from sockservice.wire.session import Hello

_Command = TypeVar("_Command", bound=Callable[..., Any])


def seconds(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    """Check that a number, of seconds or anything else, is greater than 0."""
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter("not a number greater than 0")
    return value


def sessionName(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Check the name of a session."""
    if value is not None:
        try:
            Hello(value).encode()
        except ValueError as problem:
            raise click.BadParameter(str(problem)) from problem
    return value


def inSeconds(long: str, short: str, default: float, help: str) -> Callable[[_Command], _Command]:
    """Return the decorator that adds an option for a number of seconds."""
    return click.option(
        long,
        short,
        type=float,
        callback=seconds,
        default=default,
        show_default=True,
        help=help,
    )


def timed(default: float, help: str) -> Callable[[_Command], _Command]:
    """Return the decorator that adds the option --timeout, in seconds."""
    return inSeconds("--timeout", "-W", default, help)


def rated(help: str, **how: Any) -> Callable[[_Command], _Command]:
    """Return the decorator that adds the option --rate, in lines a second; `how` is click's."""
    return click.option("--rate", "-R", type=float, callback=seconds, help=help, **how)


def missing(help: str) -> Callable[[_Command], _Command]:
    """Return the decorator that adds the option --gone: what to do where lines may be missing."""
    return click.option(
        "--gone",
        type=click.Choice(["stop", "continue"]),
        default="stop",
        show_default=True,
        help=help,
    )


def _framing(
    context: click.Context, option: click.Parameter, value: str
) -> Callable[[int], Framing]:
    try:
        return framingNamed(value)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from problem


def framed(help: str) -> Callable[[_Command], _Command]:
    """Return the decorator that adds the option --framing."""
    return click.option(
        "--framing",
        metavar="NAME",
        callback=_framing,
        shell_complete=lambda context, option, begun: [
            CompletionItem(name) for name in FRAMINGS if name.startswith(begun)
        ],
        default="lines",
        show_default=True,
        help=f"The server's framing: {', '.join(FRAMINGS)}, or a class of yours, module.Class. "
        + help,
    )


def answerable(framing: Callable[[int], Framing], line: bytes) -> None:
    """Check that `line` can be sent in a framing, and that replies come in it.

    :raises click.UsageError: It can't, or none do.
    """
    if getattr(framing, "mute", False):
        raise click.UsageError("--framing: replies are needed, and syslog has none")
    try:
        Framed(framing, REPLY_LIMIT, LF).encoded(line)
    except ValueError as problem:
        raise click.UsageError(f"--framing: {problem}") from problem


def _prefixes(
    context: click.Context, option: click.Parameter, value: tuple[str, ...]
) -> tuple[bytes, ...]:
    if "" in value:
        raise click.BadParameter("every reply begins with nothing")
    return tuple(map(os.fsencode, value))


def refusing() -> Callable[[_Command], _Command]:
    """Return the decorator that adds the option --refusal, the parameter `refusals`."""
    return click.option(
        "--refusal",
        "refusals",
        metavar="PREFIX",
        multiple=True,
        default=["error "],
        show_default=True,
        callback=_prefixes,
        help="A reply that begins so is a refusal; may be given several times.",
    )


def sized(help: str) -> Callable[[_Command], _Command]:
    """Return the decorator that adds the option --size, in bytes."""
    return click.option(
        "--size",
        "-s",
        type=click.IntRange(0, REPLY_LIMIT),
        default=56,
        show_default=True,
        help=help,
    )
