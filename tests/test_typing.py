"""What a type checker knows of the package in somebody else's program: mypy, strict, no plugin."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import ROOT, blocks

#: Examples that are typed: each is checked as it stands on its page.
TYPED = {
    "extending.md": [
        *("keyvalue", "values", "chat", "visit", "postbox", "post"),
        *("octets", "guarded", "sensors", "measure"),
    ],
    "testing.md": ["test_protocols", "test_mail", "test_trial"],
}
#: Most lines of an example of a protocol.
LONGEST = 40

# What others have left without types: Twisted's endpoints, unittest's assertions, pytest-twisted.
UNTYPED = ["--allow-untyped-calls", "--allow-untyped-decorators"]

WRONG = """
from typing import Any

from sockservice import DatagramClient, LineClient, LineServer, connect
from sockservice.testing import Pair


class Shout(LineServer):
    shouts = 3

    def answer(self, line: bytes) -> bytes:
        self.transport.nosuch()  # 1
        self.factory.linelimit  # 2
        return line.upper()


class Says(LineServer):
    def answer(self, line: bytes) -> str:  # 3
        return "text"


async def main(reactor: Any) -> None:
    either = await connect(reactor, "tcp:127.0.0.1:5555")
    await either.ask("text")  # 4
    either.greeting  # 5
    line = await connect(reactor, "tcp:127.0.0.1:5555", LineClient, greeting=True)
    line.nosuch()  # 6
    reply: str = await line.ask(b"x")  # 7
    line.transport.nosuch()  # 8
    datagram = await connect(reactor, "udp:127.0.0.1:5555", DatagramClient)
    datagram.askAll([b"x"], print)  # 9
    connect(reactor, "tcp:127.0.0.1:5555", tiemout=5)  # 10
    connect(reactor, "tcp:127.0.0.1:5555", timeout="5")  # 11
    connect(reactor, "tcp:127.0.0.1:5555", Shout)  # 12


pair = Pair(Shout)
pair.server.nosuch()  # 13
pair.reply("text")  # 14
pair.server.shouts + 1
pair.store.lines.nosuch()  # 15
Pair(print)  # 16
"""


def checked(folder: Path) -> str:
    """Give what mypy says of the modules in a folder."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    done = subprocess.run(
        [*command, f"--cache-dir={folder}/cache", *UNTYPED, "."],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Check all examples, and the wrong program among them; give the errors."""
    folder = tmp_path_factory.mktemp("typed")
    for page, names in TYPED.items():
        there = {
            block.text.partition("\n")[0]: block.text
            for block in blocks(ROOT / "docs" / page)
            if block.kind == "python"
        }
        for name in names:
            (folder / f"{name}.py").write_text(there[f"# {name}.py"])
    (folder / "wrong.py").write_text(WRONG)
    return [line for line in checked(folder).splitlines() if "error:" in line]


def test_the_examples_are_typed(said: list[str]) -> None:
    assert [line for line in said if not line.startswith("wrong.py") and "stubs" not in line] == []


def test_each_mistake_of_a_wrong_program_is_found(said: list[str]) -> None:
    numbered = [number for number, line in enumerate(WRONG.splitlines(), 1) if "  # " in line]
    assert len(numbered) == 16
    found = {int(line.split(":")[1]) for line in said if line.startswith("wrong.py")}
    # A line that only looks at an attribute is no mistake but for that.
    assert sorted(found) == numbered


def test_examples_of_protocols_are_short() -> None:
    for page, names in TYPED.items():
        for block in blocks(ROOT / "docs" / page):
            name = re.match(r"# (\w+)\.py\n", block.text)
            if name and name[1] in names and not name[1].startswith("test_"):
                lines = [line for line in block.text.splitlines()[1:] if line.strip()]
                assert len(lines) <= LONGEST, (name[1], len(lines))
                assert len(block.text.splitlines()) <= LONGEST + 2, name[1]
