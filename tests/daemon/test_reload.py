"""SIGHUP: what files say is read again, connections stay, and what is bad changes nothing."""

import os
import shutil
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from cryptography import x509
from twisted.python import usage

from sockservice.daemon.options import Options
from sockservice.daemon.reload import PAUSE
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
    reactor.advance(PAUSE)
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
    return File(tmp_path / "file", "none\n")


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
    file.write("none\n")
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
        ("max-connections", "1", "2", b"error busy: 1 connection, the limit; try again later\n"),
        (
            "max-connections-per-source",
            "1",
            "2",
            b"error busy: 1 connection from 127.0.0.1, the limit; try again later\n",
        ),
        (
            "connection-rate",
            "1 # a second\n",
            "0",
            b"error busy: 1 connection a second from 127.0.0.1, the limit; try again later\n",
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
    other = File(file.path.with_name("other"), "none\n")
    file.write("1")
    running.start("--port", "0", "--max-connections", file.said, "--deny", other.said)
    port = running.addresses[0][2]
    inside = running.peer("127.0.0.1", port)
    inside.sendall(b"a\n")
    assert reactor.received(inside, 3) == b"ok\n"
    file.write(text)
    other.write("127.0.0.1\n")
    assert hangUp(reactor, log) == [
        f"SIGHUP: --max-connections {file.said}: {why}; what was there before stays"
    ]
    assert running.ask("127.0.0.1", port, b"x\n") == (
        b"error busy: 1 connection, the limit; try again later\n"
    )


LIST = b"10.0.0.0/8\n127.0.0.0/8\n"


def replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Give what puts something else in a file's place."""

    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


def written(what: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(what)


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def linked(path: Path, target: str) -> None:
    path.symlink_to(target)


SPOILT = [
    pytest.param(Path.unlink, "No such file or directory", id="gone"),
    pytest.param(replaced(Path.mkdir), "it is a folder; a regular file is wanted", id="folder"),
    pytest.param(replaced(os.mkfifo), "it is a pipe; a regular file is wanted", id="pipe"),
    pytest.param(replaced(bound), "it is a socket; a regular file is wanted", id="socket"),
    *(
        pytest.param(
            replaced(partial(linked, target=device)),
            "it is a device; a regular file is wanted",
            id=device,
        )
        for device in ("/dev/null", "/dev/zero", "/dev/tty")
    ),
    pytest.param(
        replaced(lambda path: path.symlink_to(path)),
        "Too many levels of symbolic links",
        id="circle",
    ),
    pytest.param(
        replaced(lambda path: path.symlink_to("nowhere")),
        "No such file or directory",
        id="link to nothing",
    ),
    *(
        pytest.param(written(what), "it holds no network; if that is meant, let it hold `none`")
        for what in (b"", b"\n\n", b" \t\r\n", b"# from now on nobody\n")
    ),
    *(
        pytest.param(
            written(LIST[:length]), "its last line does not end, and may be half of one", id=half
        )
        for length in range(1, len(LIST))
        if not (half := LIST[:length].decode()).endswith("\n")
    ),
    pytest.param(
        written(b"nonsense\n"),
        "line 1: 'nonsense' does not appear to be an IPv4 or IPv6 network",
        id="nonsense",
    ),
    pytest.param(
        written(b"# a\n\n10.1.2.3/8\n"), "line 3: 10.1.2.3/8 has host bits set", id="host bits"
    ),
    pytest.param(
        written(b"# caf\xe9\n10.0.0.0/8 \xe9\n"),
        r"line 2: byte 0xe9 in '10.0.0.0/8 \xe9', which may stand in a comment only",
        id="no ASCII",
    ),
    pytest.param(
        written(b"\xef\xbb\xbf10.0.0.0/8\n"),
        r"line 1: byte 0xef in '\xef\xbb\xbf10.0.0.0/8', which may stand in a comment only",
        id="byte order mark",
    ),
    pytest.param(
        written(bytes(1000) + b"\n"), "line 1: longer than any network", id="zeros of a crash"
    ),
    pytest.param(
        written(b"none\n10.0.0.0/8\n"),
        "line 1: 'none' does not appear to be an IPv4 or IPv6 network",
        id="none and one",
    ),
    pytest.param(written(b"10.0.0.0/8\n" * 500_000), "longer than 4 MiB", id="huge"),
]


@pytest.mark.parametrize(("spoil", "why"), SPOILT)
@pytest.mark.parametrize(("option", "before"), [("deny", LIST), ("allow", b"192.0.2.0/24\n")])
def test_a_list_that_is_spoilt_lets_in_nobody_else(
    running: Running,
    reactor: HandReactor,
    log: Log,
    file: File,
    option: str,
    before: bytes,
    spoil: Callable[[Path], object],
    why: str,
) -> None:
    file.path.write_bytes(before)
    running.start("--port", "0", f"--{option}", file.said)
    spoil(file.path)
    assert hangUp(reactor, log) == [
        f"SIGHUP: --{option} {file.said}: {why}; what was there before stays"
    ]
    port = running.addresses[0][2]
    assert running.ask("127.0.0.1", port, b"x\n") == b"error not allowed: 127.0.0.1\n"


@pytest.mark.parametrize(("spoil", "why"), SPOILT)
def test_a_list_that_is_spoilt_keeps_the_service_from_starting(
    file: File, spoil: Callable[[Path], object], why: str
) -> None:
    file.path.write_bytes(LIST)
    spoil(file.path)
    with pytest.raises(usage.UsageError) as problem:
        Options().parseOptions(["--deny", file.said])
    assert str(problem.value) == f"--deny {file.said}: {why}"


def test_a_list_that_is_being_written_is_left_for_later(
    running: Running, reactor: HandReactor, log: Log, file: File
) -> None:
    file.path.write_bytes(LIST)
    running.start("--port", "0", "--deny", file.said)
    with file.path.open("w") as writing:
        writing.write("10.0.0.0/8\n")
        writing.flush()
        assert hangUp(reactor, log) == [
            f"SIGHUP: --deny {file.said}: another program is writing it; "
            "what was there before stays"
        ]
    assert hangUp(reactor, log) == [READ]
    port = running.addresses[0][2]
    assert running.ask("127.0.0.1", port, b"x\n") == b"ok\n"


def test_a_comment_may_hold_any_byte(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"# caf\xe9 \0\n10.0.0.0/8 # \xff\n")
    (tmp_path / "number").write_bytes(b"# caf\xe9\n7 # \xff")
    options = Options()
    options.parseOptions([f"--deny=@{tmp_path}/list", "--max-connections", f"@{tmp_path}/number"])
    assert options["deny"] == [IPv4Network("10.0.0.0/8")]
    assert options["max-connections"] == 7


def test_many_signals_are_one_reading_more(
    running: Running, reactor: HandReactor, log: Log, file: File
) -> None:
    running.start("--port", "0", "--deny", file.said)
    for _ in range(5):
        signal.raise_signal(signal.SIGHUP)
    reactor.until(lambda: said(log) == [READ])
    for _ in range(5):
        signal.raise_signal(signal.SIGHUP)
    reactor.until(lambda: reactor.getDelayedCalls())
    reactor.advance(PAUSE - 0.01)
    assert said(log) == [READ]
    reactor.until(lambda: said(log) == [READ] * 2, passing=0.01)
    reactor.advance(2 * PAUSE)
    assert said(log) == [READ] * 2
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
    file.write("192.0.2.0/24\n")
    assert hangUp(reactor, log) == [
        f"SIGHUP: ssl: the private key in {server.privateKey} is not that of the certificate; "
        "what was there before stays"
    ]
    assert shown(Client(running, opened, authority)) == server.certificate.subject
    file.write("127.0.0.1\n")
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
    file = File(children.folder / "nets", "192.0.2.0/24\n")
    service = children.serve("--deny", file.said)
    with closing(service.connected()) as peer, peer.makefile("rb") as replies:
        for turn in range(5):
            file.write(f"192.0.2.{turn}\n")
            peer.sendall(b"a\r\nb\n" * 5000)
            service.process.send_signal(signal.SIGHUP)
            peer.sendall(b"a\r\nb\n" * 5000)
            assert replies.read(70_000) == b"ok\r\nok\n" * 10_000
            service.until(rb"(SIGHUP: limits[^\n]*\n(?s:.*)){%d}" % (turn + 1))
        file.write("nonsense\n")
        service.process.send_signal(signal.SIGHUP)
        service.until(rb"SIGHUP: --deny @\S+/nets: line 1: 'nonsense' does not")
        file.write("127.0.0.1\n")
        service.process.send_signal(signal.SIGHUP)
        service.until(rb"(SIGHUP: limits[^\n]*\n(?s:.*)){6}")
        with closing(service.connected()) as late:
            assert late.recv(100) == b"error not allowed: 127.0.0.1\n"
        peer.sendall(b"still here\n")
        assert replies.readline() == b"ok\n"
    service.stop()
