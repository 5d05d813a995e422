"""Whether the service is ready is told before its listeners close."""

import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic, monotonic_ns

import pytest

from tests.conftest import PATIENCE, SCRIPTS, Children, Service
from tests.process.test_workers import ask, local, until


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_serves_on_for_a_while_when_it_is_not_ready_any_more(
    children: Children, tmp_path: Path, workers: str
) -> None:
    options = ("--lame-duck", "2", "--ready-file", "ready", "--workers", workers)
    service = children.serve(*options)
    until((tmp_path / "ready").exists)
    with closing(service.connected()) as before:
        service.process.terminate()
        until(lambda: not (tmp_path / "ready").exists())
        with closing(service.connected()) as peer:
            ask(peer, 1)
            ask(before, 1)
            service.until(rb"SIGTERM: not ready any more, serving for 2 seconds")
            ask(peer, 1)
    service.ended()


def test_a_second_signal_does_not_wait_for_that(children: Children) -> None:
    service = children.serve("--lame-duck", "600")
    service.process.terminate()
    service.until(rb"serving for 600 seconds")
    service.process.terminate()
    assert service.process.wait(PATIENCE) == -15


class Manager:
    """The other end of what systemd is told, with who said it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE)
        #: The processes that have sent anything.
        self.senders: set[int] = set()

    def environment(self, watchdog: float) -> dict[str, str]:
        microseconds = str(int(watchdog * 1e6))
        return os.environ | {"NOTIFY_SOCKET": str(self.path), "WATCHDOG_USEC": microseconds}

    def next(self) -> str:
        said, more, _, _ = self._socket.recvmsg(4096, 64)
        [(_, kind, credentials)] = more
        assert kind == socket.SCM_CREDENTIALS
        self.senders.add(struct.unpack("3i", credentials)[0])
        return said.decode()

    def until(self, begin: str) -> str:
        """Read what is told until one begins so."""
        while not (said := self.next()).startswith(begin):
            pass
        return said

    def rest(self, seconds: float) -> list[str]:
        """Give what is told within a time."""
        told = []
        deadline = monotonic() + seconds
        try:
            while (left := deadline - monotonic()) > 0:
                self._socket.settimeout(left)
                told.append(self.next())
        except TimeoutError:
            pass
        self._socket.settimeout(PATIENCE)
        return told

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with closing(Manager(tmp_path / "notify")) as made:
        yield made


#: Blocks the reactor until there is a file.
STALLS = """
from pathlib import Path
from time import sleep

from sockservice import LineServer


class Stalls(LineServer):
    def answer(self, line):
        Path("begun").touch()
        while not Path("go").exists():
            sleep(0.01)
        return line
"""


def test_systemd_is_told(children: Children, tmp_path: Path, manager: Manager) -> None:
    (tmp_path / "stalls.py").write_text(STALLS)
    process = children.start(
        *("twistd", "-n", "--pidfile=", "sockservice", "--port", "0", "--store", "sqlite:x"),
        *("--listen", "stalls.Stalls@unix:s"),
        env=manager.environment(0.2),
    )
    assert manager.next() == "READY=1"
    service = Service(process).listening()
    assert manager.until("STATUS=").startswith("STATUS=connections: 0 now, 0 so far; 0 lines, ")
    before = monotonic_ns() // 1000
    process.send_signal(signal.SIGHUP)
    said = manager.until("RELOADING=1")
    after = monotonic_ns() // 1000
    assert before < int(said.removeprefix("RELOADING=1\nMONOTONIC_USEC=")) < after
    manager.until("READY=1")
    service.until(b"have been read again")
    with closing(local(tmp_path / "s")) as peer:
        # While an answer blocks the reactor the watchdog hears nothing.
        manager.until("WATCHDOG=1")
        peer.sendall(b"x\n")
        until((tmp_path / "begun").exists)
        manager.rest(0.1)
        assert manager.rest(0.6) == []
        (tmp_path / "go").touch()
        manager.until("WATCHDOG=1")
        assert peer.recv(100) == b"x\n"
    service.stop()
    manager.until("STOPPING=1")
    assert manager.senders == {process.pid}


def test_a_daemon_tells_it_itself(children: Children, tmp_path: Path, manager: Manager) -> None:
    # WATCHDOG_PID is the process that is started, which becomes the daemon by forking.
    script = 'WATCHDOG_PID=$$ exec "$0" --pidfile=pid sockservice --port 0'
    environment = manager.environment(0.2)
    children.run("/bin/bash", "-c", script, str(SCRIPTS / "twistd"), env=environment)
    daemon = int((tmp_path / "pid").read_text())
    try:
        assert manager.next() == "READY=1"
        manager.until("WATCHDOG=1")
        assert manager.senders == {daemon}
    finally:
        os.kill(daemon, signal.SIGTERM)
    manager.until("STOPPING=1")
    until(lambda: not (tmp_path / "pid").exists())


def test_workers_leave_it_to_their_parent_which_kills_one_that_hangs(
    children: Children, manager: Manager
) -> None:
    process = children.start(
        *("twistd", "-n", "--pidfile=", "sockservice", "--port", "0", "--workers", "2"),
        env=manager.environment(4),
    )
    manager.until("READY=1")
    service = Service(process).listening()
    process.send_signal(signal.SIGHUP)
    manager.until("RELOADING=1")
    manager.until("READY=1")
    for number in (1, 2):
        service.until(rb"worker %d, .*have been read again" % number)
    children_of = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children_of) == 2
    for each in children_of:
        environment = Path(f"/proc/{each}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environment and b"WATCHDOG" not in environment
    os.kill(int(children_of[0]), signal.SIGSTOP)
    service.until(rb"worker \d has not answered for [\d.]+ seconds? and is killed")
    service.until(rb"died of SIGKILL; another takes its place")
    manager.until("WATCHDOG=1")
    service.stop()
    manager.until("STOPPING=1")
    assert manager.senders == {process.pid}


def test_a_file_that_cannot_be_made_is_told(children: Children) -> None:
    service = children.serve("--ready-file", "/proc/ready")
    service.until(rb"--ready-file /proc/ready: No such file or directory")
    service.stop()
