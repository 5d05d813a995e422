"""Limits, signals and commands on a service with sessions: what peers and senders are told."""

import fcntl
import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, SCRIPTS, Child, Children
from tests.process.test_resuming import SENT, Resumed
from tests.process.test_sessions import Server, heard, stored


class Activated(Child):
    """A service on a socket that it was started with, as systemd does."""

    def __init__(self, children: Children, stack: ExitStack, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.place = listening.getsockname()
            # For the shell, a descriptor above 9 is nothing that it uses itself.
            copy = fcntl.fcntl(listening.fileno(), fcntl.F_DUPFD, 20)
        stack.callback(os.close, copy)
        script = (
            f"export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=lines; exec {SCRIPTS}/twistd -n "
            f"--pidfile= sockservice --listen session@systemd:name=lines {' '.join(options)} "
            f"3<&{copy}"
        )
        super().__init__(children.start("/bin/bash", "-c", script, pass_fds=(copy,)))
        self.until(rb"session listening on systemd:\S+\n")

    def connect(self) -> socket.socket:
        return socket.create_connection(self.place, PATIENCE)

    def hangup(self) -> None:
        self.output = b""
        self.process.send_signal(signal.SIGHUP)
        self.until(rb"SIGHUP: limits")


class Open:
    """A connection that stays open."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self._replies = peer.makefile("rb")

    def ask(self, data: bytes, replies: int = 1) -> list[bytes]:
        self.peer.sendall(data)
        return [self._replies.readline() for _ in range(replies)]

    def rest(self) -> list[bytes]:
        return self._replies.readlines()

    def close(self) -> None:
        self._replies.close()
        self.peer.close()


def test_limits_are_read_again_and_what_was_received_is_stored_at_the_end(
    children: Children, tmp_path: Path, opened: ExitStack
) -> None:
    limits = {"line-limit": "100", "max-connections": "9", "line-rate": "0"}

    def write() -> None:
        for name, value in limits.items():
            (tmp_path / name).write_text(value)

    write()
    store = tmp_path / "lines.db"
    words = [f"--{name} @{tmp_path / name}" for name in limits]
    service = Activated(children, opened, "--store", f"sqlite:{store}", *words)
    first = Open(service.connect())
    (said,) = first.ask(b"session/1 demo\n")
    assert b" limit=100 " in said
    limits |= {"line-limit": "50", "max-connections": "1", "line-rate": "20"}
    write()
    service.hangup()
    # Whoever was there goes on as it was promised.
    assert first.ask(b"x" * 80 + b"\n") == [b"ok\n"]
    assert (
        heard(service.connect(), b"") == b"error busy: 1 connection, the limit; try again later\n"
    )
    first.close()
    while (said := heard(service.connect(), b"session/1 demo\n")).startswith(b"error busy"):
        pass  # until the server knows that the first has gone
    assert said == b"error session: lines up to 100 bytes, the limit is 50\n"
    # A rate makes a session wait, and refuses nothing of it.
    lines = b"".join(b"%d\n" % number for number in range(30))
    while (said := heard(service.connect(), b"session/1 paced\n" + lines)).startswith(b"error"):
        assert said.startswith(b"error busy")
    assert said.splitlines()[1:] == [b"ok"] * 30
    limits |= {"line-limit": "100", "line-rate": "0", "max-connections": "9"}
    write()
    service.hangup()
    # Stopped in the middle: all that is acknowledged is stored, and nothing else.
    last = Open(service.connect())
    assert last.ask(b"session/1 demo at=1\n")[0].startswith(b"session/1 old position=1 ")
    last.peer.sendall(b"".join(b"%d\n" % number for number in range(5000)))
    service.process.terminate()
    oks = last.rest()
    last.close()
    assert service.end() == (0, b"")
    assert oks == [b"ok\n"] * 5000
    assert stored(store) == [b"x" * 80, *(b"%d" % number for number in range(5000))]


# What `send --session` is told


def test_a_sender_beyond_the_most_sessions_tries_again_and_says_why_it_gives_up(
    children: Children, tmp_path: Path
) -> None:
    server = Server(children, tmp_path / "lines.db", "--max-sessions", "1")
    assert heard(server.connect(), b"session/1 other\na\n").endswith(b"\nok\n")
    done = children.run(
        *("sockservice", "send", "--quiet", "--session", "demo", "--retry-times", "1"),
        server.address,
        input=b"a\n",
    )
    assert done.returncode == 3
    assert b"error busy: 1 session, the limit; given up\n" in done.stderr
    assert stored(tmp_path / "lines.db") == []


def test_a_sender_whose_session_has_expired_is_told(children: Children, tmp_path: Path) -> None:
    resumed = Resumed(children, tmp_path)
    resumed.stop()
    resumed.serve("--session-age", "1")
    live = resumed.start("--continue")
    assert live.stdin is not None
    live.stdin.write(b"a\n")
    live.stdin.flush()
    resumed.server.until(rb"1 session was removed: unused for too long")
    live.stdin.write(b"b\n")
    live.stdin.flush()
    _, said = live.communicate(timeout=PATIENCE)
    assert live.returncode == 1
    assert b"error session: it is not kept any more" in said
    assert stored(resumed.store) == [b"a"]
    # Whoever remembers nothing begins anew, and says so.
    done = resumed.send("--continue", input=b"b\n")
    assert (done.returncode, done.stderr) == (0, b"session demo is new\n")


@pytest.mark.parametrize("command", ["verify", "compact"])
def test_a_store_with_sessions_is_verified_and_compacted(
    children: Children, tmp_path: Path, command: str
) -> None:
    resumed = Resumed(children, tmp_path)
    resumed.write(SENT)
    assert resumed.send().returncode == 0
    before = heard(resumed.server.connect(), b"session/1 demo\n").split()
    resumed.stop()
    done = children.run("sockservice", command, str(resumed.store))
    assert (done.returncode, done.stderr) == (0, b"")
    resumed.serve()
    after = heard(resumed.server.connect(), b"session/1 demo\n").split()
    # The epoch has grown; the rest, identity and checksum included, has stayed.
    assert (after[:5], after[6:]) == (before[:5], before[6:])
    resumed.write([*SENT, b"more"])
    done = resumed.send()
    assert (done.returncode, done.stderr) == (0, b"session demo goes on behind line 500\n")
    assert stored(resumed.store) == [*SENT, b"more"]
