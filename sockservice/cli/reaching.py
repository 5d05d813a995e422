"""The options of how a target is reached; what is not given is in the environment or a file."""

import functools
import os
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from sockservice.cli import completion
from sockservice.cli.configuration import Broken, Configuration, place
from sockservice.cli.options import seconds
from sockservice.cli.text import tell
from sockservice.client.proxy import Proxy
from sockservice.client.targets import applicable
from sockservice.net.tls.client import VERSIONS

#: What the variables of the environment begin with.
PREFIX = "SOCKSERVICE_"


def _names(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(value.split(",")) if value else ()


def _proxy(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            Proxy.parse(value)
        except ValueError as problem:
            raise click.BadParameter(str(problem)) from problem
    return value


#: The options by their keys in the file; and the keywords of connect() that they are.
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "connect-timeout": (
        "timeout",
        {
            "type": float,
            "callback": seconds,
            "default": 30.0,
            "show_default": True,
            "help": "Seconds to wait for a connection, TLS included.",
        },
    ),
    "greeting": (
        "greeting",
        {
            "is_flag": True,
            "help": "The server sends a line first, which is no reply; wait for it.",
        },
    ),
    "source": (
        "source",
        {"metavar": "ADDRESS", "help": "Connect from this address of this machine."},
    ),
    "ip": ("ip", {"type": click.Choice(["4", "6"]), "help": "Only over this version of IP."}),
    "proxy": (
        "proxy",
        {
            "metavar": "URL",
            "callback": _proxy,
            "help": "tcp:, tls: connect through this proxy, which looks up the name: "
            "socks5://HOST:PORT or http://HOST:PORT, with USER:PASSWORD@ in front of HOST.",
        },
    ),
    "verify": (
        "verify",
        {
            "default": True,
            "show_default": True,
            "help": "tls: whether the server has to show who it is. Without, anyone between can "
            "read and change everything.",
        },
    ),
    "cafile": (
        "cafile",
        {
            "metavar": "FILE",
            "help": "tls: trust the certificates in this PEM file, not the system's.",
        },
    ),
    "cert": ("cert", {"metavar": "FILE", "help": "tls: the certificate to show, in PEM."}),
    "key": (
        "key",
        {"metavar": "FILE", "help": "tls: its private key, if not in the same file."},
    ),
    "server-name": (
        "serverName",
        {
            "metavar": "NAME",
            "help": "tls: the name to ask for and to verify, if it is not the host of TARGET.",
        },
    ),
    "tls-min": (
        "tlsMin",
        {"type": click.Choice(VERSIONS), "help": "tls: the lowest version to accept; 1.2 if none."},
    ),
    "alpn": (
        "alpn",
        {
            "metavar": "NAMES",
            "callback": _names,
            "help": "tls: protocols to offer, best first, with commas between (RFC 7301).",
        },
    ),
}


def targeted(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add TARGET and the connection options to a command.

    The command gets `target`, and the options as `how`, keywords of connect(). An option that
    is not given is taken from the environment, then from the file of settings.
    """

    @functools.wraps(command)
    def wrapped(*arguments: Any, target: str | None, **given: Any) -> Any:
        context = click.get_current_context()
        values = {name: given.pop(name.replace("-", "_")) for name in OPTIONS}
        versions = [each for each in ("4", "6") if given.pop(f"ip{each}")]
        verbose = given.pop("verbose")
        if len(versions) > 1:
            raise click.UsageError("-4 or -6, not both")
        try:
            found = _configuration().found(target)
            said = {name: _said(context, name) for name in OPTIONS}
            for name, (value, where) in found.settings.items():
                if said[name] is ParameterSource.DEFAULT:
                    values[name] = _checked(context, name, value, where)
        except Broken as problem:
            raise click.UsageError(str(problem)) from problem
        if found.target is None:
            raise click.UsageError("Missing argument 'TARGET'.")
        applies = applicable(found.target)
        how = {
            keyword: values[name]
            for name, (keyword, _) in OPTIONS.items()
            # What is meant for other targets as well does not hinder this one.
            if keyword in applies or said[name] is ParameterSource.COMMANDLINE
        }
        if versions:
            how["ip"] = versions[0]
        how["ip"] = how.get("ip") and int(how["ip"])
        if verbose:
            how["told"] = _Verbose(context.command.name != "bench")
        return command(*arguments, target=found.target, how=how, **given)

    for decorator in _decorators():
        wrapped = decorator(wrapped)
    return wrapped


def _decorators() -> list[Callable[[Any], Any]]:
    """Return what adds the parameters, the last first."""
    found = [
        click.argument("target", required=False, envvar=f"{PREFIX}TARGET", shell_complete=_targets),
        click.option("--verbose", "-v", is_flag=True, help="Tell of each connection on stderr."),
    ]
    for name, (_, how) in reversed(OPTIONS.items()):
        flags = "--verify/--no-verify" if name == "verify" else f"--{name}"
        variable = PREFIX + name.upper().replace("-", "_")
        found.append(click.option(flags, envvar=variable, **how))
        if name == "ip":
            found += [
                click.option(
                    f"-{each}", f"ip{each}", is_flag=True, help=f"The same as --ip {each}."
                )
                for each in ("6", "4")
            ]
    return found


def _said(context: click.Context, name: str) -> ParameterSource | None:
    """Return where the value of an option comes from."""
    if name == "ip" and (context.params["ip4"] or context.params["ip6"]):
        return ParameterSource.COMMANDLINE
    return context.get_parameter_source(name.replace("-", "_"))


def _checked(context: click.Context, name: str, value: Any, where: str) -> Any:
    """Return a value of the file as the option would.

    :raises Broken: It is none.
    """
    attribute = name.replace("-", "_")
    option = next(each for each in context.command.params if each.name == attribute)
    if isinstance(value, list) and name == "alpn" and all(isinstance(v, str) for v in value):
        value = ",".join(value)
    path, _ = place(os.environ)
    if isinstance(value, bool) != (name in ("verify", "greeting")):
        raise Broken(f"{path}: {where} is true or false, or ought not to be")
    if not isinstance(value, bool | int | float | str):
        raise Broken(f"{path}: {where} is neither a text nor a number")
    try:
        return option.process_value(context, value if isinstance(value, bool) else str(value))
    except click.BadParameter as problem:
        raise Broken(f"{path}: {where}: {problem.message}") from problem


def _configuration() -> Configuration:
    return Configuration(*place(os.environ), OPTIONS)


def _targets(context: click.Context, parameter: click.Parameter, begun: str) -> list[Any]:
    """Complete a target, or the name of one."""
    try:
        names = _configuration().names
    except Broken:
        names = []
    found = completion.targets(context, parameter, begun)
    return [click.shell_completion.CompletionItem(n) for n in names if n.startswith(begun)] + found


class _Verbose:
    """Tells of connections on stderr; of those that are alike once only unless `repeating`."""

    def __init__(self, repeating: bool) -> None:
        self._repeating = repeating
        self._told: set[str] = set()

    def __call__(self, lines: list[str]) -> None:
        text = "\n".join(lines)
        if self._repeating or text not in self._told:
            self._told.add(text)
            for line in lines:
                tell(f"* {line}")
