"""`--workers` with real processes: they die, are told to end, and leave nobody behind."""

import os
import re
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random
from time import monotonic, sleep

import pytest
from twisted.python import usage

from sockservice.daemon.allornone import AllOrNone
from sockservice.daemon.options import Options
from sockservice.daemon.reload import reread
from sockservice.daemon.service import common, listen
from sockservice.net.bind.reuseport import Sharing
from tests.conftest import PATIENCE, Children, HandReactor, Log, Running, Service
from tests.soak import rounds

SUMS = re.compile(
    rb"ended: (\d+) connections?, (\d+) of them cut; (\d+) lines?, (\d+) acknowledged"
)


def workers(service: Service) -> list[int]:
    """Give the process ids of a service's workers."""
    pid = service.process.pid
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        # Before it is opened, or before it is read.
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def until(come: Callable[[], object]) -> None:
    deadline = monotonic() + PATIENCE
    while not come():
        assert monotonic() < deadline, "it did not come"
        sleep(0.005)  # for those who are to make it come


def serve(children: Children, *options: str) -> Service:
    service = children.serve("--workers", "2", *options)
    service.until(rb"2 workers are ready")
    return service


def ask(peer: socket.socket, lines: int) -> None:
    """Send lines, and see that all are acknowledged."""
    peer.settimeout(PATIENCE)
    peer.sendall(b"x\n" * lines)
    with peer.makefile("rb") as file:
        assert [file.readline() for _ in range(lines)] == [b"ok\n"] * lines


def local(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(str(path))
    return made


def test_workers_serve_and_one_that_dies_is_replaced_and_all_are_summed_up(
    children: Children, tmp_path: Path
) -> None:
    service = serve(children, "--listen", f"unix:{tmp_path / 's'}", "--host", "127.0.0.1")
    port = str(service.address[1])
    second = children.run("twistd", "-n", "sockservice", "--port", port, "--workers", "2")
    assert b"the port is taken" in second.stderr
    opened = ExitStack()
    first = [opened.enter_context(closing(service.connected())) for _ in range(40)]
    for peer in first:
        ask(peer, 10)
    service.until(rb"worker 1, .* connected")
    service.until(rb"worker 2, .* connected")
    killed, other = workers(service)
    os.kill(killed, signal.SIGKILL)
    # The system takes them for the dead one, and its successor answers.
    for _ in range(40):
        with closing(service.connected()) as peer:
            ask(peer, 1)
    with closing(local(tmp_path / "s")) as peer:
        ask(peer, 5)
    for _ in range(20):
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
            asking.settimeout(PATIENCE)
            asking.connect(service.address)
            asking.send(b"hello")
            assert asking.recv(100) == b"hello"
    service.until(rb"died of SIGKILL; another takes its place in 0.1 seconds")
    assert killed not in workers(service)
    assert other in workers(service)
    opened.close()
    pids = workers(service)
    # As systemd does: to all of them.
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    service.stop()
    assert all(map(gone, pids))
    assert not (tmp_path / "s").exists()
    found = SUMS.search(service.output)
    assert found is not None
    connections, _, lines, acknowledged = map(int, found.groups())
    assert 41 <= connections <= 81
    assert 45 <= acknowledged == lines <= 445
    assert service.output.count(b"ack listening on tcp") == 1


def test_what_was_acknowledged_is_stored_whichever_worker_dies(
    children: Children, tmp_path: Path
) -> None:
    acknowledged, stored = rounds.workers(children, tmp_path / "lines.db", Random(1))
    assert 0 < acknowledged <= stored


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_stays_when_the_parent_is_gone(
    children: Children, number: signal.Signals
) -> None:
    service = serve(children)
    with closing(service.connected(receiving=4096)) as deaf:
        # What is not read keeps a worker from ending well.
        deaf.settimeout(0.3)
        with pytest.raises(TimeoutError):
            while True:
                deaf.sendall(b"\n" * 65536)
        pids = workers(service)
        service.process.send_signal(number)
        if number == signal.SIGTERM:
            service.until(rb"again ends at once")
            service.process.send_signal(number)
        assert service.process.wait(PATIENCE) == -number
        until(lambda: all(map(gone, pids)))


def test_limits_for_each_source_hold_for_all_workers_together(
    children: Children, tmp_path: Path
) -> None:
    opened = ExitStack()
    path = tmp_path / "s"
    service = serve(
        *(children, "--max-connections-per-source", "5", "--max-connections", "40"),
        *("--host", "127.0.0.1", "--listen", f"unix:{path}"),
    )

    def replies(connected: Callable[[], socket.socket]) -> list[bytes]:
        told = []
        for _ in range(8):
            peer = opened.enter_context(closing(connected()))
            peer.settimeout(PATIENCE)
            peer.sendall(b"x\n")
            told.append(peer.recv(100))
        return told

    for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        told = replies(
            lambda source=source: socket.create_connection(  # type: ignore[misc]
                service.address, PATIENCE, (source, 0)
            )
        )
        refusal = f"error busy: 5 connections from {source}, the limit; try again later\n"
        assert told == [b"ok\n"] * 5 + [refusal.encode()] * 3
    assert replies(lambda: local(path))[4:6] == [
        b"ok\n",
        f"error busy: 5 connections from user {os.getuid()}, the limit; try again later\n".encode(),
    ]
    service.process.send_signal(signal.SIGHUP)
    for number in (1, 2):
        service.until(rb"\[worker %d, sockservice.daemon.reload#info\] SIGHUP: limits" % number)
    opened.close()
    service.stop()


BROKEN = """
import sys
from sockservice import Ack

if "sockservice.daemon.workers.main" in sys.orig_argv:
    raise RuntimeError("not \\x1b here")


class Broken(Ack):
    pass
"""


def test_workers_that_cannot_start_are_one_line_on_stderr_and_status_1(
    children: Children, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    options = ("--workers", "2", "--listen", "broken.Broken@tcp:0:interface=127.0.0.1")
    done = children.run("twistd", "-n", "--pidfile=", "sockservice", *options)
    assert done.returncode == 1
    [said] = done.stderr.decode().splitlines()
    assert re.fullmatch(
        r"sockservice: cannot serve: worker \d ended with status 1: "
        r"--listen broken.Broken@tcp:0:interface=127.0.0.1: "
        r"importing broken failed: RuntimeError: not \\+x1b here",
        said,
    )
    assert done.stdout.count(b"Traceback") == 0


def test_an_endpoint_of_a_plugin_cannot_be_shared(running: Running) -> None:
    said = running.fail("--workers", "2", "--listen", "stdio:", "--port", "0")
    assert said == "--listen stdio:: stdio: this endpoint can't be shared by workers"
    assert running.addresses == []


@pytest.mark.parametrize("value", ["0", "auto", "-1", "1025", "2.0"])
def test_workers_are_a_number(value: str) -> None:
    with pytest.raises(usage.UsageError, match=f"^--workers {value}: not a number of processes, "):
        Options().parseOptions(["--workers", value])


def test_what_is_allowed_to_all_connections_is_divided() -> None:
    options = Options()
    options.parseOptions(
        ["--max-connections", "10", "--max-connections-per-source", "3", "--memory-limit", "100"]
    )
    options.processes = 3
    for each in (options, options.again()):
        assert (each.limits().connections, each.limits().connectionsPerSource) == (4, 3)
        assert each.share("memory-limit") == 34


def test_a_limit_for_each_source_may_come_with_a_reload(
    reactor: HandReactor, tmp_path: Path, log: Log
) -> None:
    (tmp_path / "limit").write_text("0")
    options = Options()
    options.parseOptions(
        ["--connection-rate", f"@{tmp_path / 'limit'}", "--listen", f"unix:{tmp_path / 's'}"]
    )
    sharing = Sharing(2)
    shared = common(reactor, options, None, ask=sharing, held=True)
    service = AllOrNone()
    listen(options, shared, service)
    service.privilegedStartService()
    reread(options, shared, service)()
    assert sharing.of(1) == sharing.of(2) != [[]]
    (tmp_path / "limit").write_text("7")
    reread(options, shared, service)()
    assert sharing.of(2) == [[]] != sharing.of(1)
    assert [text for text in log.texts if "what was there before stays" in text] == []
    sharing.close()
