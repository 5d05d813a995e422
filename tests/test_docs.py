"""Every example in the README and in docs/ does what the page says it does.

A page is played as one session, as a reader would type it: its blocks in their order,
in one folder, in one interactive shell. A `python` block is written to the file that its
first line names. The commands of a `console` block are typed; what each prints has to be
what the page shows, `...` standing for anything in a line, and alone in a line for any
lines. A command that ends in `&` runs on until the page stops it or ends; beneath it
stands what it prints by itself. What such commands print later stands in a `text` block
behind what brings it about. Lines that begin with `> `, and every other line of a telnet
session, are typed into the program; `^C`, `^D` and `^]` are those keys. The first `sh`
block of a README goes on in a terminal of its own.

What the shell says of its jobs (`[1] 4711`) is left out on the pages. The reader waits
until it has said that a job is done before typing on. The terminal calls itself dumb, so
that no progress is drawn on it.
"""

import codecs
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from inspect import signature
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from twisted.scripts._twistd_unix import ServerOptions

from sockservice import ReliableSender
from sockservice.cli import main
from sockservice.daemon.options import Options
from sockservice.limits import openfiles
from sockservice.limits.counters import Counters
from tests.ports import freePorts

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A command, which goes on behind a backslash, and what it prints.
STEP = re.compile(r"((?:.*\\\n)*.*)\n((?s:.*))")
# What the shell says of its jobs.
NOTICE = re.compile(r"^\[\d+\][ +-]+.*\n", re.MULTILINE)
# What each listener says when it is there.
SERVING = re.compile(r"\b(?:starting|listening) on\b", re.IGNORECASE)
# How a terminal is told where to write, and in which colour.
CONTROL = re.compile(r"\x1b\[[\d;?]*[a-zA-Z]|\x1b[=>]")
# The names that ports have on pages.
PORT = re.compile(r"\b55[5-9]\d\b")
KEYS = {"^C": "\x03", "^D": "\x04", "^]": "\x1d"}
TOOLS = ("curl", "ip", "nc", "openssl", "systemd-socket-activate", "telnet", "unshare")
READY = "<ready>"
PATIENCE = 60.0
# Where a unit starts the service, and with which options.
STARTED = re.compile(r"^ExecStart=(\S+/twistd) (.+) sockservice ((?:.*\\\n)*.*)$", re.MULTILINE)


# Pages whose examples go on with those of others.
CONTINUES = {"testing.md": ("extending.md",)}


class Block(NamedTuple):
    """A fenced block of a page."""

    name: str
    kind: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = FENCED.findall(page.read_text())
    return [Block(f"{page.name}-{number}", *each) for number, each in enumerate(found, 1)]


class Screen:
    """A terminal, and what was printed on it that has not been looked at yet."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()
        termios.tcsetwinsize(self.theirs, (24, 80))
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self.text = ""

    def read(self) -> None:
        data = self._decoder.decode(os.read(self.ours, 65536))
        self.text = (self.text + data).replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.theirs)


class Session:
    """A reader of `page` at work in `folder`."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.blocks = blocks(page)
        self.played = 0
        self.failed = ""  # the block that went wrong
        self._folder = folder
        others = [page.parent / other for other in CONTINUES.get(page.name, ())]
        text = "".join(each.read_text() for each in (page, *others))
        self._ports = dict(zip(sorted(set(PORT.findall(text))), freePorts(), strict=False))
        self._screens: list[Screen] = []
        self._shells: list[subprocess.Popen[bytes]] = []
        self._skipped = False  # something of the console block before
        self._shell = self._open()
        for other in others:
            # The reader has saved the examples of that page in the same folder.
            for block in blocks(other):
                if block.kind == "python":
                    self.play(block)

    def _open(self) -> Screen:
        screen = Screen()
        self._screens.append(screen)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "--noediting", "-i"],
            cwd=self._folder,
            env=os.environ
            | {"PATH": path, "LC_ALL": "C.UTF-8", "TERM": "dumb", "PS1": READY, "PS2": ""}
            | {"HISTFILE": "/dev/null", "XDG_STATE_HOME": str(self._folder / "state")},
            preexec_fn=lambda: os.login_tty(screen.theirs),
        )
        self._shells.append(shell)
        self._until(screen, re.escape(READY))
        return screen

    def close(self) -> None:
        """End all that the reader has started."""
        for shell in self._shells:
            while members := list(inSession(shell.pid)):
                for each in members:
                    with suppress(ProcessLookupError):
                        os.kill(each, signal.SIGKILL)
                shell.wait()
        for screen in self._screens:
            screen.close()

    def play(self, block: Block) -> list[str]:
        """Do what `block` says; give what could not be done, and why."""
        text = self._here(block.text)
        if block.kind in ("python", "toml"):
            (self._folder / text.partition("\n")[0].removeprefix("# ")).write_text(text)
        elif block.kind == "sh":
            self._start(text)
        elif block.kind == "text":
            if self._skipped:
                return ["what brings this about was skipped"]
            lines = [pattern(line) + "\n" for line in text.splitlines()]
            self._appears("(?s:.*?)".join(lines))
        elif block.kind == "console":
            return self._console(text)
        else:
            assert block.kind in ("ini", "rsyslog", "syslog-ng"), block
        return []

    def _here(self, text: str) -> str:
        return PORT.sub(lambda found: self._ports[found[0]], text)

    def _start(self, text: str) -> None:
        """Run the service in a terminal of its own, if that is what `text` does."""
        command = text.rpartition("&& ")[2].replace(".venv/bin/", "")
        if command.startswith("twistd"):
            # The environment is here; .ci/run is what makes one.
            screen = self._open()
            screen.type(command)
            self._until(screen, "(?=echo listening on)")

    def _console(self, text: str) -> list[str]:
        steps = [STEP.fullmatch(step) for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]]
        missing = {step[1]: lacking(step[1]) for step in steps if step}
        self._skipped = any(missing.values())
        for step in steps:
            assert step is not None, text
            command, expected = step.groups()
            if not self._skipped:
                self._step(command, expected)
            elif not missing[command] and (command.endswith("&") or command.startswith("kill")):
                # Others may need it. What it prints may depend on what was skipped.
                self._step(command, "...\n")
        return [f"{why} is not here: {step}" for step, why in missing.items() if why]

    def _step(self, command: str, expected: str) -> None:
        if command.endswith("&"):
            self._background(command, expected)
        elif command.startswith("telnet") or expected.startswith("> "):
            self._dialogue(command, expected)
        else:
            printed = self._run(command)
            if not re.fullmatch(pattern(expected), printed):
                assert printed == expected, command
        if command.startswith("kill %"):
            self._run(command.replace("kill", "wait"))

    def _run(self, command: str) -> str:
        """Type a command; give what is printed up to its end."""
        self._shell.type(f"{command}\n")
        printed = self._until(self._shell, re.escape(READY)).removesuffix(READY)
        assert printed.startswith(f"{command}\n"), printed
        return NOTICE.sub("", printed.removeprefix(f"{command}\n"))

    def _background(self, command: str, expected: str) -> None:
        screen = Screen()
        self._screens.append(screen)
        name = os.ttyname(screen.theirs)
        self._run(f"{command.removesuffix('&')} <{name} >{name} 2>&1 &")
        listeners = command.count("--listen") + (2 if "--port" in command else 0) or 1
        if command.startswith(("sockservice relay", "sockservice ship")):
            listeners = 0
        self._wait(lambda: len(SERVING.findall(screen.text)) >= listeners, SERVING.pattern)
        for line in expected.splitlines():
            self._until(screen, f"{pattern(line)}\n")

    def _dialogue(self, command: str, expected: str) -> None:
        """Type into a program what the page shows behind its prompts."""
        # The prompt of ours is for terminals that can do more.
        self._shell.type(f"TERM=xterm {command}\n")
        self._until(self._shell, re.escape(f"{command}\n"))
        greeting, escape, rest = expected.rpartition("Escape character is '^]'.\n")
        self._until(self._shell, pattern(greeting + escape))
        typing = True
        for line in rest.splitlines():
            prompt = found[0] if (found := re.match(r"(telnet)?> ", line)) else ""
            # A line editor may write the space as a move of the cursor.
            self._until(self._shell, re.escape(prompt.rstrip()))
            if key := KEYS.get(line.removeprefix(prompt)):
                # Python misses a Ctrl-C between its prompt and its reading.
                deadline = time.monotonic() + PATIENCE
                while state(os.tcgetpgrp(self._shell.ours)) != "S":
                    assert time.monotonic() < deadline, command
                    time.sleep(0.01)
                self._shell.type(key)
            elif prompt or (escape and typing):
                self._shell.type(f"{line.removeprefix(prompt)}\n")
                typing = False
                self._until(self._shell, re.escape(line.removeprefix(prompt)) if escape else "")
            else:
                self._until(self._shell, f"{pattern(line)}\n")
                typing = True
        self._until(self._shell, re.escape(READY))

    def _appears(self, pattern: str) -> None:
        """Wait until `pattern` is printed by one of the commands in the background."""

        def appeared() -> bool:
            for screen in self._screens:
                if screen is not self._shell and (found := re.search(pattern, screen.text)):
                    screen.text = screen.text[found.end() :]
                    return True
            return False

        self._wait(appeared, pattern)

    def _until(self, screen: Screen, pattern: str) -> str:
        """Wait until `pattern` is on `screen`; forget and give all up to its end."""
        printed = ""

        def there() -> bool:
            nonlocal printed
            text = CONTROL.sub("", screen.text)
            if found := re.search(pattern, text):
                printed, screen.text = text[: found.end()], text[found.end() :]
            return found is not None

        self._wait(there, pattern)
        return printed

    def _wait(self, happened: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        by = {screen.ours: screen for screen in self._screens}
        while not happened():
            # All are read, or one that prints much would stand still.
            readable, _, _ = select.select(by, [], [], max(0.0, deadline - time.monotonic()))
            texts = "\n---\n".join(screen.text for screen in self._screens)
            assert readable and time.monotonic() < deadline, f"no {what!r} in:\n{texts}"
            for each in readable:
                by[each].read()


def inSession(leader: int) -> Iterator[int]:
    """Give the processes of a session that have not ended."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in "ZX":
                yield int(path.parent.name)


def state(process: int) -> str:
    """Give the letter of what a process does, `S` if it waits; see proc(5)."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def lacking(command: str) -> str:
    """Say what a command needs and this machine has not."""
    missing = [t for t in TOOLS if re.search(rf"\b{t}\b", command) and not shutil.which(t)]
    if missing:
        return " and ".join(missing)
    if re.search(r"\bnc\b", command) and "OpenBSD" not in said("nc", "-h"):
        return "OpenBSD's nc"
    if "raw:" in command and not allowed(socket.AF_PACKET, socket.SOCK_RAW):
        return "CAP_NET_RAW"
    if "unshare" in command and subprocess.run(["unshare", "--net", "true"]).returncode:
        return "CAP_SYS_ADMIN"
    if "::1" in command and not allowed(socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)):
        return "IPv6"
    return ""


def said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.stdout + done.stderr


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
    literal = re.escape(expected)
    anyLines = re.sub(r"^\\\.\\\.\\\.(\\\n|\n)", r"(?s:.*)", literal, flags=re.MULTILINE)
    return anyLines.replace(re.escape("..."), ".*")


class Reader:
    """Plays one page after the other; each has its session to its last block."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._page: Path | None = None
        self._closing = ExitStack()

    def session(self, page: Path) -> Session:
        if page != self._page:
            self.close()
            self._page = page
            self._session = Session(page, self._folders.mktemp("page"))
            self._closing.callback(self._session.close)
        return self._session

    def close(self) -> None:
        self._closing.close()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    made = Reader(tmp_path_factory)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    ("page", "number"),
    [
        pytest.param(page, number, id=block.name)
        for page in PAGES
        for number, block in enumerate(blocks(page), 1)
        if block.kind in ("console", "text")
    ],
)
def test_example(reader: Reader, page: Path, number: int) -> None:
    session = reader.session(page)
    if session.failed:
        pytest.skip(f"{session.failed} failed")
    skipped: list[str] = []
    # If only some are asked for, those before them all the same.
    for block in session.blocks[session.played : number]:
        session.failed = block.name
        skipped = session.play(block)
        session.failed = ""
        session.played += 1
    if skipped:
        pytest.skip("; ".join(skipped))


def test_readmes_set_up_and_test_by_the_same_commands() -> None:
    # .ci/run runs those of README.md.
    commands = [[block.text for block in blocks(page) if block.kind == "sh"] for page in PAGES]
    first = commands[0]
    assert len(first) == 2
    for page, found in zip(PAGES, commands, strict=True):
        assert found == (first if page.name.startswith("README") else []), page.name


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


def test_each_counter_is_in_the_one_table() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    table = text.partition("### Counters\n")[2].partition("\n### ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) != []
    assert {*re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)} == {*Counters().counts()}


def test_links_lead_to_files_and_headings() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^):]+)\)", page.read_text()):
            name, _, anchor = target.partition("#")
            file = page.parent / name if name else page
            assert file.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def anchors(page: Path) -> list[str]:
    """Give what GitHub calls the headings of a page in links."""
    text = FENCED.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in headings]


def test_the_picture_of_the_prompt_is_what_a_terminal_shows(tmp_path: Path) -> None:
    drawn = tmp_path / "prompt.svg"
    script = [sys.executable, str(ROOT / "scripts" / "picture.py"), str(drawn)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert drawn.read_text() == (ROOT / "docs" / "pictures" / "prompt.svg").read_text()


def units() -> dict[str, str]:
    """Give the systemd units that the pages show, by their file names."""
    found = (text for page in PAGES for kind, text in FENCED.findall(page.read_text()))
    named = re.compile(r"# /etc/systemd/system/(\S+)\n")
    return {name[1]: text for text in found if (name := named.match(text))}


def test_units_start_the_service_with_options_that_it_has(tmp_path: Path) -> None:
    text = units()["sockservice.service"]
    started = STARTED.search(text)
    assert started is not None
    (tmp_path / "deny").write_text("none\n")
    (tmp_path / "connections").write_text("10000\n")
    given = started[3].replace("\\\n", " ").split()
    options = Options()
    options.parseOptions([each.replace("/etc/sockservice", str(tmp_path)) for each in given])
    assert [each.partition("@")[2] for each in options["listen"]] == [
        "systemd:index=0",
        "systemd:index=1",
    ]
    ServerOptions().parseOptions(started[2].split())
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert stop is not None and int(stop[1]) > options["drain-timeout"]
    files = re.search(r"^LimitNOFILE=(\d+)$", text, re.MULTILINE)
    assert files is not None and int(files[1]) == options["max-connections"] + openfiles.OTHERS


@pytest.mark.parametrize("command", ["ship", "relay"])
def test_units_start_commands_with_options_that_they_have(command: str) -> None:
    text = units()[f"sockservice-{command}.service"]
    started = re.search(r"^ExecStart=\S+/sockservice ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert started is not None
    name, *words = shlex.split(started[1].replace("\\\n", " "))
    assert name == command
    found = main.get_command(click.Context(main), command)
    assert found is not None
    # What it says of %H, which the shell does not see, systemd has replaced.
    found.make_context(command, [each.replace("%H", "host") for each in words])
    # Two that take a session from each other would do so for ever.
    final = re.search(r"^RestartPreventExitStatus=(.+)$", text, re.MULTILINE)
    assert final is not None and {"1", "2", "5"} <= set(final[1].split())
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    drain = signature(ReliableSender).parameters["drainTimeout"].default
    assert stop is not None and int(stop[1]) > drain


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze not here")
@pytest.mark.parametrize("check", [["verify"], ["security", "--offline=yes", "--threshold=10"]])
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, check: list[str]) -> None:
    here = Path(sys.executable).parent
    version = re.match(r"systemd (\d+)", said("systemd-analyze", "--version"))
    assert version is not None
    for name, text in units().items():
        if int(version[1]) < 253:
            # As the page says.
            text = text.replace("Type=notify-reload\n", "Type=notify\n")
        started = re.sub(r"(?<=^ExecStart=)\S*/(?=\w+ )", f"{here}/", text, flags=re.M)
        (tmp_path / name).write_text(started)
    # What is reached from outside has to be shut in well.
    wanted = "*.service" if check == ["verify"] else "sockservice.service"
    service = [str(path) for path in tmp_path.glob(wanted)]
    done = subprocess.run(
        ["systemd-analyze", *check, *service], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert check != ["verify"] or done.stderr == ""
