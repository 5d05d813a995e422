"""`sockservice send` as whoever types it meets it: a process, its output and its exit status."""

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress

import pytest
from click.testing import CliRunner

from sockservice import __version__
from sockservice.cli import main
from sockservice.store.sqlite import SQLite
from tests.conftest import PATIENCE, SCRIPTS, Children, ClosedNumber, Service, signalled

Done = subprocess.CompletedProcess[bytes]


class Answering(threading.Thread):
    """A line server that does with one connection what the test says."""

    def __init__(self, does: Callable[[socket.socket], None]) -> None:
        super().__init__()
        self._does = does
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(PATIENCE)
        self.target = f"tcp:127.0.0.1:{self._socket.getsockname()[1]}"

    def run(self) -> None:
        with self._socket:
            connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(PATIENCE)
            self._does(connection)


Answer = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def answering(opened: ExitStack) -> Answer:
    """Start a server; give its target."""

    def started(does: Callable[[socket.socket], None]) -> str:
        server = Answering(does)
        server.start()
        opened.callback(server.join, PATIENCE)
        return server.target

    return started


def replies(*lines: bytes) -> Callable[[socket.socket], None]:
    """Answer the first lines so, then close."""

    def does(connection: socket.socket) -> None:
        with connection.makefile("rb") as received:
            for reply in lines:
                # A client that has what it wants may be gone by now.
                with suppress(ConnectionError):
                    received.readline()
                    connection.sendall(reply + b"\n")

    return does


def silence(connection: socket.socket) -> None:
    """Read to the end, however it comes; answer nothing."""
    with suppress(ConnectionResetError):
        while connection.recv(65536):
            pass


def tcp(service: Service) -> str:
    return f"tcp:127.0.0.1:{service.address[1]}"


def outcome(done: Done) -> tuple[int, bytes, str]:
    return done.returncode, done.stdout, done.stderr.decode()


# What is sent


def test_lines_given_as_arguments_are_acknowledged(children: Children, service: Service) -> None:
    done = children.run("sockservice", "send", tcp(service), "one", "", "caf\xe9 \udcff")
    assert outcome(done) == (0, b"ok\nok\nok\n", "")


@pytest.mark.parametrize(
    ("text", "lines"),
    [(b"", 0), (b"a\nb\r\n\n" + b"\0\xff\n\xfe" * 1000, 1004)],
)
def test_lines_from_a_pipe_are_acknowledged(
    children: Children, service: Service, text: bytes, lines: int
) -> None:
    done = children.run("sockservice", "send", tcp(service), input=text)
    assert outcome(done) == (0, b"ok\n" * lines, "")


def test_lines_from_a_file_are_acknowledged(children: Children, service: Service) -> None:
    path = children.folder / "lines"
    path.write_bytes(b"x" * 65536 + b"\n" + b"line\n" * 20_000)
    with path.open("rb") as file:
        done = children.run("sockservice", "send", tcp(service), stdin=file)
    assert outcome(done) == (0, b"ok\n" * 20_001, "")


def test_each_line_goes_out_while_the_next_is_awaited(children: Children, service: Service) -> None:
    process = children.start("sockservice", "send", tcp(service), stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    for _ in range(2):
        process.stdin.write(b"line\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ok\n"
    assert process.communicate(timeout=PATIENCE) == (b"", b"")
    assert process.returncode == 0


def test_datagrams_come_back(children: Children, service: Service) -> None:
    target = f"udp:127.0.0.1:{service.address[1]}"
    done = children.run("sockservice", "send", target, "one", "two", "")
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == [b"", b"one", b"two"]


# What is told


def test_lines_that_may_be_stored_all_the_same_are_refused_kept_and_told(
    children: Children, answering: Answer
) -> None:
    target = answering(replies(b"ok", b"error unknown: I/O error", b"error not stored: I/O error"))
    done = children.run("sockservice", "send", "--unacked", "rest", target, input=b"a\nb\nc\n")
    assert done.returncode == 1
    said = "sent 3, acknowledged 1: 2 refused, 1 of them may be stored; 2 lines are in rest\n"
    assert done.stderr.decode() == said
    assert (children.folder / "rest").read_bytes() == b"b\nc\n"


def test_a_refused_line_is_counted(children: Children, service: Service) -> None:
    done = children.run("sockservice", "send", tcp(service), input=b"a\n%b\nb\n" % (b"x" * 65537))
    assert outcome(done) == (
        1,
        b"ok\nerror line longer than 65536 bytes\nok\n",
        "sent 3, acknowledged 2: 1 refused\n",
    )


def test_a_server_that_closes_midway_is_told(children: Children, answering: Answer) -> None:
    done = children.run("sockservice", "send", answering(replies(b"ok")), "a", "b", "c")
    status, printed, said = outcome(done)
    assert (status, printed) == (1, b"ok\n")
    assert said.startswith("sent 3, acknowledged 1: connection lost")
    assert said.count("\n") == 1


def test_a_server_that_closes_is_noticed_before_the_next_line(
    children: Children, answering: Answer
) -> None:
    process = children.start(
        "sockservice", "send", answering(replies(b"ok")), stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(b"a\n")
    process.stdin.flush()
    assert process.wait(PATIENCE) == 1
    assert process.stderr is not None
    assert process.stderr.read() == (
        b"sent 1, acknowledged 1: the server closed the connection before the end of the input\n"
    )


def test_a_reply_that_does_not_come_in_time_is_told(children: Children, answering: Answer) -> None:
    done = children.run("sockservice", "send", "--timeout", "0.1", answering(silence), "a", "b")
    said = "no reply within 0.1 seconds; lines 1 to 2 are unacknowledged"
    assert outcome(done) == (4, b"", f"sent 2, acknowledged 0: {said}\n")


def test_nobody_listening_is_status_3(children: Children, closed_number: ClosedNumber) -> None:
    target = f"tcp:127.0.0.1:{closed_number(socket.SOCK_STREAM)}"
    done = children.run("sockservice", "send", target, "a")
    assert outcome(done) == (3, b"", f"could not connect to {target}: Connection refused\n")


def test_nobody_listening_for_datagrams_is_told_at_once(
    children: Children, closed_number: ClosedNumber
) -> None:
    target = f"udp:127.0.0.1:{closed_number(socket.SOCK_DGRAM)}"
    status, printed, said = outcome(children.run("sockservice", "send", target, "a", "b"))
    assert (status, printed) == (3, b"")
    assert said.startswith("sent 2, acknowledged 0: ")
    assert "nobody listens there" in said


def test_a_name_without_an_address_is_status_3(children: Children) -> None:
    """RFC 6761 keeps `.invalid` from ever having an address."""
    done = children.run("sockservice", "send", "udp:nowhere.invalid:5555", "a")
    status, printed, said = outcome(done)
    assert (status, printed) == (3, b"")
    assert said.startswith("could not connect to udp:nowhere.invalid:5555: ")
    assert said.count("\n") == 1


def test_what_is_no_target_is_status_2(children: Children) -> None:
    done = children.run("sockservice", "send", "tcp:127.0.0.1:0", "a")
    assert outcome(done) == (2, b"", "tcp:127.0.0.1:0: '127.0.0.1:0' is not HOST:PORT\n")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["send", "tcp:127.0.0.1:5555", "two\nlines"], "a line holds no line feed"),
        (["send", "--timeout", "0", "tcp:127.0.0.1:5555"], "'--timeout'"),
        (["send"], "Missing argument 'TARGET'"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_bad_usage_is_status_2(arguments: list[str], why: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert why in done.stderr.splitlines()[-1]


def test_bad_usage_is_told_in_one_line(children: Children) -> None:
    done = children.run("sockservice", "send", "--nonsense", "127.0.0.1:5")
    # In click's words, which change.
    assert re.fullmatch("sockservice send: No such option.*--nonsense.*\n", outcome(done)[2])
    assert outcome(done)[:2] == (2, b"")


@pytest.mark.parametrize("command", [["--help"], ["man"], ["completion", "fish"]])
def test_what_cannot_be_printed_is_told_in_one_line(children: Children, command: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = children.run("sockservice", *command, stdout=full)
    assert (done.returncode, done.stderr) == (1, b"standard output: No space left on device\n")


@pytest.mark.parametrize("when", ["click", "twisted", "sockservice.cli.send.command"])
def test_ctrl_c_while_it_starts_is_told_in_one_line(children: Children, when: str) -> None:
    program = signalled(when, signal.SIGINT)
    done = children.run(sys.executable, "-c", program, "send", "127.0.0.1:5", "a")
    assert outcome(done) == (130, b"", "interrupted\n")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("send {target} a", "sent [01], .*\n"),
        ("ping {target} -c 1", ""),
        ("bench {target} -n 1", "answered 0 lines .*\n"),
        ("lines kept.db", "0 lines\n"),
        ("verify kept.db", "checking .*\n"),
        ("man", ""),
    ],
)
def test_sigquit_while_it_starts_ends_nothing(
    children: Children, service: Service, command: str, told: str
) -> None:
    with closing(SQLite(str(children.folder / "kept.db"))) as store:
        store.open()
    program = signalled("click", signal.SIGQUIT)
    words = command.format(target=f"127.0.0.1:{service.address[1]}").split()
    done = children.run(sys.executable, "-c", program, *words)
    assert done.returncode == 0, done
    assert re.fullmatch(told, done.stderr.decode())


def test_the_version_is_told() -> None:
    done = CliRunner().invoke(main, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"sockservice, version {__version__}\n")


# Where replies go

RAW = b"\x1b[31mred\x07 \xff caf\xc3\xa9"


def test_replies_come_out_as_they_are(children: Children, answering: Answer) -> None:
    done = children.run("sockservice", "send", answering(replies(RAW)), "a")
    assert outcome(done) == (0, RAW + b"\n", "")


def test_replies_cannot_command_a_terminal(
    children: Children, answering: Answer, opened: ExitStack
) -> None:
    ours, theirs = pty.openpty()
    opened.callback(os.close, ours)
    with closing(os.fdopen(theirs, "wb", buffering=0)) as terminal:
        done = children.run("sockservice", "send", answering(replies(RAW)), "a", stdout=terminal)
    assert done.returncode == 0
    printed = os.read(ours, 65536)
    assert printed == rb"\x1b[31mred\x07 \xff caf" + b"\xc3\xa9\r\n"


@pytest.mark.parametrize("length", [2, 1000])
def test_replies_that_nobody_reads_are_told(
    children: Children, answering: Answer, length: int
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    target = answering(replies(*[b"x" * length] * 100))
    try:
        done = children.run("sockservice", "send", target, input=b"line\n" * 100, stdout=writing)
    finally:
        os.close(writing)
    assert done.returncode == 1
    [said] = done.stderr.decode().splitlines()
    assert "Broken pipe" in said


def test_replies_that_cannot_be_written_are_told(children: Children, answering: Answer) -> None:
    target = answering(replies(*[b"x" * 1000] * 100))
    with open("/dev/full", "wb") as full:
        done = children.run("sockservice", "send", target, input=b"line\n" * 100, stdout=full)
    assert done.returncode == 1
    [said] = done.stderr.decode().splitlines()
    assert "No space left on device" in said


def test_without_a_standard_input_lines_are_asked_for(children: Children) -> None:
    closed = f"exec {SCRIPTS}/sockservice send 127.0.0.1:1 <&-"
    said = "sockservice send: standard input is closed; give lines as arguments\n"
    assert outcome(children.run("/bin/sh", "-c", closed)) == (2, b"", said)
