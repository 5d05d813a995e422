"""What is outside hangs or floods: the service goes on, and ends within its bound."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from threading import Thread
from time import monotonic

import pytest

from tests.certificates import Identity
from tests.conftest import PATIENCE, Children, Service, sound

#: What a pipe holds (pipe(7)) in lines of the log, by far.
MANY = 1500

# A log that is written nowhere, as to a disk that hangs.
STUCK = """
import threading

from twisted.logger import formatEvent
from zope.interface import provider
from twisted.logger import ILogObserver


@provider(ILogObserver)
def stuck(event):
    if "listening on" in formatEvent(event):
        with open("log", "a") as log:
            log.write(formatEvent(event) + "\\n")
    elif "connected" in formatEvent(event):
        threading.Event().wait()


def observer():
    return stuck
"""

# A resolver that swallows.
SWALLOWS = """
import socket
import threading

from sockservice import Ack

print("swallows", flush=True)


def gethostbyaddr(host):
    threading.Event().wait()


socket.gethostbyaddr = gethostbyaddr


class Swallows(Ack):
    pass
"""

# A file system that hangs in open(2), for files called `slow`, while there is a pipe `gate`.
HANGS = """
import os

from sockservice import Ack

known = os.open


def hanging(path, *given, **more):
    if str(path).endswith("slow") and os.path.exists("gate"):
        os.close(known("gate", os.O_RDONLY))
    return known(path, *given, **more)


os.open = hanging


class Hangs(Ack):
    pass
"""


def answers(address: tuple[str, int], times: int) -> None:
    """Come, send a line, get its reply, and go, so many times."""
    for _ in range(times):
        with closing(socket.create_connection(address, PATIENCE)) as peer:
            peer.sendall(b"x\n")
            assert peer.recv(100) == b"ok\n"


def ends(process: "subprocess.Popen[bytes]", within: float = 8.0) -> None:
    """Have it end, as it was told, long before `--drain-timeout`."""
    began = monotonic()
    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert monotonic() - began < within


def listed(path: Path) -> tuple[str, int]:
    """Wait for the address in a log."""
    deadline = monotonic() + PATIENCE
    while monotonic() < deadline:
        text = path.read_text() if path.exists() else ""
        if found := re.search(r"ack listening on tcp:(\S+):(\d+)", text):
            return found[1], int(found[2])
    raise AssertionError(f"it is not in {path}")


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--workers", "2"],
        ["--workers", "2", "--store", "sqlite:lines.db"],
    ],
    ids=["alone", "workers", "stored"],
)
def test_a_log_that_nobody_reads_stops_nobody(children: Children, options: list[str]) -> None:
    service = children.serve("--log-limit", "0", *options)
    if options:
        service.until(rb"workers are ready")
    answers(service.address, MANY)
    ends(service.process)


def test_serve_goes_on_too(children: Children) -> None:
    process = children.start("sockservice", "serve", "--port", "0", "--log-limit", "0")
    service = Service(process).listening()
    answers(service.address, MANY)
    ends(process)


def test_a_stopped_terminal_stops_nobody(children: Children) -> None:
    shown, terminal = os.openpty()
    try:
        process = children.start(
            *("twistd", "-n", "--pidfile=", "sockservice", "--port", "0", "--log-limit", "0"),
            stdout=terminal,
            stderr=subprocess.STDOUT,
        )
        os.close(terminal)
        output = b""
        while not (found := re.search(rb"ack listening on tcp:(\S+):(\d+)", output)):
            output += os.read(shown, 4096)
        os.write(shown, b"\x13")
        answers((found[1].decode(), int(found[2])), MANY)
        ends(process)
    finally:
        os.close(shown)


def test_a_disk_that_hangs_stops_nobody(children: Children) -> None:
    (children.folder / "stuck.py").write_text(STUCK)
    process = children.start(
        *("twistd", "-n", "--pidfile=", "--logger", "stuck.observer"),
        *("sockservice", "--port", "0"),
        env={**os.environ, "PYTHONPATH": str(children.folder)},
    )
    address = listed(children.folder / "log")
    answers(address, 20)
    ends(process)


def test_what_was_not_read_is_told_when_it_is(children: Children) -> None:
    service = children.serve(
        *("--log-limit", "0", "--line-limit", "100000", "--verbose", "--log-queue", "1M")
    )
    with closing(service.connected()) as peer, peer.makefile("rb") as replies:
        for _ in range(40):
            peer.sendall(b"x" * 60_000 + b"\n")
            assert replies.readline() == b"ok\n"
        missing = int(
            service.until(rb"the log was not read: (\d+) lines? (?:is|are) missing here")[1]
        )
        peer.sendall(b"seen\n")
        assert replies.readline() == b"ok\n"
    service.until(rb"seen")
    service.stop()
    assert 0 < missing < 40
    assert b" %d lines of the log missing" % missing in service.output


def test_the_last_lines_are_there_and_so_is_a_traceback(children: Children) -> None:
    (children.folder / "ends.py").write_text(
        "from sockservice import Ack\n"
        "class Ends(Ack):\n"
        "    def answer(self, line):\n"
        "        raise RuntimeError('on purpose')\n"
    )
    process = children.start(
        *("twistd", "-n", "--pidfile=", "sockservice", "--listen", "ends.Ends@tcp:0"),
        env={**os.environ, "PYTHONPATH": str(children.folder)},
    )
    assert process.stdout is not None
    output = b""
    while not (found := re.search(rb"listening on tcp:(\S+):(\d+)", output)):
        output += os.read(process.stdout.fileno(), 4096)
    with closing(socket.create_connection((found[1].decode(), int(found[2])), PATIENCE)) as peer:
        peer.sendall(b"x\n")
        assert peer.recv(100) == b"error internal error\n"
    process.terminate()
    output += process.communicate(timeout=PATIENCE)[0]
    assert b"RuntimeError: on purpose" in output
    assert output.splitlines()[-1].endswith(b"Server Shut Down.")


def test_names_that_nobody_tells_do_not_keep_it(children: Children) -> None:
    (children.folder / "swallows.py").write_text(SWALLOWS)
    process = children.start(
        *("twistd", "-n", "sockservice", "--port", "0", "--listen", "swallows.Swallows@unix:s"),
        *("--host", "127.0.0.1", "--resolve", "--skip-silent"),
        env={**os.environ, "PYTHONPATH": str(children.folder)},
    )
    service = Service(process).listening()
    answers(service.address, 30)
    ends(process)
    assert not (children.folder / "twistd.pid").exists()


def test_threads_that_never_end_do_not_keep_it(children: Children) -> None:
    (children.folder / "waits.py").write_text(
        "import threading\n"
        "from twisted.internet import reactor\n"
        "from sockservice import Ack\n"
        "class Waits(Ack):\n"
        "    def answer(self, line):\n"
        "        reactor.callInThread(threading.Event().wait)\n"
        "        return b'begun'\n"
    )
    process = children.start(
        *("twistd", "-n", "sockservice", "--listen", "waits.Waits@unix:s"),
        env={**os.environ, "PYTHONPATH": str(children.folder)},
    )
    child = Service(process)
    child.until(rb"listening on unix")
    with closing(socket.socket(socket.AF_UNIX)) as peer:
        peer.connect(str(children.folder / "s"))
        peer.sendall(b"x\n")
        assert peer.recv(100) == b"begun\n"
    ends(process)
    child.until(rb"threads are still at work; ended without them")
    assert not (children.folder / "twistd.pid").exists()


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_whoever_does_not_read_the_status_page_delays_nobody(
    children: Children, options: list[str]
) -> None:
    """More of them than it has places."""
    service = children.serve("--status", "tcp:0:interface=127.0.0.1", *options)
    found = service.until(rb"status page listening on tcp:127.0.0.1:(\d+)")
    if options:
        service.until(rb"workers are ready")
    with ExitStack() as opened:
        for number in range(48):
            peer = opened.enter_context(closing(socket.socket()))
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            peer.connect(("127.0.0.1", int(found[1])))
            path = ("/", "/metrics", "/status.json", "/events")[number % 4]
            with suppress(ConnectionError):
                peer.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 50)
        took = []
        for _ in range(30):
            began = monotonic()
            answers(service.address, 1)
            took.append(monotonic() - began)
        # The median: other programs are busy as well.
        assert sorted(took)[15] < 0.1
        ends(service.process)


LATE = (
    rb"SIGHUP: files could not be read within 1 second \(--reload-timeout\); "
    rb"what was there before stays"
)


def hanging(children: Children, *options: str) -> Service:
    """Start what reads files called `slow`, and have them hang from then on."""
    (children.folder / "hangs.py").write_text(HANGS)
    process = children.start(
        *("twistd", "-n", "--pidfile=", "sockservice", "--port", "0", "--host", "127.0.0.1"),
        *("--listen", "hangs.Hangs@unix:s", "--reload-timeout", "1", "--log-limit", "0"),
        *options,
        env={**os.environ, "PYTHONPATH": str(children.folder)},
    )
    service = Service(process).listening()
    service.until(rb"listening on unix")
    if "--workers" in options:
        service.until(rb"workers are ready")
    os.mkfifo(children.folder / "gate")
    return service


def test_a_file_that_hangs_stops_nobody_and_holds_when_it_can_be_read(children: Children) -> None:
    slow = children.folder / "slow"
    slow.write_text("none\n")
    service = hanging(children, "--deny", "@slow")
    slow.write_text("127.0.0.0/8\n")
    service.process.send_signal(signal.SIGHUP)
    answers(service.address, 5)
    seen = service.until(LATE).end()
    tasks = Path(f"/proc/{service.process.pid}/task")
    threads = len(os.listdir(tasks))
    for _ in range(3):
        service.process.send_signal(signal.SIGHUP)
        seen = service.until(rb"SIGHUP: files are still being read", seen).end()
    assert len(os.listdir(tasks)) == threads
    answers(service.address, 5)
    # Whoever opens it waits for the one who reads it.
    gate = os.open(children.folder / "gate", os.O_WRONLY)
    (children.folder / "gate").unlink()
    os.close(gate)
    service.until(rb"SIGHUP: files can be read again", seen)
    service.until(rb"SIGHUP: limits, networks and certificates have been read again")
    with closing(service.connected()) as peer:
        assert peer.recv(100) == b"error not allowed: 127.0.0.1\n"
    service.stop()
    assert b" 4 reloads failed" in service.output


@pytest.mark.parametrize("options", [["--workers", "2"], ["--lame-duck", "0"]])
def test_a_certificate_that_hangs_does_not_keep_it(
    children: Children, server: Identity, options: list[str]
) -> None:
    (children.folder / "slow").write_bytes(server.privateKey.read_bytes())
    tls = f"ssl:0:interface=127.0.0.1:privateKey=slow:certKey={server.certKey}"
    service = hanging(children, "--listen", tls, *options)
    service.process.send_signal(signal.SIGHUP)
    answers(service.address, 5)
    service.until(LATE)
    answers(service.address, 5)
    ends(service.process)


def flood(pid: int, number: int, times: int) -> None:
    for _ in range(times):
        os.kill(pid, number)


@pytest.fixture(params=[[], ["--workers", "2"]], ids=["alone", "workers"])
def flooded(request: pytest.FixtureRequest, children: Children) -> Iterator[Service]:
    service = children.serve(*request.param)
    if request.param:
        service.until(rb"workers are ready")
    yield service
    service.stop()


@pytest.mark.parametrize(
    "number",
    [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD],
    ids=lambda number: number.name,
)
def test_a_flood_of_signals_stops_nobody(flooded: Service, number: int) -> None:
    floods = [Thread(target=flood, args=(flooded.process.pid, number, 5000)) for _ in range(2)]
    for each in floods:
        each.start()
    answers(flooded.address, 20)
    for each in floods:
        each.join()
    if number == signal.SIGHUP:
        flooded.until(rb"SIGHUP: limits, networks and certificates have been read again")
        answers(flooded.address, 1)
        assert flooded.output.count(b"SIGHUP: limits") < 200


def test_a_flood_that_ends_it_ends_it_in_order(children: Children) -> None:
    """The first is obeyed; whatever else comes in the same moment is the second."""
    service = children.serve()
    with suppress(ProcessLookupError):
        flood(service.process.pid, signal.SIGHUP, 5000)
        service.process.terminate()
        flood(service.process.pid, signal.SIGHUP, 5000)
    service.ended()


def test_the_log_that_was_moved_away_is_begun_anew(children: Children) -> None:
    twistd = Path(sys.executable).parent / "twistd"
    subprocess.run(
        [twistd, "--pidfile=here.pid", "sockservice", "--port", "0"],
        cwd=children.folder,
        check=True,
        timeout=PATIENCE,
    )
    log = children.folder / "twistd.log"
    address = listed(log)
    pid = int((children.folder / "here.pid").read_text())
    try:
        log.rename(children.folder / "moved")
        os.kill(pid, signal.SIGUSR1)
        deadline = monotonic() + PATIENCE
        while not log.exists():
            assert monotonic() < deadline
        answers(address, 1)
    finally:
        os.kill(pid, signal.SIGTERM)
    deadline = monotonic() + PATIENCE
    while "Server Shut Down." not in log.read_text():
        assert monotonic() < deadline
    assert "connected" in log.read_text()
    assert "Server Shut Down." not in (children.folder / "moved").read_text()
    sound(log.read_bytes())
