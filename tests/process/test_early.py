"""Signals that come before the service is ready: none of them is lost, none ends it in silence."""

import os
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import Child, Children, Service
from tests.ports import freePorts
from tests.process.test_workers import workers

# An engine that is found, or opened, only when the test opens the other end of a FIFO.
ENGINE = """
import os

from sockservice.store.memory import Memory


waited = []


def wait(where):
    if not waited:
        waited.append(where)
        # At once, not by way of the log, and so in the midst of what follows.
        os.write(1, b"waiting " + where.encode() + bytes([10]))
        open("go").close()


class Found(Memory):
    def __init__(self, place, retention):
        super().__init__()
        wait("to be found")


class Opened(Memory):
    def __init__(self, place, retention):
        super().__init__()

    def open(self):
        wait("to be opened")
"""


def start(children: Children, engine: str, *options: str) -> Child:
    (children.folder / "slow.py").write_text(ENGINE)
    os.mkfifo(children.folder / "go")
    process = children.start(
        *("twistd", "-n", "sockservice", "--port", "0", "--listen", "unix:s"),
        *("--host", "127.0.0.1", "--store", f"slow.{engine}:here", *options),
    )
    child = Child(process)
    child.until(rb"waiting to be")
    return child


def go(child: Child) -> Service:
    assert child.process.args
    with open(f"/proc/{child.process.pid}/cwd/go", "wb"):
        pass
    service = Service(child.process)
    service.output = child.output
    return service.listening()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("engine", ["Found", "Opened"])
def test_told_to_end_before_it_is_ready_it_ends_with_status_0_and_says_so(
    children: Children, engine: str, number: signal.Signals
) -> None:
    child = start(children, engine)
    child.process.send_signal(number)
    said = f"sockservice: {number.name} before it was ready; ended\n".encode()
    assert child.end() == (0, said)
    # Nor does it leave anything behind.
    assert not {"s", "twistd.pid"} & set(os.listdir(children.folder))
    assert b"listening on" not in child.output


@pytest.mark.parametrize("engine", ["Found", "Opened"])
def test_a_hangup_is_kept_until_it_is_ready(children: Children, engine: str) -> None:
    child = start(children, engine)
    child.process.send_signal(signal.SIGHUP)
    service = go(child)
    service.until(rb"SIGHUP: limits, networks and certificates have been read again")
    service.stop()
    assert service.output.count(b"SIGHUP: limits") == 1


def test_what_a_parent_ignores_stays_ignored(children: Children) -> None:
    (children.folder / "slow.py").write_text(ENGINE)
    os.mkfifo(children.folder / "go")
    command = f"trap '' HUP INT; exec {Path(sys.executable).parent}/twistd"
    process = children.start(
        *("/bin/sh", "-c", f'{command} "$@"', "sh", "-n", "--pidfile=", "sockservice"),
        *("--port", "0", "--store", "slow.Found:here"),
    )
    child = Child(process)
    child.until(rb"waiting to be")
    process.send_signal(signal.SIGINT)
    service = go(child)
    process.send_signal(signal.SIGHUP)
    service.stop()
    assert b"SIGHUP" not in service.output


def test_it_is_ready_when_lines_can_be_stored(children: Children) -> None:
    child = start(children, "Opened")
    assert b"listening on" not in child.output
    service = go(child)
    with closing(service.connected()) as peer:
        peer.sendall(b"a\n")
        assert peer.recv(100) == b"ok\n"
    service.stop()


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one", "workers"])
def test_nobody_can_connect_before_lines_can_be_stored(
    children: Children, workers: tuple[str, ...]
) -> None:
    address = "127.0.0.1", int(next(freePorts()))
    child = start(children, "Opened", "--port", str(address[1]), *workers)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    service = go(child)
    with closing(service.connected()) as peer:
        assert peer.getpeername() == address
        peer.sendall(b"a\n")
        assert peer.recv(100) == b"ok\n"
    service.stop()


SLOW = """
import sys

from sockservice import Ack

if "sockservice.daemon.workers.main" in sys.orig_argv:
    print("waiting in a worker", flush=True)
    open("go").close()


class Slow(Ack):
    pass
"""


def test_a_hangup_that_a_worker_gets_is_kept_as_well(children: Children) -> None:
    (children.folder / "slow.py").write_text(SLOW)
    os.mkfifo(children.folder / "go")
    process = children.start(
        *("twistd", "-n", "--pidfile=", "sockservice", "--listen", "slow.Slow@unix:s"),
        *("--workers", "2"),
    )
    service = Service(process)
    for number in (1, 2):
        service.until(rb"worker %d, stdout#info\] waiting in a worker" % number)
    for pid in workers(service):
        os.kill(pid, signal.SIGHUP)
    with (children.folder / "go").open("wb"):
        service.until(rb"workers are ready")
    for number in (1, 2):
        service.until(rb"worker %d, sockservice.daemon.reload#info\] SIGHUP: limits" % number)
    with closing(socket.socket(socket.AF_UNIX)) as peer:
        peer.connect(str(children.folder / "s"))
        peer.sendall(b"a\n")
        assert peer.recv(100) == b"ok\n"
    service.stop()
