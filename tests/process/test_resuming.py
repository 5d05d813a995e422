"""`sockservice send --session` against real servers: where it goes on, and why it stops."""

import shutil
import signal
import subprocess
from pathlib import Path
from random import Random

import pytest

from tests.conftest import PATIENCE, Child, Children
from tests.process.test_sessions import Server, heard, stored
from tests.soak import carried

SENT = [b"%d" % number for number in range(500)]


class Resumed:
    """A store, a file, and who sends the one into the other."""

    def __init__(self, children: Children, folder: Path) -> None:
        self._children = children
        self.store = folder / "lines.db"
        self.file = folder / "input.txt"
        self.serve()

    def serve(self, *options: str) -> None:
        self.server = Server(self._children, self.store, *options)

    def stop(self) -> None:
        self.server.process.terminate()
        assert self.server.end() == (0, b"")

    def write(self, lines: list[bytes]) -> None:
        self.file.write_bytes(b"".join(line + b"\n" for line in lines))

    def send(self, *options: str, **how: object) -> "subprocess.CompletedProcess[bytes]":
        words = ("sockservice", "send", "--quiet", "--session", "demo", *options)
        given = () if "input" in how else ("--file", str(self.file))
        return self._children.run(*words, *given, self.server.address, **how)

    def start(self, *options: str) -> "subprocess.Popen[bytes]":
        """Start a sender whose input is a pipe."""
        words = ("sockservice", "send", "--quiet", "--session", "demo", *options)
        return self._children.start(*words, self.server.address, stdin=subprocess.PIPE)


@pytest.fixture
def resumed(children: Children, tmp_path: Path) -> Resumed:
    made = Resumed(children, tmp_path)
    made.write(SENT)
    done = made.send()
    assert (done.returncode, done.stderr) == (0, b"session demo is new\n")
    return made


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            [*SENT[:17], b"seventeen", *SENT[18:], b"more"],
            b"the first 500 lines of the input are not those that are stored in session demo: "
            b"it is another, or was edited",
        ),
        (
            SENT[:400],
            b"500 lines of session demo are stored, and the input has 400: is it the right one?",
        ),
        ([], b"500 lines of session demo are stored, and the input has 0: is it the right one?"),
    ],
)
def test_an_input_that_was_edited_or_shortened_is_noticed_before_anything_is_sent(
    resumed: Resumed, lines: list[bytes], said: bytes
) -> None:
    resumed.write(lines)
    done = resumed.send()
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert stored(resumed.store) == SENT


def test_a_sender_that_did_not_see_an_older_copy_restored_goes_on_from_there(
    resumed: Resumed, tmp_path: Path
) -> None:
    resumed.stop()
    shutil.copy(resumed.store, tmp_path / "copy.db")
    resumed.serve()
    resumed.write([*SENT, b"a", b"b"])
    assert resumed.send().returncode == 0
    resumed.stop()
    shutil.copy(tmp_path / "copy.db", resumed.store)
    resumed.serve()
    done = resumed.send()
    assert (done.returncode, done.stderr) == (0, b"session demo goes on behind line 500\n")
    assert stored(resumed.store) == [*SENT, b"a", b"b"]


@pytest.mark.parametrize("option", ["--resend", ""])
def test_a_sender_that_remembers_says_which_lines_a_restored_copy_lacks(
    children: Children, tmp_path: Path, option: str
) -> None:
    store, listening = tmp_path / "lines.db", f"unix:{tmp_path}/socket"
    server = Server(children, store, endpoint=listening)
    assert heard(server.connect(), b"session/1 demo\n0\n").endswith(b"\nok\n")
    server.process.terminate()
    assert server.end() == (0, b"")
    shutil.copy(store, tmp_path / "copy.db")
    server = Server(children, store, endpoint=listening)
    # One that still sends when the store is restored; a pipe can't be read again.
    lines = tmp_path / "input.txt"
    lines.write_bytes(b"".join(b"%d\n" % number for number in range(300)))
    words = ["sockservice", "send", "--session", "demo", "--quiet", "--rate", "100"]
    words += ["--file", str(lines), *([option] if option else [])]
    sender = children.start(*words, listening)
    watch = 0
    while watch < 20:
        watch = len(stored(store))
    server.kill()
    for name in (store, Path(f"{store}-wal"), Path(f"{store}-shm")):
        name.unlink(missing_ok=True)
    shutil.copy(tmp_path / "copy.db", store)
    server = Server(children, store, endpoint=listening)
    _, said = sender.communicate(timeout=PATIENCE)
    assert b"are no longer in the store" in said
    if option:
        assert sender.returncode == 0, said
        assert stored(store) == [b"%d" % number for number in range(300)]
    else:
        assert sender.returncode == 1
        assert b"; to send them again, run it again, or with --resend" in said
        assert stored(store) == [b"0"]


def test_of_a_store_that_was_emptied_it_is_said_that_the_session_is_new(
    resumed: Resumed, tmp_path: Path
) -> None:
    resumed.stop()
    resumed.store.unlink()
    resumed.serve()
    done = resumed.send()
    assert (done.returncode, done.stderr) == (0, b"session demo is new\n")
    assert stored(resumed.store) == SENT


def test_a_session_that_has_to_be_new_and_is_not_is_refused(resumed: Resumed) -> None:
    done = resumed.send("--session-new")
    assert done.returncode == 1
    assert b"error session: its position is 500, not 0" in done.stderr
    assert stored(resumed.store) == SENT


def test_the_older_of_two_senders_is_told_and_stops(children: Children, tmp_path: Path) -> None:
    resumed = Resumed(children, tmp_path)
    older = resumed.start("--continue")
    assert older.stdin is not None
    older.stdin.write(b"a\n")
    older.stdin.flush()
    while stored(resumed.store) != [b"a"]:
        pass
    done = resumed.send("--continue", input=b"b\n")
    assert (done.returncode, done.stderr) == (0, b"session demo goes on behind line 1\n")
    # Its input is open, and it stops all the same.
    status, said = older.wait(PATIENCE), older.stderr and older.stderr.read()
    assert status == 1
    assert said is not None
    assert b"error session: taken over by 127.0.0.1:" in said
    assert b"; this sender stops" in said
    assert stored(resumed.store) == [b"a", b"b"]


def test_a_live_source_goes_on_where_the_session_ends(resumed: Resumed) -> None:
    for line in (b"x", b"y"):
        assert resumed.send("--continue", input=line + b"\n").returncode == 0
    assert stored(resumed.store) == [*SENT, b"x", b"y"]


def test_lines_that_are_too_long_are_kept_and_the_same_at_each_run(
    children: Children, tmp_path: Path
) -> None:
    resumed = Resumed(children, tmp_path)
    long = b"x" * 70_000
    resumed.write([b"a", long, b"b"])
    unacked = tmp_path / "unacked"
    done = resumed.send("--unacked", str(unacked))
    assert done.returncode == 1
    assert unacked.read_bytes() == long + b"\n"
    resumed.write([b"a", long, b"b", b"c"])
    unacked.unlink()
    done = resumed.send("--unacked", str(unacked))
    assert done.returncode == 1
    assert b"session demo goes on behind line 2\n" in done.stderr
    assert stored(resumed.store) == [b"a", b"b", b"c"]


def test_a_session_on_an_ack_port_is_said_not_to_be_known(
    children: Children, tmp_path: Path
) -> None:
    words = ("--listen", "ack@tcp:0:interface=127.0.0.1", "--store", f"sqlite:{tmp_path}/a.db")
    child = Child(children.start("twistd", "-n", "--pidfile=", "sockservice", *words))
    port = child.until(rb"ack listening on tcp:127.0.0.1:(\d+)\n")[1].decode()
    done = children.run(
        *("sockservice", "send", "--quiet", "--session", "demo", f"127.0.0.1:{port}"),
        input=b"a\nb\n",
    )
    assert done.returncode == 1
    assert b"it answered ok to the opening line, which it may have stored\n" in done.stderr
    shown = children.run("sockservice", "lines", f"{tmp_path}/a.db")
    assert shown.stdout == b"session/1 demo\n"


@pytest.mark.parametrize("first", [b"hello\n", b"\n", b"session/2 demo\n", b"\xff\n", b"x y\nz\n"])
def test_whoever_speaks_no_session_is_told_so_and_nothing_is_stored(
    children: Children, tmp_path: Path, first: bytes
) -> None:
    server = Server(children, tmp_path / "lines.db")
    said = heard(server.connect(), first)
    assert said.startswith(b"error session: ")
    assert said.count(b"\n") == 1
    assert stored(tmp_path / "lines.db") == []


def test_a_sender_that_is_killed_goes_on(children: Children, tmp_path: Path) -> None:
    resumed = Resumed(children, tmp_path)
    resumed.write(SENT)
    words = ("sockservice", "send", "--quiet", "--session", "demo", "--rate", "500")
    sender = children.start(*words, "--file", str(resumed.file), resumed.server.address)
    while len(stored(resumed.store)) < 20:
        pass
    sender.send_signal(signal.SIGKILL)
    sender.wait()
    done = resumed.send()
    assert done.returncode == 0
    assert done.stderr.startswith(b"session demo goes on behind line ")
    assert stored(resumed.store) == SENT


def test_whatever_is_killed_each_line_of_a_file_is_stored_once(
    children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carried, "COUNT", 3000)
    monkeypatch.setattr(carried, "RATE", 3000)
    carried.carried(children, tmp_path / "lines.db", Random(3), "round")
