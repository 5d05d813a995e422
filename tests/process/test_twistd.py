"""The real process: `twistd sockservice`, real sockets, signals."""

import json
import os
import re
import select
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Children, Service


def all_of(peer: socket.socket) -> bytes:
    """Receive up to the end."""
    with closing(peer), peer.makefile("rb") as file:
        return file.read()


def resident(service: Service) -> int:
    """Give the bytes of memory a process uses."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def test_a_half_close_behind_many_lines_gets_every_reply(service: Service) -> None:
    peer = service.connected()

    def send() -> None:
        peer.sendall(b"line\r\nline\n" * 10_000)
        peer.shutdown(socket.SHUT_WR)

    sending = threading.Thread(target=send)
    sending.start()
    replies = all_of(peer)
    sending.join(PATIENCE)
    assert replies == b"ok\r\nok\n" * 10_000


def test_a_line_byte_by_byte_gets_its_reply(service: Service) -> None:
    with closing(service.connected()) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"hello\r\n":
            peer.send(bytes([byte]))
        assert peer.recv(100) == b"ok\r\n"


def test_a_line_without_end_takes_no_memory(service: Service) -> None:
    with closing(service.connected()) as peer:
        peer.sendall(b"x" * 65536)
        before = resident(service)
        for _ in range(64):
            peer.sendall(b"x" * 2**20)
        peer.sendall(b"\nnext\n")
        peer.shutdown(socket.SHUT_WR)
        assert all_of(peer) == b"error line longer than 65536 bytes\nok\n"
        assert resident(service) - before < 16 * 2**20


def sent_until_full(peer: socket.socket) -> int:
    """Send empty lines until nobody takes them any more; give their number."""
    peer.setblocking(False)
    sent = 0
    while select.select([], [peer], [], 0.3)[1]:
        sent += peer.send(b"\n" * 65536)
    peer.settimeout(PATIENCE)
    return sent


def test_a_peer_that_never_reads_takes_no_memory_and_holds_up_nobody(service: Service) -> None:
    before = resident(service)
    with closing(service.connected(receiving=4096)) as deaf:
        sent_until_full(deaf)
        assert resident(service) - before < 16 * 2**20
        with closing(service.connected()) as other:
            other.sendall(b"a\n")
            assert other.recv(100) == b"ok\n"


def test_datagrams_come_back(service: Service) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
        asking.settimeout(PATIENCE)
        asking.connect(service.address)
        for datagram in (b"", b"hello", os.urandom(65507)):
            asking.send(datagram)
            assert asking.recv(65536) == datagram


# What it says and how it ends


@pytest.fixture
def holder() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as made:
        yield made


def test_a_taken_port_is_one_line_on_stderr_and_status_1(
    children: Children, holder: socket.socket
) -> None:
    port = holder.getsockname()[1]
    done = children.run("twistd", "-n", "--pidfile=", "sockservice", "--port", str(port))
    assert done.returncode == 1
    [said] = done.stderr.decode().splitlines()
    assert said.startswith(f"sockservice: cannot listen on tcp:127.0.0.1:{port}: the port is taken")
    assert b"Traceback" not in done.stdout
    assert b"listening on" not in done.stdout


def test_a_daemon_that_cannot_start_tells_so_before_it_goes(
    children: Children, holder: socket.socket
) -> None:
    port = holder.getsockname()[1]
    done = children.run("twistd", "sockservice", "--port", str(port))
    assert done.returncode == 1
    assert f"cannot listen on tcp:127.0.0.1:{port}: the port is taken" in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    pidfile = children.folder / "twistd.pid"
    # Its parent has ended; it removes the file and ends itself.
    with suppress(FileNotFoundError, ProcessLookupError):
        ending = os.pidfd_open(int(pidfile.read_text()))
        assert select.select([ending], [], [], PATIENCE)[0]
        os.close(ending)
    assert not pidfile.exists()


def test_an_address_that_is_not_ours_is_one_line_on_stderr_and_status_1(
    children: Children,
) -> None:
    """192.0.2.0/24 is nobody's (RFC 5737)."""
    done = children.run(
        "twistd", "-n", "--pidfile=", "sockservice", "--host", "192.0.2.77", "--port", "0"
    )
    assert done.returncode == 1
    [said] = done.stderr.decode().splitlines()
    assert said.startswith("sockservice: cannot listen on tcp:192.0.2.77:0: this host has no such")


def test_a_bad_option_is_one_line_on_stderr_and_status_1(children: Children) -> None:
    done = children.run("twistd", "-n", "--pidfile=", "sockservice", "--port", "abc")
    assert done.returncode == 1
    [said] = done.stderr.decode().splitlines()
    assert said.startswith("sockservice: --port abc: not a port number")
    assert done.stdout == b""


def test_the_ipv6_wildcard_serves_both_families_and_is_named_in_brackets(
    children: Children,
) -> None:
    service = children.serve("--host", "::", "--verbose")
    assert service.address[0] == "::"
    for host in ("127.0.0.1", "127.0.0.2", "::1"):
        with closing(service.connected(host)) as peer:
            peer.sendall(b"hello\x1b\n")
            assert peer.recv(100) == b"ok\n"
            written = "[::1]" if host == "::1" else host.replace("127.0.0.2", "127.0.0.1")
            port = peer.getsockname()[1]
        service.until(re.escape(f"{written}:{port} line b'hello\\x1b'").encode())
    service.stop()


def test_twist_runs_it_too(children: Children) -> None:
    process = children.start("twist", "--log-format=text", "sockservice", "--port", "0")
    service = Service(process).listening()
    with closing(service.connected()) as peer:
        peer.sendall(b"a\n")
        assert peer.recv(100) == b"ok\n"
    service.stop()


def test_a_stop_answers_what_was_received_and_ends_every_connection_well(
    children: Children,
) -> None:
    """No reset: it would destroy replies on their way."""
    service = children.serve()
    peer = service.connected(receiving=4096)
    sent = sent_until_full(peer)
    service.process.send_signal(signal.SIGTERM)
    service.until(rb"SIGTERM")
    replies = all_of(peer)
    service.ended()
    answered = re.search(rb" closed: lines=(\d+) refused=0 after", service.output)
    assert answered is not None
    assert 0 < int(answered[1]) <= sent
    assert replies == b"ok\n" * int(answered[1])


def free_privileged() -> int:
    """Give a port number below 1024 that nobody has."""
    for number in range(1023, 511, -1):
        kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        try:
            for kind in kinds:
                with socket.socket(socket.AF_INET, kind) as made:
                    made.bind(("127.0.0.1", number))
        except OSError:
            continue
        return number
    pytest.skip("no port below 1024 is free")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can bind a privileged port and let go")
@pytest.mark.usefixtures("elsewhere")
def test_sockets_are_bound_before_privileges_go(children: Children) -> None:
    port = free_privileged()
    process = children.start(
        *("twistd", "-n", "--pidfile=", "--uid", "65534", "--gid", "65534"),
        *("sockservice", "--port", str(port)),
    )
    service = Service(process).listening()
    assert service.address == ("127.0.0.1", port)
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert re.search(r"^Uid:\t65534\t65534\t65534\t65534$", status, re.MULTILINE)
    assert re.search(r"^Gid:\t65534\t65534\t65534\t65534$", status, re.MULTILINE)
    with closing(service.connected()) as peer:
        peer.sendall(b"a\n")
        assert peer.recv(100) == b"ok\n"
    service.stop()


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}], ids=["UTF-8", "C"]
)
def test_names_of_unix_sockets_are_the_same_in_every_locale(
    children: Children, locale: dict[str, str]
) -> None:
    (children.folder / "\xe9").mkdir()
    process = children.start(
        *("twistd", "-n", "--pidfile=", "sockservice", "--store", "sqlite:lines.db"),
        *("--listen", "ack@unix-datagram:\xe9/s"),
        env={**os.environ, "PYTHONCOERCECLOCALE": "0", **locale},
    )
    service = Service(process)
    service.until(rb"ack listening on unix-datagram:\\xe9/s\n")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as peer:
        peer.sendto(b"from nobody", f"{children.folder}/\xe9/s")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as peer:
        peer.bind(f"{children.folder}/\xe9/p")
        peer.settimeout(PATIENCE)
        peer.sendto(b"from somebody", f"{children.folder}/\xe9/s")
        assert peer.recv(100) == b"ok"
    service.stop()
    done = children.run("sockservice", "lines", "sqlite:lines.db", "--json")
    kept = [json.loads(line) for line in done.stdout.splitlines()[:-1]]
    assert [(each["peer"], each["listener"]) for each in kept] == [
        ("unix:unnamed", r"unix-datagram:\xe9/s"),
        (rf"{children.folder}/\xe9/p", r"unix-datagram:\xe9/s"),
    ]
