"""The Tab key, in the shells themselves."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sockservice.cli import main
from sockservice.cli.completion import SCHEMES, targets
from tests.terminal import OnTerminal

# What is completed is printed by a function of the command's name.
SHELLS = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        'eval "$(sockservice completion bash)"; sockservice() { printf "[%s]\\n" "$*"; }',
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -U compinit; compinit -D -u; "
        'eval "$(sockservice completion zsh)"; sockservice() { printf "[%s]\\n" "$*"; }',
    ),
    "fish": (
        ["fish", "--no-config", "-i"],
        'sockservice completion fish | source; function sockservice; printf "[%s]\\n" "$argv"; end',
    ),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_begun_is_completed(shell: str, tmp_path: Path, opened: ExitStack) -> None:
    command, setUp = SHELLS[shell]
    if not shutil.which(command[0]):
        pytest.skip(f"{shell} not here")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "service.sock").touch()
    environment = {"TERM": "dumb", "HOME": str(tmp_path), "INPUTRC": "/dev/null"}
    terminal = OnTerminal(command, opened, tmp_path, environment=environment)
    terminal.type(f"{setUp}; echo set''up\n")
    terminal.until("[\r\n]setup\r\n")
    for typed, completed in (
        ("sen\t --fram\t chu\t ud\t127.0.0.1:5", r"send +--framing +chunks +udp:127\.0\.0\.1:5"),
        ("send unix:ru\tse\t line", r"send unix:run/service\.sock +line"),
    ):
        terminal.type(f"sockservice {typed}\n")
        terminal.until(rf"\[{completed}\]")


def test_targets_begin_with_a_scheme(tmp_path: Path) -> None:
    parameter = click.Argument(["target"])
    context = click.Context(main)

    def completed(begun: str) -> list[str]:
        return [item.value for item in targets(context, parameter, begun)]

    assert completed("") == list(SCHEMES)
    assert completed("u") == ["udp:", "unix:", "unix-datagram:", "unix-seqpacket:"]
    assert completed("tcp:local") == completed("unix:/nowhere/at/all") == []
    for name in ("file", ".hidden"):
        (tmp_path / name).touch()
    assert completed(f"unix:{tmp_path}/") == [f"unix:{tmp_path}/file"]
    assert completed(f"unix-datagram:{tmp_path}/.h") == [f"unix-datagram:{tmp_path}/.hidden"]


def test_an_unknown_shell_is_status_2() -> None:
    assert CliRunner().invoke(main, ["completion", "csh"]).exit_code == 2
