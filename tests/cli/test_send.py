"""`sockservice send` where it goes wrong: retries, what is kept, signals, foreign servers."""

import base64
import fcntl
import json
import math
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from time import monotonic

import pytest
from click.testing import CliRunner

from sockservice.cli import main
from sockservice.cli.progress import Bar, drawn, timed
from sockservice.cli.send.source import LINE_LIMIT
from sockservice.cli.send.unacked import Unacked
from sockservice.cli.send.window import window
from tests.cli.test_cli import Answer, answering, outcome, replies, silence, tcp
from tests.conftest import PATIENCE, SCRIPTS, Child, Children, ClosedNumber, Service
from tests.ports import reserved

__all__ = ["answering"]


# The lines


def test_lines_of_several_files_are_sent_in_their_order(
    children: Children, answering: Answer
) -> None:
    (children.folder / "one").write_bytes(b"a\nb")
    (children.folder / "two").write_bytes(b"c\r\n")
    heard: list[bytes] = []

    def does(connection: socket.socket) -> None:
        with connection.makefile("rb") as received:
            for _ in range(4):
                heard.append(received.readline())
                connection.sendall(b"ok\n")

    files = ["--file", "one", "--file", "-", "--file", "two"]
    done = children.run("sockservice", "send", "--crlf", *files, answering(does), input=b"in")
    assert outcome(done) == (0, b"ok\n" * 4, "")
    assert heard == [b"a\r\n", b"b\r\n", b"in\r\n", b"c\r\n"]


def test_a_line_too_long_for_memory_is_told(children: Children, service: Service) -> None:
    zeros = os.open("/dev/zero", os.O_RDONLY)
    try:
        done = children.run("sockservice", "send", tcp(service), stdin=zeros)
    finally:
        os.close(zeros)
    status, printed, said = outcome(done)
    assert (status, printed) == (1, b"")
    assert said.startswith("sent 0, acknowledged 0: standard input: a line is longer than ")
    assert f"{LINE_LIMIT} bytes" in said


def test_a_rate_spreads_lines_over_time(children: Children, service: Service) -> None:
    options = ["--rate", "100", "--json"]
    done = children.run("sockservice", "send", *options, tcp(service), input=b"x\n" * 20)
    sum_ = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0
    # 20 lines, but for those that may come at once.
    assert sum_["seconds"] >= 0.1


# What comes out


def test_quiet_prints_refusals_only(children: Children, answering: Answer) -> None:
    target = answering(replies(b"ok", b"error no", b"ok"))
    done = children.run("sockservice", "send", "--quiet", target, "a", "b", "c")
    assert outcome(done) == (1, b"error no\n", "sent 3, acknowledged 2: 1 refused\n")


def test_json_gives_each_reply_and_a_sum(children: Children, answering: Answer) -> None:
    target = answering(replies(b"ok", b"\xff", b"error no"))
    done = children.run("sockservice", "send", "--json", target, "a", "b", "c")
    *each, sum_ = map(json.loads, done.stdout.splitlines())
    took = [one.pop("seconds") for one in [*each, sum_]]
    assert all(0 <= one < PATIENCE for one in took)
    assert each == [
        {"line": 1, "reply": "ok"},
        {"line": 2, "reply_base64": base64.b64encode(b"\xff").decode()},
        {"line": 3, "reply": "error no"},
    ]
    assert sum_ == {
        "sent": 3,
        "acknowledged": 2,
        "refused": 1,
        "unacknowledged": 0,
        "unasked": 0,
        "status": 1,
        "why": "1 refused",
    }


def test_lines_nobody_asked_for_are_told(children: Children, answering: Answer) -> None:
    def does(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"ok\nand\x1b\nmore\n")
        silence(connection)

    done = children.run("sockservice", "send", answering(does), "a")
    status, printed, said = outcome(done)
    assert (status, printed) == (1, b"ok\n")
    assert said.splitlines() == [
        r"unasked: and\x1b",
        "unasked: more",
        "sent 1, acknowledged 1: 2 lines came that nobody asked for",
    ]


def test_a_bar_grows_on_a_terminal_and_leaves_nothing(
    children: Children, answering: Answer, opened: ExitStack
) -> None:
    ours, theirs = pty.openpty()
    terminal = opened.enter_context(os.fdopen(ours, "rb", buffering=0))
    environment = os.environ | {"TERM": "xterm"}

    def does(connection: socket.socket) -> None:
        with connection.makefile("rb") as received:
            received.readline()
            connection.sendall(b"ok\n")
            seen = b""
            while b"1 line " not in seen:
                seen += terminal.read(1000)
            assert re.search(rb"50% \[#+-+\] 1 line  2 B .* left  1 unacknowledged", seen)
            connection.sendall(b"ok\n")
            silence(connection)

    with closing(os.fdopen(theirs, "wb", buffering=0)) as written:
        options = ["--rate", "1000", answering(does), "a", "b"]
        process = children.start("sockservice", "send", *options, stderr=written, env=environment)
        assert process.wait(PATIENCE) == 0
    left = terminal.read(10_000)
    assert left.endswith(b"\r\x1b[K")


@pytest.mark.parametrize(("term", "there"), [("xterm", True), ("dumb", False), (None, False)])
def test_a_dumb_terminal_has_no_bar(
    opened: ExitStack, monkeypatch: pytest.MonkeyPatch, term: str | None, there: bool
) -> None:
    ours, theirs = pty.openpty()
    opened.callback(os.close, ours)
    if term is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", term)
    with closing(os.fdopen(theirs, "w")) as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        bar = Bar()
        bar.show("here")
        bar.clear()
        monkeypatch.undo()
        # So that there is something to wait for.
        stderr.write("end")
        stderr.flush()
        written = b""
        while not written.endswith(b"end"):
            written += os.read(ours, 100)
    assert (bar.there, written[:-3]) == (there, b"\r\x1b[Khere\r\x1b[K" if there else b"")


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (80, "[##########" + " " * 30 + "] 2.5 of 10 s, 1,500 answered"),
        (40, "[##       ] 2.5 of 10 s, 1,500 answered"),
        (20, "2.5 of 10 s"),
    ],
)
def test_the_bar_of_a_measurement_fits_its_terminal(width: int, expected: str) -> None:
    assert timed(1500, 2.5, 10.0, width) == expected
    assert len(expected) < width


@pytest.mark.parametrize(
    ("total", "width", "expected"),
    [
        (None, 80, "1,500 lines  12.0 kB  150 lines/s  3 unacknowledged"),
        (
            24_000,
            100,
            " 50% [##############---------------] "
            "1,500 lines  12.0 kB  150 lines/s  0:10 left  3 unacknowledged",
        ),
        (24_000, 20, " 50% 1,500 lines"),
        (24_000, 40, " 50% 1,500 lines  12.0 kB  150 lines/s"),
        (
            48_000_000,
            80,
            "  0% [-----] 1,500 lines  12.0 kB  150 lines/s  11:06:30 left  3 unacknowledged",
        ),
    ],
)
def test_the_bar_fits_its_terminal(total: int | None, width: int, expected: str) -> None:
    assert drawn(1500, 12_000, total, 10.0, 3, width) == expected


@pytest.mark.parametrize(
    ("shortest", "fastest", "expected"),
    [
        (math.inf, 0.0, 65536),
        (0.001, 1e9, 65536),
        (0.1, 1e5, 65536),
        (0.1, 1e6, 200_000),
        (1.0, 1e9, 16 * 1024 * 1024),
    ],
)
def test_a_long_way_is_filled(shortest: float, fastest: float, expected: float) -> None:
    assert window(shortest, fastest) == expected


# What is kept


def test_what_has_no_reply_is_kept_to_be_sent_again(children: Children, answering: Answer) -> None:
    """Refused, unanswered, and not even sent, of files to their end; as the bytes they are."""
    lines = [b"%06d\xff" % number for number in range(200_000)]
    lines[3] = b"carriage return\r"
    path = children.folder / "lines"
    path.write_bytes(b"\n".join([*lines[:3], lines[3] + b"\r", *lines[4:]]))

    def does(connection: socket.socket) -> None:
        with connection.makefile("rb") as received:
            for reply in (b"ok", b"error no", b"ok"):
                received.readline()
                connection.sendall(reply + b"\n")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    options = ["--unacked", "kept", "--file", "lines"]
    status, printed, said = outcome(children.run("sockservice", "send", *options, answering(does)))
    kept = [lines[1], *lines[3:]]
    assert (status, printed) == (1, b"ok\nerror no\nok\n")
    assert re.fullmatch(
        r"sent \d+, acknowledged 2: connection lost: .*; 1 refused; lines 4 to \d+ are "
        r"unacknowledged; 199998 lines are in kept\n",
        said,
    )
    # No more was sent than may be in flight.
    assert int(said.split()[1].strip(",")) * 8 <= 65536 + 4 * 8
    written = (children.folder / "kept").read_bytes()
    assert written == b"".join(line + (b"\r\n" if line.endswith(b"\r") else b"\n") for line in kept)
    assert sorted(each.name for each in children.folder.iterdir()) == ["kept", "lines"]


def test_lines_are_kept_when_there_is_no_connection(
    children: Children, closed_number: ClosedNumber
) -> None:
    target = f"tcp:127.0.0.1:{closed_number(socket.SOCK_STREAM)}"
    done = children.run("sockservice", "send", "--unacked", "kept", target, "a", "b")
    said = f"could not connect to {target}: Connection refused; 2 lines are in kept\n"
    assert outcome(done) == (3, b"", said)
    assert (children.folder / "kept").read_bytes() == b"a\nb\n"
    # The next run adds to them.
    done = children.run("sockservice", "send", "--unacked", "kept", target, "c")
    assert done.returncode == 3
    assert (children.folder / "kept").read_bytes() == b"a\nb\nc\n"


def test_nothing_is_kept_when_all_was_acknowledged(children: Children, service: Service) -> None:
    (children.folder / "kept").write_bytes(b"before")
    done = children.run("sockservice", "send", "--unacked", "kept", tcp(service), "a")
    assert outcome(done) == (0, b"ok\n", "")
    assert (children.folder / "kept").read_bytes() == b"before"


def test_a_file_that_cannot_be_put_in_its_place_is_told(tmp_path: Path) -> None:
    unacked = Unacked(str(tmp_path / "kept"))
    unacked.add([b"a"])
    (tmp_path / "kept").mkdir()
    assert not unacked.keep()
    assert unacked.problem == "Is a directory"
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


# How it ends


@pytest.mark.parametrize(
    ("number", "status", "word", "options"),
    [
        (signal.SIGINT, 130, "interrupted", []),
        (signal.SIGTERM, 143, "terminated", ["--retry"]),
        (signal.SIGHUP, 129, "hung up", []),
    ],
)
def test_a_signal_ends_it_in_good_order(
    children: Children,
    answering: Answer,
    number: signal.Signals,
    status: int,
    word: str,
    options: list[str],
) -> None:
    def does(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"ok\n")
        silence(connection)

    target = answering(does)
    command = ["send", *options, "--unacked", "kept", target, "a", "b"]
    process = children.start("sockservice", *command, stdin=subprocess.DEVNULL)
    sending = Child(process)
    sending.until(b"ok\n")
    process.send_signal(number)
    ended = sending.end()
    said = f"{word}; line 2 is unacknowledged; 1 line is in kept"
    assert ended == (status, f"sent 2, acknowledged 1: {said}\n".encode())


@pytest.mark.parametrize("lines", [[], ["a", "b"]])
def test_a_server_that_lets_nobody_in_is_status_3(
    children: Children, answering: Answer, lines: list[str]
) -> None:
    def does(connection: socket.socket) -> None:
        connection.sendall(b"error busy: 1 connection, the limit\n")
        connection.shutdown(socket.SHUT_WR)
        silence(connection)

    reading, writing = os.pipe()
    try:
        done = children.run(
            "sockservice", "send", "--unacked", "kept", answering(does), *lines, stdin=reading
        )
    finally:
        os.close(reading)
        os.close(writing)
    why = "the server ended the connection: error busy: 1 connection, the limit"
    if lines:
        why += "; lines 1 to 2 are unacknowledged; 2 lines are in kept"
        assert (children.folder / "kept").read_bytes() == b"a\nb\n"
    assert outcome(done) == (3, b"", f"sent {len(lines)}, acknowledged 0: {why}\n")


def test_a_server_that_had_taken_lines_before_is_status_1(
    children: Children, answering: Answer
) -> None:
    target = answering(replies(b"ok", b"error busy: 1 byte held for all connections"))
    status, printed, said = outcome(children.run("sockservice", "send", target, "a", "b"))
    assert (status, printed) == (1, b"ok\n")
    assert said == (
        "sent 2, acknowledged 1: the server ended the connection: "
        "error busy: 1 byte held for all connections; line 2 is unacknowledged\n"
    )


def test_a_sum_that_cannot_be_written_is_told(children: Children, answering: Answer) -> None:
    with open("/dev/full", "wb") as full:
        done = children.run(
            "sockservice", "send", "--quiet", "--json", answering(replies(b"ok")), "a", stdout=full
        )
    said = b"sent 1, acknowledged 1: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_signal_ends_it_while_nobody_reads_the_replies(
    children: Children, service: Service
) -> None:
    (children.folder / "lines").write_bytes(b"x\n" * 100_000)
    process = children.start("sockservice", "send", "--file", "lines", tcp(service))
    assert process.stdout is not None
    room = fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    deadline = monotonic() + PATIENCE
    held = bytearray(4)
    while int.from_bytes(held, sys.byteorder) < room:
        assert monotonic() < deadline
        fcntl.ioctl(process.stdout, termios.FIONREAD, held)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    assert process.stderr is not None
    assert b": interrupted" in process.stderr.read()


@pytest.mark.parametrize("options", [[], ["--unacked", "kept"]])
def test_each_datagram_that_is_lost_is_told(
    children: Children, opened: ExitStack, options: list[str]
) -> None:
    bound = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    bound.settimeout(PATIENCE)
    bound.bind(("127.0.0.1", 0))
    target = f"udp:127.0.0.1:{bound.getsockname()[1]}"
    command = ["send", "--timeout", "0.5", *options, target, "a", "b", "c"]
    process = children.start("sockservice", *command)
    heard = [bound.recvfrom(100) for _ in range(3)]
    assert [datagram for datagram, _ in heard] == [b"a", b"b", b"c"]
    bound.sendto(*heard[1])
    sending = Child(process)
    status, said = sending.end()
    kept = b"; 2 lines are in kept" if options else b""
    assert (status, sending.output) == (4, b"b\n")
    summed = b"no reply within 0.5 seconds; 2 lines are unacknowledged"
    assert said == b"sent 3, acknowledged 1: " + summed + kept + b"\n"
    if options:
        assert (children.folder / "kept").read_bytes() == b"a\nc\n"


def test_datagrams_are_refused_as_the_option_says(children: Children, opened: ExitStack) -> None:
    bound = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    bound.settimeout(PATIENCE)
    bound.bind(("127.0.0.1", 0))
    target = f"udp:127.0.0.1:{bound.getsockname()[1]}"
    process = children.start("sockservice", "send", "--refusal", "nak", target, "a", "b")
    (_, first), (_, second) = [bound.recvfrom(100) for _ in range(2)]
    sending = Child(process)
    bound.sendto(b"a", first)
    sending.until(rb"a\n")
    bound.sendto(b"nak b", second)
    assert sending.end() == (1, b"sent 2, acknowledged 1: 1 refused\n")
    assert sending.output == b"a\nnak b\n"


def test_input_that_cannot_be_read_is_told(children: Children, service: Service) -> None:
    writing = os.open(os.devnull, os.O_WRONLY)
    try:
        done = children.run("sockservice", "send", "--file", "-", tcp(service), stdin=writing)
    finally:
        os.close(writing)
    said = "sent 0, acknowledged 0: standard input: Bad file descriptor\n"
    assert outcome(done) == (1, b"", said)


def test_a_file_that_is_cut_short_while_it_is_read_is_told(
    children: Children, answering: Answer
) -> None:
    path = children.folder / "lines"
    path.write_bytes(b"line\n" * 100_000)

    def does(connection: socket.socket) -> None:
        with connection.makefile("rb") as received, suppress(ConnectionError):
            received.readline()
            os.truncate(path, 0)
            connection.sendall(b"ok\n")
            for _ in received:
                connection.sendall(b"ok\n")

    done = children.run("sockservice", "send", "--file", "lines", "--quiet", answering(does))
    status, printed, said = outcome(done)
    assert (status, printed) == (1, b"")
    assert said.endswith(": lines: it was cut short while it was read\n")


def test_standard_output_that_does_not_block_is_waited_for(
    children: Children, service: Service
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    (children.folder / "lines").write_bytes(b"x\n" * 100_000)
    command = ["send", "--file", "lines", tcp(service)]
    process = children.start("sockservice", *command, stdout=writing)
    os.close(writing)
    with open(reading, "rb") as printed:
        assert printed.read() == b"ok\n" * 100_000
    assert process.wait(PATIENCE) == 0


def test_a_server_that_stops_reading_is_given_up(children: Children, answering: Answer) -> None:
    def does(connection: socket.socket) -> None:
        assert process.wait(PATIENCE) == 4

    target = answering(does)
    options = ["--timeout", "0.3", target]
    file = children.folder / "lines"
    file.write_bytes(b"x" * 10_000_000 + b"\nx\n")
    with file.open("rb") as lines:
        process = children.start("sockservice", "send", *options, stdin=lines)
    status, said = Child(process).end()
    assert (status, b"no reply within 0.3 seconds" in said) == (4, True)


def test_no_more_is_in_flight_than_a_pair_of_pipes_holds(
    children: Children, answering: Answer
) -> None:
    """`ncat -e` and the like get stuck otherwise."""
    received = bytearray()

    def does(connection: socket.socket) -> None:
        with suppress(ConnectionResetError):
            while data := connection.recv(65536):
                received.extend(data)

    options = ["--timeout", "0.5", answering(does)]
    done = children.run("sockservice", "send", *options, input=b"1234567\n" * 100_000)
    status, printed, said = outcome(done)
    assert (status, printed) == (4, b"")
    assert 32768 < len(received) <= 65536
    assert said.startswith(f"sent {len(received) // 8}, acknowledged 0: no reply within 0.5 sec")


def test_standard_error_may_be_gone(children: Children, closed_number: ClosedNumber) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    target = f"tcp:127.0.0.1:{closed_number(socket.SOCK_STREAM)}"
    try:
        done = children.run("sockservice", "send", target, "a", stderr=writing)
    finally:
        os.close(writing)
    assert done.returncode == 3


def test_without_standard_output_nothing_is_sent(children: Children) -> None:
    closed = f"exec {SCRIPTS}/sockservice send 127.0.0.1:1 a >&-"
    done = children.run("/bin/sh", "-c", closed)
    assert done.returncode == 2
    assert b"standard output is closed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--retry", "udp:127.0.0.1:5", "a"], "--retry is for connections"),
        (["--file", "-", "127.0.0.1:5", "a"], "as arguments or in files"),
        (["--rate", "0", "127.0.0.1:5", "a"], "'--rate'"),
        (["--unacked", "", "127.0.0.1:5", "a"], "'--unacked'"),
        (["--unacked", "-", "127.0.0.1:5", "a"], "'--unacked'"),
        (["--unacked", ".", "127.0.0.1:5", "a"], "'--unacked'"),
        (["--unacked", "/dev/null", "127.0.0.1:5", "a"], "'--unacked'"),
        (["--unacked", "/nowhere/kept", "127.0.0.1:5", "a"], "'--unacked'"),
    ],
)
def test_what_makes_no_sense_is_status_2(arguments: list[str], why: str) -> None:
    done = CliRunner().invoke(main, ["send", *arguments])
    assert done.exit_code == 2
    assert why in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("option", [[], ["--retry"]])
def test_a_target_that_makes_no_sense_is_status_2(children: Children, option: list[str]) -> None:
    done = children.run("sockservice", "send", *option, "--cafile", "x", "127.0.0.1:5", "a")
    said = "127.0.0.1:5: what is said of TLS applies to tls:HOST:PORT alone\n"
    assert outcome(done) == (2, b"", said)


# Over several connections


def test_lines_without_a_reply_are_sent_again_in_order(
    children: Children, opened: ExitStack
) -> None:
    """Behind a reset, a close, and a server that keeps silent."""
    listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    listening.settimeout(PATIENCE)
    target = f"127.0.0.1:{listening.getsockname()[1]}"
    command = ["send", "--retry", "--timeout", "0.5", target, "a", "b", "c", "d"]
    process = children.start("sockservice", *command)
    heard: list[list[bytes]] = []
    left = 4
    for answered in (1, 1, 0, 2):
        connection, _ = listening.accept()
        connection.settimeout(PATIENCE)
        with connection, connection.makefile("rb") as received:
            heard.append([received.readline() for _ in range(left)])
            connection.sendall(b"ok\n" * answered)
            if answered == 0:
                silence(connection)
        left -= answered
    status, said = Child(process).end()
    assert heard == [
        [b"a\n", b"b\n", b"c\n", b"d\n"],
        [b"b\n", b"c\n", b"d\n"],
        [b"c\n", b"d\n"],
        [b"c\n", b"d\n"],
    ]
    assert status == 0
    whys = [line.partition(b"; ")[0] for line in said.splitlines()]
    assert whys[2] == b"no reply within 0.5 seconds"
    assert [line.rpartition(b", ")[2] for line in said.splitlines()] == [
        b"3 lines unacknowledged",
        b"2 lines unacknowledged",
        b"2 lines unacknowledged",
    ]


def test_a_server_killed_and_started_again_has_every_line(
    children: Children, opened: ExitStack
) -> None:
    store = ["--store", "sqlite:kept.db"]
    port = opened.enter_context(reserved()).getsockname()[1]
    serving = ("twistd", "-n", "--pidfile=", "sockservice", *store)
    serving += (f"--listen=tcp:{port}:interface=127.0.0.1",)
    first = Child(children.start(*serving))
    first.until(rb"ack listening on tcp:")
    count = 50_000
    path = children.folder / "lines"
    path.write_text("".join(f"{number}\n" for number in range(count)))
    with path.open("rb") as lines:
        process = children.start("sockservice", "send", "--retry", f"127.0.0.1:{port}", stdin=lines)
    sending = Child(process)
    sending.until(rb"(ok\n){1000}")
    first.process.kill()
    first.process.wait()
    children.start(*serving)
    status, said = sending.end()
    assert status == 0
    assert sending.output == b"ok\n" * count
    assert b"trying again" in said
    kept = children.run("sockservice", "lines", "kept.db").stdout.split()
    assert set(map(int, kept)) == set(range(count))


def test_what_could_not_even_be_sent_is_kept(
    children: Children, closed_number: ClosedNumber
) -> None:
    target = f"127.0.0.1:{closed_number(socket.SOCK_STREAM)}"
    process = children.start(
        "sockservice", "send", "--retry", "--unacked", "kept", target, "a", "b"
    )
    child = Child(process)
    assert b"could not connect: Connection refused; trying again in" in child.complaint()
    process.send_signal(signal.SIGTERM)
    status, said = child.end()
    summed = b"terminated; lines 1 to 2 are unacknowledged; 2 lines are in kept"
    assert (status, said.splitlines()[-1]) == (143, b"sent 0, acknowledged 0: " + summed)
    assert (children.folder / "kept").read_bytes() == b"a\nb\n"


# Foreign servers

CAT = shutil.which("cat") or "cat"
PYTHON = """
import socketserver
class Mirror(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
class Again(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
with Again(("127.0.0.1", PORT), Mirror) as server:
    server.serve_forever()
"""
FOREIGN: dict[str, Callable[[int], list[str]]] = {
    "ncat": lambda port: ["-k", "-l", "-e", CAT, "127.0.0.1", str(port)],
    "socat": lambda port: [f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr", f"EXEC:{CAT}"],
    sys.executable: lambda port: ["-c", PYTHON.replace("PORT", str(port))],
}


@pytest.mark.parametrize("name", FOREIGN, ids=lambda name: Path(name).name)
def test_a_foreign_server_answers_every_line(
    children: Children, opened: ExitStack, name: str, closed_number: ClosedNumber
) -> None:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} not here")
    port = closed_number(socket.SOCK_STREAM)
    process = subprocess.Popen([found, *FOREIGN[name](port)], stderr=subprocess.DEVNULL)
    opened.enter_context(process)
    opened.callback(process.kill)
    text = b"".join(b"%d\n" % number for number in range(30_000))
    # With --retry, for the server is not there at once.
    done = children.run("sockservice", "send", "--retry", f"127.0.0.1:{port}", input=text)
    assert done.returncode == 0
    assert done.stdout == text
