"""`sockservice man`: the manual page, generated from the help of commands and settings."""

import inspect
import re

import click

from sockservice import __version__

STATUS = "Exit status:"


@click.command()
@click.pass_context
def man(context: click.Context) -> None:
    """Print the manual page, for man(1).

    `sockservice man | man -l -` shows it; `sockservice man > sockservice.1` keeps it.
    """
    command = context.find_root().command
    assert isinstance(command, click.Group)
    click.echo(page(command), nl=False)


def page(group: click.Group) -> str:
    """Return the manual page of `group`, its commands and the server's options, in roff."""
    context = click.Context(group, info_name="sockservice", **group.context_settings)
    commands = {
        name: command
        for name in group.list_commands(context)
        if (command := group.get_command(context, name)) is not None and not command.hidden
    }
    lines = [
        f'.TH SOCKSERVICE 1 "" "sockservice {__version__}" "User Commands"',
        ".SH NAME",
        rf"sockservice \- {_escaped(_first(group))}",
        ".SH SYNOPSIS",
    ]
    for name, command in commands.items():
        lines += [*_usage(context, name, command), ".br"]
    lines.append(
        r"\fBtwistd\fR [\fItwistd options\fR] \fBsockservice\fR [\fIserver options\fR]",
    )
    lines += [".SH DESCRIPTION", *_text(group)[0], ".SH OPTIONS", *_options(context, group)]
    lines.append(".SH COMMANDS")
    statuses: list[str] = []
    for name, command in commands.items():
        text, status = _text(command)
        lines += [f".SS {_escaped(name)}", *_usage(context, name, command), ".PP", *text]
        lines += _options(click.Context(command, parent=context, info_name=name), command)
        if status:
            statuses += [".TP", rf"\fBsockservice {_escaped(name)}\fR", *status]
    lines += [".SH SERVER OPTIONS", *_settings()]
    if statuses:
        lines += [".SH EXIT STATUS", *statuses]
    lines += [
        ".SH FILES",
        ".TP",
        r"\fI$XDG_STATE_HOME\fR/sockservice/history",
        _escaped(
            "Lines typed into `sockservice send` on a terminal; by default in ~/.local/state."
        ),
        ".SH SEE ALSO",
        r"\fBtwistd\fR(1), \fBnc\fR(1), \fBtelnet\fR(1)",
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Convert plain text to roff; text in backquotes becomes bold."""
    for character, written in (("\\", r"\e"), ("-", r"\-"), ("^", r"\(ha"), ("~", r"\(ti")):
        text = text.replace(character, written)
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text).replace("'", r"\(aq")
    # At the start of a line these would start a request.
    return rf"\&{text}" if text.startswith((".", r"\(aq")) else text


def _first(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").partition("\n")[0].rstrip(".")


def _text(command: click.Command) -> tuple[list[str], list[str]]:
    """Return the text of a command's help, and apart from it that on the exit status."""
    text: list[str] = []
    status: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(command.help or "").strip()):
        joined = " ".join(paragraph.replace("\b\n", "").split())
        said, _, told = joined.partition(STATUS)
        if said:
            text += [".PP", _escaped(said.rstrip())]
        if told:
            status.append(_escaped(told.strip()))
    return text[1:], status


def _usage(context: click.Context, name: str, command: click.Command) -> list[str]:
    pieces = command.collect_usage_pieces(click.Context(command, parent=context, info_name=name))
    rest = " ".join(rf"\fI{_escaped(piece)}\fR" for piece in pieces)
    return [rf"\fBsockservice {_escaped(name)}\fR {rest}".rstrip()]


def _options(context: click.Context, command: click.Command) -> list[str]:
    lines: list[str] = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            names, says = record
            lines += [".TP", rf"\fB{_escaped(names)}\fR", _escaped(says)]
    return lines


def _settings() -> list[str]:
    # No other command waits for it.
    from sockservice.limits.settings import CHECK, FILES, SETTINGS

    lines = [_escaped(f"The server, `twistd sockservice`, has these options. {FILES}")]
    for setting in SETTINGS:
        short = "" if setting.short is None else f"-{setting.short}, "
        lines += [".TP", rf"\fB{_escaped(f'{short}--{setting.name}')}\fR"]
        if setting.reader is not None:
            lines[-1] += rf" \fI{_escaped(setting.reader.stands)}\fR"
        lines.append(_escaped(setting.description))
    for name, says in (
        ("--check", CHECK),
        ("--version", "Print the version and exit."),
        ("--help", "Print a summary."),
    ):
        lines += [".TP", rf"\fB{_escaped(name)}\fR", says]
    return lines
