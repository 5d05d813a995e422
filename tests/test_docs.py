"""Every example in the README and in docs/ does what the page says it does."""

import os
import pty
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOOLS = ("nc", "telnet")
PATIENCE = 30.0


class Example(NamedTuple):
    """A fenced block and the files that stand before it on its page."""

    name: str
    text: str
    files: dict[str, str]


def examples() -> Iterator[Example]:
    for page in PAGES:
        files: dict[str, str] = {}
        for number, (kind, text) in enumerate(FENCED.findall(page.read_text()), 1):
            name = f"{page.name}-{number}"
            if kind == "python":
                files[text.partition("\n")[0].removeprefix("# ")] = text
            elif kind == "console":
                yield Example(name, text, dict(files))
            else:
                # Run by .ci/run, since they make a virtual environment.
                assert (page.name, kind) == ("README.md", "sh"), name


class Running:
    """A child process, what it has printed so far, and an end for it."""

    def __init__(self, command: str, folder: Path) -> None:
        self.terminal, theirs = pty.openpty()
        self.child = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=folder,
            env=environment(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.printed = ""

    def expect(self, pattern: str) -> re.Match[str]:
        """Read on until `pattern` has been printed; forget what came up to there."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.printed)):
            readable, _, _ = select.select([self.terminal], [], [], deadline - time.monotonic())
            assert readable, f"waited for {pattern!r}, got {self.printed!r}"
            self.printed += os.read(self.terminal, 65536).decode().replace("\r\n", "\n")
        self.printed = self.printed[found.end() :]
        return found

    def type(self, line: str) -> None:
        os.write(self.terminal, line.encode() + b"\n")

    def stop(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.terminal)


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8", "COLUMNS": "80"}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The number of a port where the service runs as the pages say it does."""
    service = Running(
        "twistd -n --pidfile= sockservice --port 0", tmp_path_factory.mktemp("service")
    )
    try:
        yield service.expect(r"echo listening on udp:127\.0\.0\.1:(\d+)")[1]
    finally:
        service.stop()


def freePort() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_example(example: Example, port: str, tmp_path: Path) -> None:
    missing = [t for t in TOOLS if re.search(rf"\b{t}\b", example.text) and not shutil.which(t)]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
    numbers = {"5555": port, "5556": freePort()}

    def here(text: str) -> str:
        return re.sub("5555|5556", lambda found: numbers[found[0]], text)

    for name, text in example.files.items():
        (tmp_path / name).write_text(here(text))
    background = []
    try:
        for step in re.split(r"^\$ ", here(example.text), flags=re.MULTILINE)[1:]:
            command, _, expected = step.partition("\n")
            if command.startswith("telnet"):
                session(command, expected, tmp_path)
            elif command.endswith("&"):
                started = Running(command.removesuffix("&"), tmp_path)
                background.append(started)
                started.expect("starting on|listening on")
            else:
                done = subprocess.run(
                    ["bash", "-c", command],
                    cwd=tmp_path,
                    env=environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=PATIENCE,
                    check=False,
                )
                assert done.stdout == expected, command
    finally:
        for started in background:
            started.stop()


def session(command: str, expected: str, folder: Path) -> None:
    """Hold a telnet session: behind its greeting, every other line is typed."""
    greeting, typed = expected.split("'^]'.\n")
    running = Running(command, folder)
    try:
        running.expect(re.escape(greeting + "'^]'.\n"))
        lines = iter(typed.splitlines())
        for line, reply in zip(lines, lines, strict=True):
            running.type(line)
            running.expect(f"{re.escape(line)}\n{re.escape(reply)}\n")
    finally:
        running.stop()


def test_links_lead_to_files() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
