"""Every example in the README and in docs/ does what the page says it does.

A `console` block is run command by command, in a folder that holds the files of
the `python` blocks before it. `...` in what a command prints stands for anything.
Beneath a command that ends in `&` stands what it prints in the course of the
block, as far as it matters. Where lines beneath a command begin with `> `, they
are typed into it when it has prompted for them.
"""

import builtins
import io
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from twisted.scripts._twistd_unix import ServerOptions

from sockservice.daemon.options import Options
from sockservice.limits import openfiles

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A command, which goes on behind a backslash, and what it prints.
STEP = re.compile(r"((?:.*\\\n)*.*)\n((?s:.*))")
TOOLS = ("ip", "nc", "openssl", "systemd-socket-activate", "telnet", "unshare")
PATIENCE = 30.0
# Where a unit starts the service, and with which options.
STARTED = re.compile(r"^ExecStart=(\S+/twistd) (.+) sockservice ((?:.*\\\n)*.*)$", re.MULTILINE)
FREE = ("5556", "5557", "5558", "5559")  # stand for ports where nothing listens


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
            elif kind != "ini":
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
            left = max(0.0, deadline - time.monotonic())
            readable, _, _ = select.select([self.terminal], [], [], left)
            assert readable, f"waited for {pattern!r}, got {self.printed!r}"
            try:
                data = os.read(self.terminal, 65536)
            except OSError:
                # How a terminal says that all programs on it have ended.
                raise AssertionError(f"{pattern!r} never came: {self.printed!r}") from None
            self.printed += data.decode().replace("\r\n", "\n")
        self.printed = self.printed[found.end() :]
        return found

    def type(self, line: str) -> None:
        os.write(self.terminal, line.encode() + b"\n")

    def stop(self) -> None:
        # The whole group: a pipeline has several processes.
        os.killpg(self.child.pid, signal.SIGKILL)
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


def freePorts(count: int) -> list[str]:
    with ExitStack() as kept:
        made = [kept.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [str(each.getsockname()[1]) for each in made]


def lacking(text: str) -> list[str]:
    """Say what an example needs and this machine has not."""
    missing = [t for t in TOOLS if re.search(rf"\b{t}\b", text) and not shutil.which(t)]
    if missing:
        return missing
    if "raw:" in text and not allowed(socket.AF_PACKET, socket.SOCK_RAW):
        missing.append("CAP_NET_RAW")
    if "unshare" in text and subprocess.run(["unshare", "--net", "true"], check=False).returncode:
        missing.append("CAP_SYS_ADMIN")
    if "[::1]" in text and not allowed(socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)):
        missing.append("IPv6")
    return missing


def allowed(family: int, kind: int, address: tuple[str, int] | None = None) -> bool:
    try:
        with socket.socket(family, kind) as tried:
            if address is not None:
                tried.bind(address)
    except OSError:
        return False
    return True


def pattern(expected: str) -> str:
    """Make a regular expression of what a page says that a command prints."""
    return re.escape(expected).replace(re.escape("..."), ".*")


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_example(example: Example, port: str, tmp_path: Path) -> None:
    if missing := lacking(example.text):
        pytest.skip(f"{' and '.join(missing)} not here")
    numbers = {"5555": port, **dict(zip(FREE, freePorts(len(FREE)), strict=True))}

    def here(text: str) -> str:
        return re.sub("|".join(numbers), lambda found: numbers[found[0]], text)

    for name, text in example.files.items():
        (tmp_path / name).write_text(here(text))
    background: list[Running] = []
    printing: list[tuple[Running, str]] = []
    try:
        for step in re.split(r"^\$ ", here(example.text), flags=re.MULTILINE)[1:]:
            command, expected = STEP.fullmatch(step).groups()  # type: ignore[union-attr]
            if command.startswith("telnet"):
                session(command, expected, tmp_path)
            elif expected.startswith("> "):
                dialogue(command, expected, tmp_path)
            elif command.endswith("&"):
                started = Running(command.removesuffix("&"), tmp_path)
                background.append(started)
                started.expect(r"(?i)(?=.*(starting|listening) on)")
                printing += [(started, line) for line in expected.splitlines()]
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
                if not re.fullmatch(pattern(expected), done.stdout):
                    assert done.stdout == expected, command
        for started, line in printing:
            started.expect(f"{pattern(line)}\n")
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


def dialogue(command: str, expected: str, folder: Path) -> None:
    """Type what stands behind the prompts, and see the lines between them."""
    running = Running(command, folder)
    try:
        for line in expected.splitlines():
            if line.startswith("> "):
                running.expect("> ")
                running.type(line.removeprefix("> "))
            running.expect(f"{re.escape(line.removeprefix('> '))}\n")
    finally:
        running.stop()


def test_python_examples_have_no_errors_that_ruff_finds(tmp_path: Path) -> None:
    for page in PAGES:
        for number, (kind, text) in enumerate(FENCED.findall(page.read_text()), 1):
            if kind == "python":
                (tmp_path / f"{page.stem}-{number}.py").write_text(text)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=E,F"]
    options = ["--line-length=100", "--no-cache", "--output-format=concise"]
    done = subprocess.run(
        [*command, *options, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_lead_to_files() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def units() -> dict[str, str]:
    """Give the systemd units that the pages show, by their file names."""
    found = (text for page in PAGES for kind, text in FENCED.findall(page.read_text()))
    named = re.compile(r"# /etc/systemd/system/(\S+)\n")
    return {name[1]: text for text in found if (name := named.match(text))}


def test_units_start_the_service_with_options_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = [text for name, text in units().items() if name.endswith(".service")]
    started = STARTED.search(text)
    assert started is not None
    monkeypatch.setattr(builtins, "open", lambda *_: io.StringIO("10000" if "conn" in _[0] else ""))
    options = Options()
    options.parseOptions(started[3].replace("\\\n", " ").split())
    assert [each.partition("@")[2] for each in options["listen"]] == [
        "systemd:index=0",
        "systemd:index=1",
    ]
    ServerOptions().parseOptions(started[2].split())
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert stop is not None and int(stop[1]) > options["drain-timeout"]
    files = re.search(r"^LimitNOFILE=(\d+)$", text, re.MULTILINE)
    assert files is not None and int(files[1]) == options["max-connections"] + openfiles.OTHERS


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze not here")
@pytest.mark.parametrize("check", [["verify"], ["security", "--offline=yes", "--threshold=10"]])
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, check: list[str]) -> None:
    twistd = str(Path(sys.executable).parent / "twistd")
    for name, text in units().items():
        (tmp_path / name).write_text(re.sub(r"(?<=^ExecStart=)\S+", twistd, text, flags=re.M))
    service = [str(path) for path in tmp_path.glob("*.service")]
    done = subprocess.run(
        ["systemd-analyze", *check, *service], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert check != ["verify"] or done.stderr == ""
