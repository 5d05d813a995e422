"""Options that several commands share, above all how a target is reached."""

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from sockservice.client.framings import FRAMINGS, framingNamed
from sockservice.client.line import REPLY_LIMIT
from sockservice.wire.framing import Framing

_Command = TypeVar("_Command", bound=Callable[..., Any])


def seconds(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    """Check that a number, of seconds or anything else, is greater than 0."""
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter("not a number greater than 0")
    return value


def inSeconds(name: str, default: float, help: str) -> Callable[[_Command], _Command]:
    """Return the decorator that adds an option for a number of seconds."""
    return click.option(
        name, type=float, callback=seconds, default=default, show_default=True, help=help
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
        help="The server's framing: lines, chunks, or a class of yours, module.Class. " + help,
    )


def sized(help: str) -> Callable[[_Command], _Command]:
    """Return the decorator that adds the option --size, in bytes."""
    return click.option(
        "--size", type=click.IntRange(0, REPLY_LIMIT), default=56, show_default=True, help=help
    )


def targeted(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the connection options to a command, which gets them as `how`, keywords of connect()."""

    @inSeconds("--connect-timeout", 30.0, "Seconds to wait for a connection, TLS included.")
    @click.option(
        "--greeting",
        is_flag=True,
        help="The server sends a line first, which is no reply; wait for it.",
    )
    @click.option("--source", metavar="ADDRESS", help="Connect from this address of this machine.")
    @click.option(
        "--verify/--no-verify",
        default=True,
        show_default=True,
        help="tls: whether the server has to show who it is. Without, anyone between can "
        "read and change everything.",
    )
    @click.option(
        "--cafile",
        metavar="FILE",
        help="tls: trust the certificates in this PEM file, not the system's.",
    )
    @click.option("--cert", metavar="FILE", help="tls: the certificate to show, in PEM.")
    @click.option("--key", metavar="FILE", help="tls: its private key, if not in the same file.")
    @functools.wraps(command)
    def wrapped(
        *arguments: Any,
        connect_timeout: float,
        greeting: bool,
        source: str | None,
        verify: bool,
        cafile: str | None,
        cert: str | None,
        key: str | None,
        **more: Any,
    ) -> Any:
        how = {
            "timeout": connect_timeout,
            "greeting": greeting,
            "source": source,
            "verify": verify,
            "cafile": cafile,
            "cert": cert,
            "key": key,
        }
        return command(*arguments, how=how, **more)

    return wrapped
