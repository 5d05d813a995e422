"""`sockservice send --spool` with real processes: each line once, in order, whatever is killed."""

import os
import signal
import subprocess
from pathlib import Path
from random import Random
from threading import Event, Thread
from time import monotonic, sleep

import pytest

from tests.conftest import PATIENCE, Child, Children
from tests.process.test_sessions import Server, stored

LINES = [b"%d:%s" % (number, b"y" * (number * 7 % 90)) for number in range(12_000)]


class Producer(Thread):
    """Writes LINES into a FIFO that it holds open at both ends, in pieces that cut lines."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        os.mkfifo(path)
        self.path = path
        self._file = os.open(path, os.O_RDWR)
        self.written = Event()

    def run(self) -> None:
        data = b"".join(line + b"\n" for line in LINES)
        random = Random(3)
        while data:
            data = data[os.write(self._file, data[: random.randint(1, 9000)]) :]
        self.written.set()

    def close(self) -> None:
        os.close(self._file)


class Spooler:
    """Starts senders that read from a FIFO and have their spool in one folder."""

    def __init__(self, children: Children, folder: Path, target: str) -> None:
        self._children = children
        self._folder = folder
        self._target = target

    def start(self, fifo: Path) -> "subprocess.Popen[bytes]":
        reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(reading, True)
        try:
            return self._children.start(
                *("sockservice", "send", "--quiet", "--session", "demo"),
                *("--spool", str(self._folder / "spool"), self._target),
                stdin=reading,
            )
        finally:
            os.close(reading)


def until(count: int, store: Path) -> None:
    """Wait until so many lines are stored."""
    deadline = monotonic() + PATIENCE
    while len(stored(store)) < count:
        assert monotonic() < deadline, len(stored(store))
        sleep(0.02)


@pytest.mark.parametrize("victim", ["sender", "server"])
def test_each_line_of_a_pipe_is_stored_once_and_in_order_whatever_is_killed(
    children: Children, tmp_path: Path, victim: str
) -> None:
    store, listening = tmp_path / "lines.db", f"unix:{tmp_path}/socket"
    server = Server(children, store, endpoint=listening)
    producer = Producer(tmp_path / "fifo")
    spooler = Spooler(children, tmp_path, listening)
    sender = spooler.start(producer.path)
    producer.start()
    for count in range(1, 6):
        until(count * 2000, store)
        if victim == "server" or count == 5:
            server.kill()
            server = Server(children, store, endpoint=listening)
        if victim == "sender" or count == 5:
            sender.kill()
            sender.wait()
            sender = spooler.start(producer.path)
    assert producer.written.wait(PATIENCE)
    producer.close()
    status, said = Child(sender).end()
    assert (status, stored(store)) == (0, LINES), said


def test_what_is_read_while_the_server_is_away_is_sent_by_the_next(
    children: Children, tmp_path: Path
) -> None:
    store, listening = tmp_path / "lines.db", f"unix:{tmp_path}/socket"
    words = ("sockservice", "send", "--json", "--spool", str(tmp_path / "spool"), listening)
    first = children.start(*words, stdin=subprocess.PIPE)
    assert first.stdin is not None
    assert b"could not connect" in Child(first).complaint()
    first.stdin.write(b"one\ntwo\nthree\nfo")
    first.stdin.flush()
    deadline = monotonic() + PATIENCE
    while b" 0 0 16 " not in (tmp_path / "spool" / "place").read_bytes():
        assert monotonic() < deadline
        sleep(0.02)
    busy = children.run(*words)
    assert busy.returncode == 2
    assert b"another process is using this spool" in busy.stderr
    first.send_signal(signal.SIGTERM)
    first.wait(PATIENCE)
    status, said = Child(first).end()
    assert status == 143
    assert b"16 bytes of lines are kept in " in said
    server = Server(children, store, endpoint=listening)
    second = children.run(*words, input=b"four\nfive")
    assert second.returncode == 0
    assert b"2 bytes of a line that had not ended are dropped" in second.stderr
    name = (tmp_path / "spool" / "place").read_bytes().split(b" ")[2].decode()
    assert stored(store, name) == [b"one", b"two", b"three", b"four", b"five"]
    assert second.stdout.splitlines()[-1].endswith(b'"spooled": 0}')
    assert os.listdir(tmp_path / "spool") == ["place"]
    server.process.terminate()
    assert server.end() == (0, b"")
