"""SIGHUP: what files say is read again, connections stay, and what is bad changes nothing."""

import shutil
import signal
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from sockservice.errors import CannotListen
from sockservice.net.tls.server import Wrapping
from tests.certificates import Identity
from tests.conftest import Children, HandReactor, Log, Running
from tests.net.test_tls import Client

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

READ = "SIGHUP: limits, networks and certificates have been read again"


def said(log: Log) -> list[str]:
    return [text for text in log.texts if text.startswith("SIGHUP")]


def hangUp(reactor: HandReactor, log: Log, lines: int = 1) -> list[str]:
    """Send ourselves the signal; give the `lines` lines that are logged of it."""
    before = len(said(log))
    signal.raise_signal(signal.SIGHUP)
    reactor.until(lambda: len(said(log)) > before)
    reactor.iterate(0)
    told = said(log)[before:]
    assert len(told) == lines
    return told


class File:
    """A file that options are read from."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.said = f"@{path}"
        self.write(text)

    def write(self, text: str) -> None:
        self.path.write_text(text)


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "file", "")


def test_networks_are_read_again_and_who_is_inside_stays(
    running: Running, reactor: HandReactor, log: Log, file: File
) -> None:
    running.start("--port", "0", "--deny", file.said)
    port = running.addresses[0][2]
    inside = running.peer("127.0.0.1", port)
    inside.sendall(b"a\n")
    assert reactor.received(inside, 3) == b"ok\n"
    file.write("127.0.0.0/8 # all\n")
    assert hangUp(reactor, log) == [READ]
    assert running.ask("127.0.0.1", port, b"x\n") == b"error not allowed: 127.0.0.1\n"
    inside.sendall(b"b\n")
    assert reactor.received(inside, 3) == b"ok\n"
    file.write("")
    hangUp(reactor, log)
    assert running.ask("127.0.0.1", port, b"x\n") == b"ok\n"


def test_who_may_is_read_again(
    running: Running, reactor: HandReactor, log: Log, file: File
) -> None:
    file.write("192.0.2.0/24\n")
    running.start("--port", "0", "--allow", file.said)
    port = running.addresses[0][2]
    assert running.ask("127.0.0.1", port, b"x\n") == b"error not allowed: 127.0.0.1\n"
    file.write("192.0.2.0/24\n127.0.0.1\n")
    hangUp(reactor, log)
    assert running.ask("127.0.0.1", port, b"x\n") == b"ok\n"


@pytest.mark.parametrize(
    ("option", "before", "after", "reply"),
    [
        ("max-connections", "1", "2", b"error busy: 1 connections, the limit; try again later\n"),
        (
            "max-connections-per-source",
            "1",
            "2",
            b"error busy: 1 connections from 127.0.0.1, the limit; try again later\n",
        ),
        (
            "connection-rate",
            "1 # a second\n",
            "0",
            b"error busy: 1 connections a second from 127.0.0.1, the limit; try again later\n",
        ),
    ],
)
def test_a_limit_of_connections_may_be_in_a_file(
    running: Running,
    reactor: HandReactor,
    log: Log,
    file: File,
    option: str,
    before: str,
    after: str,
    reply: bytes,
) -> None:
    file.write(before)
    running.start("--port", "0", f"--{option}", file.said)
    port = running.addresses[0][2]
    first = running.peer("127.0.0.1", port)
    first.sendall(b"a\n")
    assert reactor.received(first, 3) == b"ok\n"
    assert running.ask("127.0.0.1", port, b"x\n") == reply
    file.write(after)
    hangUp(reactor, log)
    assert running.ask("127.0.0.1", port, b"x\n") == b"ok\n"


@pytest.mark.parametrize(
    ("option", "sent", "reply"),
    [
        ("idle-timeout", b"", b"error idle for 5 seconds\n"),
        ("line-timeout", b"half", b"error unfinished line for 5 seconds\n"),
    ],
)
def test_a_timeout_may_be_in_a_file(
    running: Running,
    reactor: HandReactor,
    log: Log,
    file: File,
    option: str,
    sent: bytes,
    reply: bytes,
) -> None:
    file.write("50")
    running.start("--port", "0", f"--{option}", file.said)
    peer = running.peer("127.0.0.1", running.addresses[0][2])
    peer.sendall(sent)
    for _ in range(10):
        reactor.advance(1)
    file.write("5")
    hangUp(reactor, log)
    reactor.advance(1)
    assert reactor.received(peer) == reply


def test_the_longest_line_and_the_time_to_drain_may_be_in_files(
    running: Running, reactor: HandReactor, log: Log, file: File
) -> None:
    other = File(file.path.with_name("other"), "3")
    file.write("2")
    service = running.start("--port", "0", "--line-limit", file.said, "--drain-timeout", other.said)
    port = running.addresses[0][2]
    assert running.ask("127.0.0.1", port, b"xxx\n") == b"error line longer than 2 bytes\n"
    file.write("3")
    other.write("0")
    hangUp(reactor, log)
    assert running.ask("127.0.0.1", port, b"xxx\n") == b"ok\n"
    running.peer("127.0.0.1", port)
    reactor.until(lambda: [text for text in log.texts if "connected" in text][2:])
    stopping = running.stopping(service)
    reactor.advance(0.1)
    reactor.result(stopping)


def test_a_rate_of_lines_may_be_in_a_file(
    running: Running, reactor: HandReactor, log: Log, file: File
) -> None:
    file.write("1")
    running.start("--port", "0", "--line-rate", file.said)
    peer = running.peer("127.0.0.1", running.addresses[0][2])
    peer.sendall(b"a\n" * 10)
    assert reactor.received(peer, 3) == b"ok\n"
    file.write("0")
    hangUp(reactor, log)
    reactor.advance(1)
    assert reactor.received(peer, 27) == b"ok\n" * 9


def test_a_rate_of_datagrams_may_be_in_a_file(
    running: Running, reactor: HandReactor, log: Log, file: File
) -> None:
    file.write("1")
    running.start("--port", "0", "--datagram-rate", file.said)
    peer = running.asking("127.0.0.1", running.addresses[1][2])
    for datagram in (b"a", b"b"):
        peer.send(datagram)
    assert reactor.received(peer, 1) == b"a"
    file.write("0")
    hangUp(reactor, log)
    peer.send(b"c")
    assert reactor.received(peer, 1) == b"c"


def test_the_bound_on_memory_may_be_in_a_file(
    running: Running, reactor: HandReactor, log: Log, file: File
) -> None:
    file.write("1M")
    running.start("--port", "0", "--memory-limit", file.said)
    peer = running.peer("127.0.0.1", running.addresses[0][2])
    peer.sendall(b"x" * 5000)
    file.write("4K")
    hangUp(reactor, log)
    peer.sendall(b"x")
    assert reactor.received(peer).startswith(b"error busy: 4096 bytes held")


def test_the_bound_on_the_log_may_be_in_a_file(
    running: Running, reactor: HandReactor, log: Log, file: File
) -> None:
    file.write("100")
    running.start("--port", "0", "--log-limit", file.said)
    port = running.addresses[0][2]
    file.write("2")
    hangUp(reactor, log)
    for _ in range(5):
        running.ask("127.0.0.1", port, b"x\n")
    assert len([text for text in log.texts if text.endswith(" connected")]) == 2
    reactor.advance(10)
    assert "3 more in 10 seconds: connected" in log.texts


BAD = [
    pytest.param("many", "not a number of connections, a whole number from 0 to 1000000000"),
    pytest.param("1\n2\n", "not a number of connections, a whole number from 0 to 1000000000"),
    pytest.param("", "not a number of connections, a whole number from 0 to 1000000000"),
]


@pytest.mark.parametrize(("text", "why"), BAD)
def test_a_bad_file_changes_nothing_and_one_line_says_so(
    running: Running, reactor: HandReactor, log: Log, file: File, text: str, why: str
) -> None:
    other = File(file.path.with_name("other"), "")
    file.write("1")
    running.start("--port", "0", "--max-connections", file.said, "--deny", other.said)
    port = running.addresses[0][2]
    inside = running.peer("127.0.0.1", port)
    inside.sendall(b"a\n")
    assert reactor.received(inside, 3) == b"ok\n"
    file.write(text)
    other.write("127.0.0.1")
    assert hangUp(reactor, log) == [
        f"SIGHUP: --max-connections {file.said}: {why}; what was there before stays"
    ]
    assert running.ask("127.0.0.1", port, b"x\n") == (
        b"error busy: 1 connections, the limit; try again later\n"
    )


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.unlink(), "No such file or directory"),
        (
            lambda path: path.write_text("nonsense"),
            "'nonsense' does not appear to be an IPv4 or IP",
        ),
        (lambda path: path.write_bytes(b"\xff\xfe"), "no text"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    ],
)
def test_a_file_that_is_gone_or_nonsense_changes_nothing(
    running: Running, reactor: HandReactor, log: Log, file: File, spoil: Any, why: str
) -> None:
    file.write("127.0.0.1")
    running.start("--port", "0", "--deny", file.said)
    port = running.addresses[0][2]
    spoil(file.path)
    [told] = hangUp(reactor, log)
    assert told.startswith(f"SIGHUP: --deny {file.said}: {why}")
    assert running.ask("127.0.0.1", port, b"x\n") == b"error not allowed: 127.0.0.1\n"


def test_several_signals_are_several_readings(
    running: Running, reactor: HandReactor, log: Log, file: File
) -> None:
    running.start("--port", "0", "--deny", file.said)
    for _ in range(5):
        signal.raise_signal(signal.SIGHUP)
    reactor.until(lambda: said(log) == [READ] * 5)
    assert running.ask("127.0.0.1", running.addresses[0][2], b"x\n") == b"ok\n"


# Certificates


@pytest.fixture
def authority(tmp_path: Path) -> Identity:
    return Identity(tmp_path, "authority")


@pytest.fixture
def server(tmp_path: Path, authority: Identity) -> Identity:
    return Identity(tmp_path, "server", authority)


@pytest.fixture
def renewed(tmp_path: Path, authority: Identity) -> Identity:
    return Identity(tmp_path, "renewed", authority)


def shown(client: Client) -> x509.Name:
    """Give the subject of the certificate that the server shows."""
    client.shake()
    der = client.socket.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).subject


def copied(new: Identity, over: Identity) -> None:
    shutil.copy(new.privateKey, over.privateKey)
    shutil.copy(new.certKey, over.certKey)


def test_new_connections_get_the_new_certificate_and_old_ones_stay(
    running: Running,
    reactor: HandReactor,
    log: Log,
    opened: ExitStack,
    authority: Identity,
    server: Identity,
    renewed: Identity,
) -> None:
    running.start("--listen", f"ssl:0:interface=127.0.0.1:{server.said}")
    old = Client(running, opened, authority)
    assert shown(old) == server.certificate.subject
    copied(renewed, over=server)
    assert hangUp(reactor, log) == [READ]
    new = Client(running, opened, authority)
    assert shown(new) == renewed.certificate.subject
    for client in (old, new):
        client.send(b"a\n")
        assert client.receive(3) == b"ok\n"


def test_a_bad_certificate_stays_out_but_good_networks_come_in(
    running: Running,
    reactor: HandReactor,
    log: Log,
    opened: ExitStack,
    authority: Identity,
    server: Identity,
    renewed: Identity,
    file: File,
) -> None:
    running.start(
        "--listen",
        f"ssl:0:interface=127.0.0.1:{server.said}",
        "--max-connections",
        "9",
        "--deny",
        file.said,
    )
    shutil.copy(renewed.certKey, server.certKey)  # and not its key
    file.write("192.0.2.0/24")
    assert hangUp(reactor, log) == [
        f"SIGHUP: ssl: the private key in {server.privateKey} is not that of the certificate; "
        "what was there before stays"
    ]
    assert shown(Client(running, opened, authority)) == server.certificate.subject
    file.write("127.0.0.1")
    hangUp(reactor, log)
    [(_, host, port)] = running.addresses
    assert running.ask(host, port, b"") == b""
    assert [text for text in log.texts if "turned away: not allowed: 127.0.0.1" in text]


def test_an_encrypted_key_stays_out(
    running: Running,
    reactor: HandReactor,
    log: Log,
    opened: ExitStack,
    authority: Identity,
    server: Identity,
) -> None:
    running.start("--listen", f"ssl:0:interface=127.0.0.1:{server.said}")
    key = server.privateKey
    shutil.copy(server.lock(), key)
    assert hangUp(reactor, log) == [
        f"SIGHUP: ssl: the private key in {key} is encrypted; "
        f"decrypt it: openssl pkey -in {key} -out FILE; what was there before stays"
    ]
    assert shown(Client(running, opened, authority)) == server.certificate.subject


def test_each_listener_reads_its_own_files(
    running: Running,
    reactor: HandReactor,
    log: Log,
    opened: ExitStack,
    authority: Identity,
    server: Identity,
    renewed: Identity,
    tmp_path: Path,
) -> None:
    other = Identity(tmp_path, "other", authority)
    running.start(
        *("--listen", f"ssl:0:interface=127.0.0.1:{server.said}"),
        *("--listen", f"ssl:0:interface=127.0.0.2:{other.said}"),
    )
    server.certKey.unlink()
    copied(renewed, over=other)
    assert hangUp(reactor, log) == [
        f"SIGHUP: ssl: {server.certKey}: No such file or directory; what was there before stays"
    ]
    log.events[:] = [event for event in log.events if "127.0.0.1" not in str(event.get("name"))]
    assert shown(Client(running, opened, authority)) == renewed.certificate.subject


def test_a_file_that_is_half_written_is_never_more_than_bad(
    server: Identity, authority: Identity, tmp_path: Path
) -> None:
    whole = server.privateKey.read_bytes() + server.certKey.read_bytes()
    both = tmp_path / "both.pem"
    both.write_bytes(whole)
    wrapping = Wrapping({"privateKey": str(both)})
    before = wrapping._context
    for end in range(0, len(whole.rstrip()), 7):
        both.write_bytes(whole[:end])
        with pytest.raises(CannotListen):
            wrapping.reload()
        assert wrapping._context is before
    both.write_bytes(whole)
    wrapping.reload()
    assert wrapping._context is not before


# The real process


def test_a_reload_under_load_loses_nothing(children: Children) -> None:
    file = File(children.folder / "nets", "192.0.2.0/24")
    service = children.serve("--deny", file.said)
    with closing(service.connected()) as peer, peer.makefile("rb") as replies:
        for turn in range(5):
            file.write(f"192.0.2.{turn}")
            peer.sendall(b"a\r\nb\n" * 5000)
            service.process.send_signal(signal.SIGHUP)
            peer.sendall(b"a\r\nb\n" * 5000)
            assert replies.read(70_000) == b"ok\r\nok\n" * 10_000
            service.until(rb"(SIGHUP: limits[^\n]*\n(?s:.*)){%d}" % (turn + 1))
        file.write("nonsense")
        service.process.send_signal(signal.SIGHUP)
        service.until(rb"SIGHUP: --deny @\S+/nets: 'nonsense' does not")
        file.write("127.0.0.1")
        service.process.send_signal(signal.SIGHUP)
        service.until(rb"(SIGHUP: limits[^\n]*\n(?s:.*)){6}")
        with closing(service.connected()) as late:
            assert late.recv(100) == b"error not allowed: 127.0.0.1\n"
        peer.sendall(b"still here\n")
        assert replies.readline() == b"ok\n"
    service.stop()
