"""The manual page says what the commands say."""

import re
import shutil
import subprocess

import click
import pytest
from click.testing import CliRunner

from sockservice.cli import main
from sockservice.cli.man import page

REQUESTS = {".TH", ".SH", ".SS", ".TP", ".PP", ".br"}


def plain(roff: str) -> str:
    """Take away what makes it roff."""
    for written, character in ((r"\(aq", "'"), (r"\(ti", "~"), (r"\(ha", "^"), (r"\-", "-")):
        roff = roff.replace(written, character)
    return re.sub(r"\\f[BIR]|\\&", "", roff).replace(r"\e", "\\")


def test_every_command_and_option_is_there() -> None:
    text = plain(page(main))
    context = click.Context(main)
    names = main.list_commands(context)
    assert names
    for name in names:
        command = main.get_command(context, name)
        assert command is not None
        [section] = re.findall(rf"^\.SS {name}\n(.*?)^\.S[SH] ", text, re.DOTALL | re.MULTILINE)
        for parameter in command.params:
            for written in [*parameter.opts, *parameter.secondary_opts]:
                assert written in (section if written.startswith("-") else section.lower())
            if isinstance(parameter, click.Option):
                assert " ".join((parameter.help or "").split()) in section
        status = re.search("Exit status:(.*?)$", " ".join((command.help or "").split()))
        if status:
            assert (
                f"sockservice {name}\n{status[1].strip()}\n" in text.partition(".SH EXIT STATUS")[2]
            )


def test_it_is_roff() -> None:
    for line in page(main).splitlines():
        assert line, "an empty line is a request of its own"
        if line.startswith((".", "'")):
            assert line.split(" ")[0] in REQUESTS
        rest = re.sub(r"\\f[BIR]|\\&|\\-|\\e|\\\((aq|ti|ha)", "", line)
        assert "\\" not in rest
        assert line.count(r"\fB") + line.count(r"\fI") == line.count(r"\fR")


def test_what_would_be_a_request_is_text() -> None:
    @click.command(help=".SH no\n\n'tis a \\ and ~, `bold-face` ^\n\nExit status: 0 fine.")
    @click.option("--odd", help=".TP")
    def odd(odd: str) -> None: ...

    lines = page(click.Group(commands=[odd])).splitlines()
    assert r"\&.SH no" in lines
    assert r"\&\(aqtis a \e and \(ti, \fBbold\-face\fR \(ha" in lines
    assert r"\&.TP" in lines
    assert lines[lines.index(".SH EXIT STATUS") + 1 :][:3] == [
        ".TP",
        r"\fBsockservice odd\fR",
        "0 fine.",
    ]


@pytest.mark.skipif(not shutil.which("groff"), reason="groff not here")
def test_groff_has_nothing_to_say() -> None:
    printed = CliRunner().invoke(main, ["man"])
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-P-cbou"],
        input=printed.stdout_bytes,
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    assert b"sockservice send" in done.stdout
