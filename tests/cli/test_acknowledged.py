"""What counts as acknowledged, and when lines leave: seen from the servers' side of the wire."""

import json
import signal
import socket
import threading
from contextlib import ExitStack, closing
from time import monotonic, sleep
from typing import Any

import pytest

from tests.cli.test_cli import Answer, answering, outcome, silence
from tests.client.adversary import Adversary
from tests.conftest import PATIENCE, Children

__all__ = ["answering"]

LONG = b"x" * (1024 * 1024 + 1)


def test_a_reply_that_is_too_long_is_told_apart_from_what_the_server_said(
    children: Children, answering: Answer
) -> None:
    def does(connection: socket.socket) -> None:
        with connection.makefile("rb") as received:
            for reply in (b"ok", LONG, b"error no"):
                received.readline()
                connection.sendall(reply + b"\n")
        silence(connection)

    target = answering(does)
    done = children.run("sockservice", "send", "--json", target, "a", "b", "c")
    *replies, last = map(json.loads, done.stdout.splitlines())
    assert [{*each} - {"seconds", "line"} for each in replies] == [
        *({"reply"}, {"discarded"}, {"reply"}),
    ]
    why = replies[1]["discarded"]
    assert why == "reply line longer than 1048576 bytes"
    counts = [last[each] for each in ("acknowledged", "refused", "unacknowledged", "status")]
    assert counts == [1, 1, 1, 1]
    first, _ = done.stderr.decode().splitlines()
    assert first == f"line 2: {why}"


class Noting(threading.Thread):
    """A line server that notes when lines arrive; the first connection it breaks, unanswered."""

    def __init__(self, lines: int, broken: int) -> None:
        super().__init__()
        self._lines = lines
        self._broken = broken
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(PATIENCE)
        self.target = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.arrived: list[float] = []
        self.begun = threading.Event()

    def run(self) -> None:
        with self._socket:
            self._serve(self._broken, b"")
            self._serve(self._lines, b"ok\n")

    def _serve(self, lines: int, reply: bytes) -> None:
        connection, _ = self._socket.accept()
        connection.settimeout(PATIENCE)
        with connection, connection.makefile("rb") as received:
            for _ in range(lines):
                if not received.readline():
                    return
                self.arrived.append(monotonic())
                self.begun.set()
                connection.sendall(reply)


def test_a_rate_is_kept_over_a_new_connection_and_a_pause(
    children: Children, opened: ExitStack
) -> None:
    rate = 200
    server = Noting(300, broken=100)
    server.start()
    opened.callback(server.join)
    (children.folder / "lines").write_bytes(b"line\n" * 300)
    options = ["--retry", "--rate", str(rate), "--quiet", "--file", "lines"]
    process = children.start("sockservice", "send", *options, server.target)
    assert server.begun.wait(PATIENCE)
    for _ in range(2):
        sleep(0.3)
        process.send_signal(signal.SIGSTOP)
        sleep(1)
        process.send_signal(signal.SIGCONT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    times = server.arrived
    assert len(times) == 400
    # A tenth of a second's lines may come at once, and what was on the way when it was stopped.
    most = max(sum(begin <= each < begin + 0.5 for each in times) for begin in times)
    assert most <= rate * 0.5 + 2 * rate * 0.1


def test_when_the_first_of_two_servers_dies_the_other_gets_what_has_no_reply(
    children: Children, answering: Answer
) -> None:
    first: list[bytes] = []
    second: list[bytes] = []

    def dies(connection: socket.socket) -> None:
        with connection.makefile("rb") as received:
            for place in range(5):
                first.append(received.readline())
                if place < 2:
                    connection.sendall(b"one\n")

    def lives(connection: socket.socket) -> None:
        with connection.makefile("rb") as received:
            for line in received:
                second.append(line)
                connection.sendall(b"two\n")

    targets = f"{answering(dies)},{answering(lives)}"
    done = children.run("sockservice", "send", targets, *"abcdefgh")
    status, printed, said = outcome(done)
    assert (status, printed) == (0, b"one\n" * 2 + b"two\n" * 6)
    assert b"".join(first) == b"a\nb\nc\nd\ne\n"
    assert b"".join(second) == b"c\nd\ne\nf\ng\nh\n"
    assert said.splitlines()[-1].startswith("connected to ")


SERVERS: dict[str, list[Any]] = {
    "echo": [lambda datagram: datagram],
    "mixed": [lambda datagram: datagram, lambda datagram: datagram[:-1], lambda _: b"ok"],
}


@pytest.mark.parametrize("kind", SERVERS)
def test_ping_and_bench_count_no_datagram_that_was_not_answered(
    children: Children, opened: ExitStack, kind: str
) -> None:
    for command in ("ping --count 2000 --flood 20 -W 0.1", "bench --count 2000 --timeout 0.1"):
        with closing(Adversary(3, SERVERS[kind], latest=0.3)) as server:
            done = children.run("sockservice", *command.split(), "--json", "--", server.target)
            last = json.loads(done.stdout.splitlines()[-1])
        answered = server.answered.total()
        counted = last["received"] if "received" in last else last["answered"]
        assert 0 < counted <= answered
        assert done.returncode == 1
        assert last["lost"] >= server.received.total() - answered
