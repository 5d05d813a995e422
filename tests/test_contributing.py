"""What CONTRIBUTING.md and CHANGELOG.md say of this repository is so."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import sockservice

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
COMMANDS = [
    line.partition(" # ")[0].strip()
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
PATIENCE = 180.0


def ran(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_first_command_is_the_one_that_the_readme_gives() -> None:
    assert COMMANDS[0] in (ROOT / "README.md").read_text().splitlines()


def test_scripts_are_there() -> None:
    named = re.findall(r"scripts/\w+", PAGE)
    assert {"scripts/check", "scripts/docs"} <= set(named)
    assert all((ROOT / each).stat().st_mode & 0o100 for each in named)


def test_tests_that_are_named_are_there() -> None:
    named = [shlex.split(each)[1:] for each in COMMANDS if each.startswith(".venv/bin/pytest")]
    assert named
    for arguments in named:
        ran("pytest", "--collect-only", "-q", *arguments)


def test_sessions_that_are_named_are_there() -> None:
    listed = re.findall(r"^\* (\S+)", ran("nox", "--list"), re.MULTILINE)
    asked = [shlex.split(each) for each in COMMANDS if each.startswith(".venv/bin/nox")]
    named = {each for command in asked if "-s" in command for each in command[2:] if each != "--"}
    assert named and named <= set(listed)


def test_the_changelog_begins_with_what_is_unreleased_and_then_this_version() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", sockservice.__version__]
    released = [tuple(map(int, each.split("."))) for each in headings[1:]]
    assert released == sorted(set(released), reverse=True)
