"""`sockservice ship`, run as a user runs it."""

import json
import os
import re
import signal
import sqlite3
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from sockservice.cli import main
from sockservice.cli.progress import fitted
from tests.certificates import Identity
from tests.conftest import SCRIPTS, Child, Children
from tests.terminal import OnTerminal


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["127.0.0.1:1", "--session", "x"], "Missing argument 'PATH...'"),
        (["127.0.0.1:1", "a.log"], "Missing option '--session'"),
        (["127.0.0.1:1", "--session", "a b", "*.log"], "bad name of a session: 'a b'"),
        (["udp:127.0.0.1:1", "--session", "x", "a.log"], "datagrams have none"),
        (["127.0.0.1:1", "--session", "x", "--greeting", "a.log"], "--greeting is not for"),
        (["127.0.0.1:1", "--session", "x", "--rate", "0", "a.log"], "greater than 0"),
        (["127.0.0.1:1", "--session", "x", "--from", "now", "a.log"], "'now' is not one of"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], why: str) -> None:
    result = CliRunner().invoke(main, ["ship", *arguments])
    assert result.exit_code == 2
    assert why in result.output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "--follow needs --session NAME"),
        (["--session", "x", "--quiet"], "--quiet is not for --follow"),
        (["--session", "x", "line"], "LINES is not for --follow"),
        (["--session", "x", "--file", "/dev/null"], "--file is not for --follow"),
        (["--session", "x", "--greeting"], "--greeting is not for sessions"),
    ],
)
def test_send_that_follows_says_what_is_wrong(arguments: list[str], why: str) -> None:
    result = CliRunner().invoke(main, ["send", "127.0.0.1:1", "--follow", "a.log", *arguments])
    assert result.exit_code == 2
    assert why in result.output


#: Bounds the descriptors that the command behind it may have at first.
LIMITED = """
import os, resource, sys
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), most))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Ground:
    """A server of sessions, and a folder with logs."""

    def __init__(self, children: Children, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "lines.db"
        self._children = children
        self._target = f"unix:{folder / 's'}"
        self.server = Child(
            children.start(
                *("twistd", "-n", "--pidfile=", "sockservice", "--store", f"sqlite:{self.store}"),
                *("--listen", f"session@{self._target}"),
            )
        )
        self.server.until(b"session listening on")

    def ship(self, *arguments: str, target: str = "", files: int = 0) -> "Shipped":
        command = ["sockservice", "ship", target or self._target, "--session", "web", "--json"]
        if files:
            # As many as it may have open until it asks for more.
            command[:1] = [sys.executable, "-c", LIMITED, str(files), str(SCRIPTS / command[0])]
        return Shipped(self._children.start(*command, *arguments, cwd=self.folder))

    def follow(self, path: str) -> "Shipped":
        command = ["sockservice", "send", self._target, "--session", "web", "--json"]
        return Shipped(self._children.start(*command, "--follow", path, cwd=self.folder))

    def write(self, name: str, *lines: str) -> None:
        with (self.folder / name).open("a") as file:
            file.write("".join(line + "\n" for line in lines))

    def session(self, name: str) -> str:
        """Give the name of a file's session, in which a blank in its path is no blank."""
        return f"web:{quote(str(self.folder / name))}"

    @property
    def lines(self) -> list[str]:
        with closing(sqlite3.connect(self.store)) as base:
            return [line.decode() for (line,) in base.execute("SELECT line FROM lines ORDER BY id")]

    def stored(self, count: int) -> list[str]:
        """Wait until so many lines are stored."""
        follow = self._children.run(
            *("sockservice", "lines", "--follow", "--limit", str(count), str(self.store))
        )
        return follow.stdout.decode().splitlines()


class Shipped(Child):
    """A shipper that prints JSON."""

    def event(self, kind: str) -> dict[str, Any]:
        found = self.until(rb'\{"event": "%s".*\}\n' % kind.encode())
        self.output = self.output[found.end() :]
        said: dict[str, Any] = json.loads(found[0].splitlines()[-1])
        return said

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, dict[str, Any]]:
        self.process.send_signal(number)
        status, errors = self.end()
        return status, errors.decode(), json.loads(self.output.splitlines()[-1])


@pytest.fixture
def ground(children: Children, tmp_path: Path) -> Ground:
    return Ground(children, tmp_path)


@pytest.mark.parametrize(
    ("number", "status", "why"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_it_ships_until_a_signal_and_goes_on_later(
    ground: Ground, number: int, status: int, why: str
) -> None:
    ground.write("a.log", "one", "two")
    shipped = ground.ship("a.log")
    session = ground.session("a.log")
    opened = shipped.event("opened")
    assert (opened["session"], opened["new"], opened["position"]) == (session, True, 0)
    assert ground.stored(2) == ["one", "two"]
    ended, said, total = shipped.stop(number)
    assert (ended, said) == (status, f"shipped 2 lines: {why}\n")
    assert (total["acknowledged"], total["unacknowledged"], total["status"]) == (2, 0, status)
    os.rename(ground.folder / "a.log", ground.folder / "a.log.1")
    ground.write("a.log", "three")
    shipped = ground.ship("a.log")
    assert shipped.event("opened")["position"] == 2
    assert ground.stored(3) == ["one", "two", "three"]
    shipped.stop()


def test_send_follows_one_file_as_ship_does(ground: Ground) -> None:
    ground.write("a.log", "one")
    shipped = ground.follow("a.log")
    assert shipped.event("opened")["session"] == ground.session("a.log")
    assert ground.stored(1) == ["one"]
    shipped.stop()
    ground.write("a.log", "two")
    shipped = ground.ship("a.log")
    assert shipped.event("opened")["position"] == 1
    assert ground.stored(2) == ["one", "two"]
    shipped.stop()


def test_a_file_that_is_gone(ground: Ground) -> None:
    ground.write("a.log", "one")
    shipped = ground.ship("a.log")
    ground.stored(1)
    shipped.stop()
    os.unlink(ground.folder / "a.log")
    ground.write("b", "two")
    os.rename(ground.folder / "b", ground.folder / "a.log")
    status, errors = ground.ship("a.log").end()
    assert status == 5
    assert errors.decode() == (
        f"shipped 0 lines: the file that session {ground.session('a.log')} was in is gone: "
        "lines behind its position 1 may be missing\n"
    )
    shipped = ground.ship("a.log", "--gone", "continue")
    assert ground.stored(2) == ["one", "two"]
    shipped.stop()


def test_more_files_than_may_be_open_at_first(ground: Ground) -> None:
    for number in range(60):
        ground.write(f"{number}.log", str(number))
    shipped = ground.ship("*.log", files=64)
    assert sorted(ground.stored(60), key=int) == [str(number) for number in range(60)]
    assert shipped.stop()[0] == 143


def test_what_files_have_had_counts_when_they_are_there_no_more(ground: Ground) -> None:
    ground.write("a.log", "one", "two")
    shipped = ground.ship("*.log")
    ground.stored(2)
    (ground.folder / "a.log").unlink()
    said = shipped.event("file")
    assert said["said"] == "a.log is there no more, and all of it is stored"
    _, errors, ended = shipped.stop()
    assert (ended["files"], ended["acknowledged"]) == (1, 2)
    assert errors == "shipped 2 lines: terminated\n"


def test_sighup_looks_for_new_files(ground: Ground) -> None:
    ground.write("a.log", "one")
    shipped = ground.ship("*.log")
    assert ground.stored(1) == ["one"]
    ground.write("b.log", "two")
    shipped.process.send_signal(signal.SIGHUP)
    assert shipped.event("opened")["path"].endswith("log")
    assert ground.stored(2) == ["one", "two"]
    shipped.stop()


def test_sigquit_has_it_say_how_far_it_is(ground: Ground) -> None:
    ground.write("a.log", "one")
    shipped = ground.ship("a.log")
    ground.stored(1)
    shipped.process.send_signal(signal.SIGQUIT)
    assert re.fullmatch(rb"shipped (0 lines|1 line)\n", shipped.complaint())
    ground.write("a.log", "two")
    assert ground.stored(2) == ["one", "two"]
    shipped.stop()


def test_json_tells_how_far_each_file_is(ground: Ground) -> None:
    ground.write("a.log", "one", "two")
    ground.write("b.log", "three")
    shipped = ground.ship("a.log", "b.log")
    ground.stored(3)
    ends = {"a.log": (8, 2), "b.log": (6, 1)}
    rates: dict[str, list[float]] = {path: [] for path in ends}
    while ends:
        told = shipped.event("progress")
        path, rate = told["path"], told["rate"]
        rates[path].append(rate)
        if (told["offset"], told["position"]) == ends.get(path) and not rate:
            assert (told["file"], told["behind"], told["late"]) == (path, 0, 0)
            del ends[path]
    assert all(max(each) > 0 for each in rates.values())
    shipped.stop()


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (79, "1.5 MB, 12 s behind  9 files  app.log at 1,234,567  2.0 klines/s"),
        (39, "1.5 MB, 12 s behind"),
        (19, "1.5 MB, 12 s behind"),
        (9, "1.5 MB, 1"),
        (-1, ""),
    ],
)
def test_a_narrow_terminal_shows_how_late_it_is(room: int, expected: str) -> None:
    parts = ["1.5 MB, 12 s behind", "9 files  app.log at 1,234,567", "2.0 klines/s"]
    assert fitted([*parts, "1,000 acknowledged"], room) == expected


def test_a_server_that_is_not_trusted(children: Children, tmp_path: Path, server: Identity) -> None:
    (tmp_path / "a.log").write_text("one\n")
    files = f"certKey={server.certKey}:privateKey={server.privateKey}"
    serving = Child(
        children.start(
            *("twistd", "-n", "--pidfile=", "sockservice", "--store", f"sqlite:{tmp_path}/l.db"),
            *("--listen", f"session@ssl:0:interface=127.0.0.1:{files}"),
        )
    )
    port = int(serving.until(rb"session listening on ssl:127.0.0.1:(\d+)")[1])
    done = children.run(
        *("sockservice", "ship", f"tls:127.0.0.1:{port}", "--session", "web", "a.log"),
        cwd=tmp_path,
    )
    # To be told from a session that can't go on, so that the unit of docs/shipping.md tries again.
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1), done.stderr


def test_a_server_that_is_not_there_yet(ground: Ground) -> None:
    ground.write("a.log", "one")
    none = f"unix:{ground.folder}/none"
    shipped = ground.ship("a.log", target=none)
    assert "could not connect" in shipped.event("retrying")["why"]
    status, said, _ = shipped.stop()
    assert (status, said) == (143, "shipped 0 lines: terminated\n")
    # There may be another way.
    shipped = ground.ship("a.log", target=f"{none},unix:{ground.folder}/s")
    assert ground.stored(1) == ["one"]
    shipped.stop()


def test_how_far_a_file_is_that_is_not_opened_yet_is_not_said(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("one\n")
    command = f"sockservice ship unix:{tmp_path / 'none'} --session web a.log"
    with ExitStack() as opened:
        terminal = OnTerminal(command.split(), opened, tmp_path)
        terminal.until("trying again.*not opened yet  a.log at 0  0 lines/s")
        assert "behind" not in terminal.whole


def test_a_listener_without_sessions(children: Children, ground: Ground) -> None:
    other = f"unix:{ground.folder}/ack"
    Child(
        children.start("twistd", "-n", "--pidfile=", "sockservice", "--listen", f"ack@{other}")
    ).until(b"ack listening on")
    ground.write("a.log", "one")
    status, errors = ground.ship("a.log", target=other).end()
    assert status == 1
    assert errors == (
        b"shipped 0 lines: the server knows no sessions: it answered ok to the opening line"
        b", which it may have stored\n"
    )


@pytest.mark.parametrize("target", ["tcp:x", "nothing:at:all"])
def test_no_such_target(ground: Ground, target: str) -> None:
    ground.write("a.log", "one")
    status, errors = ground.ship("a.log", target=target).end()
    assert (status, len(errors.splitlines())) == (2, 1)


def test_a_path_that_is_too_long(ground: Ground) -> None:
    status, errors = ground.ship("x" * 250).end()
    assert (status, len(errors.splitlines())) == (2, 1)
    assert b"its session's name would have" in errors


@pytest.mark.parametrize("where", ["begin", "end"])
def test_a_log_that_is_no_regular_file(ground: Ground, where: str) -> None:
    (ground.folder / "a.log").mkdir()
    shipped = ground.ship("a.log", "--from", where)
    shipped.event("opened")
    assert "no regular file" in shipped.event("file")["said"]
    shipped.stop()
