"""Programs that others wrote, in front of the service and as its clients, as they are installed.

What docs/operating.md says of them is seen here, all of it on one server. A program that is
missing skips its cases.
"""

import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from tests.certificates import Identity
from tests.conftest import PATIENCE, Child, Children
from tests.process.test_workers import until

LINES = [b"%d" % number for number in range(1000)]
SENT = b"".join(line + b"\n" for line in LINES)
REPLIES = b"ok\n" * len(LINES)
Address = tuple[str, int]

# The protocol that the page gives to those who run it.
PAGE = Path(__file__).parents[2] / "docs" / "operating.md"
QUIET = re.compile(r"```python\n(# quiet\.py\n.*?)```", re.DOTALL)

HELD = """
from sockservice import LineServer
from twisted.internet.defer import Deferred

held = []


class Held(LineServer):
    async def answer(self, line):
        if line == b"go":
            while held:
                held.pop().callback(None)
        else:
            held.append(Deferred())
            print("waits for go", flush=True)
            await held[-1]
        return b"ok"
"""


def program(name: str) -> str:
    """Give where a program is; without it, skip the test."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} not here")
    return found


class Lines:
    """The service, the port of each of its listeners, and what it has stored."""

    def __init__(self, children: Children, server: Identity) -> None:
        here = "0:interface=127.0.0.1"
        listeners = {
            "ssl": f"ssl:{here}:{server.said}",
            "proxied": f"haproxy:tcp:{here}",
            "proxied ssl": f"haproxy:ssl:{here}:{server.said}",
            "held": f"held.Held@tcp:{here}",
            "discard": f"discard@tcp:{here}",
            "quiet": f"quiet.Quiet@tcp:{here}",
        }
        quiet = QUIET.search(PAGE.read_text())
        assert quiet is not None
        (children.folder / "quiet.py").write_text(quiet[1])
        (children.folder / "held.py").write_text(HELD)
        self._store = children.folder / "lines.db"
        self.service = children.serve(
            *("--store", f"sqlite:{self._store}", "--skip-silent", "--report", "1"),
            *("--log-limit", "0"),
            *(word for each in listeners.values() for word in ("--listen", each)),
        )
        self.ports = {}
        # They are announced in their order, behind the two that `--port` has.
        behind = max(self.service.output.find(each) for each in (b"on tcp:", b"on udp:"))
        for each in listeners:
            found = self.service.until(rb"listening on \S+?:127\.0\.0\.1:(\d+)\n", behind)
            self.ports[each], behind = int(found[1]), found.end()
        self.ports["ack"] = self.service.address[1]

    def to(self, listener: str) -> str:
        return f"127.0.0.1:{self.ports[listener]}"

    def stored(self, since: int = 0) -> list[tuple[int, bytes]]:
        """Give the lines behind the one of this number, with their own."""
        with closing(sqlite3.connect(f"file:{self._store}?mode=ro", uri=True)) as store:
            found = "SELECT id, line FROM lines WHERE id > ? ORDER BY id"
            return store.execute(found, (since,)).fetchall()

    @property
    def last(self) -> int:
        return max((number for number, _ in self.stored()), default=0)

    def mark(self) -> int:
        """Give how long the log is, with all that has happened by now."""
        _, source = asked(self.service.address, b"mark\n")
        return self.service.until(rb"127\.0\.0\.1:%d closed: lines=1 " % source).end()

    def closed(self, source: int) -> None:
        """Wait for the log to say that the peer with this port has sent LINES, and gone."""
        self.service.until(rb"127\.0\.0\.1:%d closed: lines=1000 refused=0" % source)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compatibility")


@pytest.fixture(scope="module")
def fleet(folder: Path) -> Iterator[Children]:
    """All programs that serve several cases."""
    with ExitStack() as stack:
        yield Children(folder, stack)


@pytest.fixture(scope="module")
def lines(fleet: Children, server: Identity) -> Iterator[Lines]:
    made = Lines(fleet, server)
    yield made
    made.service.stop()


def whole(peer: socket.socket) -> bytes:
    """Give all that comes, to the end of the stream."""
    with peer.makefile("rb") as file:
        return file.read()


def asked(address: Address, data: bytes) -> tuple[bytes, int]:
    """Send data, half-close; give all that comes back, and the port it was sent from."""
    with closing(socket.create_connection(address, PATIENCE)) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        return whole(peer), peer.getsockname()[1]


def asked_in_tls(
    address: Address,
    authority: Identity,
    data: bytes,
    end: type[ssl.SSLError] = ssl.SSLZeroReturnError,
) -> tuple[bytes, int]:
    """The same in TLS: a close_notify ends our direction, and the replies follow it.

    `end` is raised where they end: by a close_notify of the other side, unless it is told.
    """
    context = ssl.create_default_context(cafile=str(authority.certKey))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with closing(socket.create_connection(address, PATIENCE)) as peer:

        def exchange(step: Callable[[], bytes | None]) -> bytes | None:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    peer.sendall(outgoing.read())
                    arrived = peer.recv(65536)
                    incoming.write(arrived) if arrived else incoming.write_eof()

        exchange(tls.do_handshake)
        tls.write(data)
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()
        received = bytearray()
        with pytest.raises(end):
            while True:
                received += exchange(lambda: tls.read(65536)) or b""
        return bytes(received), peer.getsockname()[1]


class Fronts:
    """Listeners that are handed to a proxy, so that no port is chosen and connecting waits."""

    def __init__(self, children: Children, *names: str) -> None:
        self._children = children
        self._sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in names}
        self.addresses: dict[str, Address] = {
            name: each.getsockname() for name, each in self._sockets.items()
        }
        self.numbers = {name: each.fileno() for name, each in self._sockets.items()}

    def start(self, *command: str, **variables: str) -> "subprocess.Popen[bytes]":
        started = self._children.start(
            *command, pass_fds=[*self.numbers.values()], env=os.environ | variables
        )
        for each in self._sockets.values():
            each.close()
        return started


# Clients

PERL = r"""
use IO::Socket::INET;
my $peer = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => shift) or die $@;
print $peer $_ while <STDIN>;
$peer->flush;
$peer->shutdown(1);
print while <$peer>;
"""
NODE = """
const peer = require("net").connect(process.argv[1], "127.0.0.1");
process.stdin.pipe(peer);
peer.pipe(process.stdout);
"""
CLIENTS: dict[str, Callable[[str], list[str]]] = {
    "busybox": lambda port: ["nc", "127.0.0.1", port],
    "perl": lambda port: ["-e", PERL, port],
    "node": lambda port: ["-e", NODE, port],
}


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("name", CLIENTS)
def test_each_line_of_a_client_is_acknowledged_and_stored(
    lines: Lines, children: Children, name: str, ending: bytes
) -> None:
    command = (program(name), *CLIENTS[name](str(lines.ports["ack"])))
    before = lines.last
    done = children.run(*command, input=b"".join(line + ending for line in LINES))
    assert (done.returncode, done.stdout, done.stderr) == (0, (b"ok" + ending) * len(LINES), b"")
    assert [line for _, line in lines.stored(before)] == LINES


# haproxy


def haproxy(children: Children, name: str, servers: dict[str, tuple[str, ...]]) -> Fronts:
    """Start haproxy, with each of `servers` behind a front of its own.

    Of each it is told, in this order: how it binds, its server, and whatever else there is.
    """
    fronts = Fronts(children, *servers)
    told = ["defaults", "mode tcp"]
    told += [f"timeout {each} 20s" for each in ("connect", "client", "server", "check")]
    for place, (front, (bind, server, *others)) in enumerate(servers.items()):
        told += [f"listen l{place}", f"bind fd@{fronts.numbers[front]} {bind}"]
        told += [f"server one {server}", *others]
    file = children.folder / f"{name}.cfg"
    file.write_text("\n".join([*told, ""]))
    fronts.start(program("haproxy"), "-db", "-f", str(file))
    return fronts


def answered(front: Address) -> None:
    """Wait for all replies: under load a check may come too late, and its server is down then."""

    def come() -> bool:
        with suppress(OSError):
            return asked(front, SENT)[0] == REPLIES
        return False

    until(come)


# Without a header haproxy withholds the handshake's last ACK, and nothing is accepted.
CHECKS = ["check v1", "check v2", "check TLS"]


@pytest.fixture(scope="module")
def haproxied(
    lines: Lines, fleet: Children, folder: Path, server: Identity, authority: Identity
) -> dict[str, Address]:
    both = folder / "both.pem"
    both.write_bytes(server.certKey.read_bytes() + server.privateKey.read_bytes())
    tls = f"ssl verify required ca-file {authority.certKey} verifyhost localhost"
    proxied, often = lines.to("proxied"), "check inter 200ms rise 1"
    servers: dict[str, tuple[str, ...]] = {
        "v1": ("", f"{proxied} send-proxy"),
        "v2": ("", f"{proxied} send-proxy-v2"),
        "v2 with what TLS said": ("", f"{proxied} send-proxy-v2-ssl"),
        "ends TLS": (f"ssl crt {both}", f"{proxied} send-proxy-v2-ssl"),
        "begins TLS": ("", f"{lines.to('proxied ssl')} send-proxy-v2 {tls}"),
        "check v1": ("", f"{proxied} send-proxy check-send-proxy {often}"),
        "check v2": ("", f"{proxied} send-proxy-v2 check-send-proxy {often}"),
        "check TLS": ("", f"{lines.to('ssl')} ssl verify none check-ssl {often}"),
    }
    return haproxy(fleet, "haproxy", servers).addresses


@pytest.mark.parametrize("kind", ["v1", "v2", "v2 with what TLS said", "begins TLS"])
def test_haproxy_names_the_peer_and_passes_its_half_close_on(
    lines: Lines, haproxied: dict[str, Address], kind: str
) -> None:
    received, source = asked(haproxied[kind], SENT)
    assert received == REPLIES
    lines.closed(source)


def test_haproxy_ends_tls(lines: Lines, haproxied: dict[str, Address], authority: Identity) -> None:
    received, source = asked_in_tls(haproxied["ends TLS"], authority, SENT)
    assert received == REPLIES
    lines.closed(source)


def test_checks_that_only_connect_leave_the_log_quiet(
    lines: Lines, haproxied: dict[str, Address]
) -> None:
    service = lines.service
    seen = lines.mark()
    for kind in CHECKS:
        answered(haproxied[kind])
        seen = service.until(rb"closed: lines=1000 refused=0.*\n", seen).end()
    first = service.until(rb"so far: (\d+) connections?", seen)
    second = service.until(rb"so far: (\d+) connections?", first.end())
    assert int(second[1]) > int(first[1])
    assert re.findall(rb"127\.0\.0\.1:\d+ .*", service.output[seen:]) == []


def test_a_check_may_send_a_line_and_see_that_it_is_acknowledged(
    lines: Lines, children: Children
) -> None:
    checked = (
        "",
        f"{lines.to('ack')} check inter 200ms rise 1",
        "option tcp-check",
        r"tcp-check send alive\n",
        r"tcp-check expect string ok",
    )
    before = lines.last
    fronts = haproxy(children, "checks", {"checked": checked})
    until(lambda: len(lines.stored(before)) >= 5)
    answered(fronts.addresses["checked"])


# nginx


@pytest.fixture(scope="module")
def nginxed(lines: Lines, fleet: Children, folder: Path, server: Identity) -> Iterator[Fronts]:
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    built = subprocess.run([program("nginx"), "-V"], capture_output=True, check=True).stderr
    if not module.exists() and b"--with-stream " not in built:
        pytest.skip("nginx's stream module not here")
    passing = "proxy_half_close on"
    named = f"proxy_pass {lines.to('proxied')}; proxy_protocol on; {passing}"
    key = f"ssl_certificate {server.certKey}; ssl_certificate_key {server.privateKey}"
    servers = {
        "named": named,
        "ends TLS": f"{named}; {key}",
        "passing": f"proxy_pass {lines.to('held')}; {passing}",
        "not passing": f"proxy_pass {lines.to('held')}",
    }
    fronts = Fronts(fleet, *servers)
    blocks = [
        f"server {{ listen 127.0.0.1:{fronts.addresses[front][1]}"
        f"{' ssl' if 'TLS' in front else ''}; {directives}; }}"
        for front, directives in servers.items()
    ]
    file = folder / "nginx.conf"
    file.write_text(
        f"""
        {f"load_module {module};" if module.exists() else ""}
        daemon off;
        worker_processes 1;
        pid {folder}/nginx.pid;
        error_log {folder}/nginx.log;
        events {{}}
        stream {{ {" ".join(blocks)} }}
        """
    )
    # Sockets are handed over in this variable when nginx replaces its own program.
    handed = "".join(f"{number};" for number in fronts.numbers.values())
    command = (program("nginx"), "-c", str(file), "-e", str(folder / "nginx.log"))
    process = fronts.start(*command, NGINX=handed)
    yield fronts
    # Killed, it would leave its worker behind.
    process.terminate()
    process.wait(PATIENCE)


def test_nginx_names_the_peer_and_passes_its_half_close_on(lines: Lines, nginxed: Fronts) -> None:
    received, source = asked(nginxed.addresses["named"], SENT)
    assert received == REPLIES
    lines.closed(source)


def test_nginx_ends_tls(lines: Lines, nginxed: Fronts, authority: Identity) -> None:
    # It closes without a close_notify of its own.
    received, source = asked_in_tls(nginxed.addresses["ends TLS"], authority, SENT, ssl.SSLEOFError)
    assert received == REPLIES
    lines.closed(source)


@pytest.mark.parametrize("front", ["passing", "not passing"])
def test_nginx_without_its_half_close_loses_the_replies_still_due(
    lines: Lines, nginxed: Fronts, front: str
) -> None:
    seen = lines.mark()
    with closing(socket.create_connection(nginxed.addresses[front], PATIENCE)) as peer:
        peer.sendall(b"x\n")
        lines.service.until(rb"waits for go", seen)
        peer.shutdown(socket.SHUT_WR)
        if front == "not passing":
            assert whole(peer) == b""
        assert asked(("127.0.0.1", lines.ports["held"]), b"go\n")[0] == b"ok\n"
        assert whole(peer) == (b"ok\n" if front == "passing" else b"")


# stunnel


@pytest.fixture(scope="module")
def stunnels(
    lines: Lines, fleet: Children, folder: Path, server: Identity, authority: Identity
) -> list[Address]:
    """The front that ends TLS, and the one that begins it."""
    file = folder / "stunnel.conf"
    file.write_text(
        f"""
        foreground = yes
        pid =
        debug = info
        syslog = no
        [ends]
        accept = 127.0.0.1:0
        connect = {lines.to("proxied")}
        protocol = proxy
        cert = {server.certKey}
        key = {server.privateKey}
        [begins]
        accept = 127.0.0.1:0
        client = yes
        connect = {lines.to("ssl")}
        CAfile = {authority.certKey}
        verifyChain = yes
        checkHost = localhost
        """
    )
    log = Child(fleet.start(program("stunnel"), str(file), stdout=-1, stderr=-2))
    found = log.until(rb"(?s)" + rb"bound to 127\.0\.0\.1:(\d+).*?" * 2)
    return [("127.0.0.1", int(number)) for number in found.groups()]


def test_stunnel_ends_tls_and_names_the_peer(
    lines: Lines, stunnels: list[Address], authority: Identity
) -> None:
    received, source = asked_in_tls(stunnels[0], authority, SENT)
    assert received == REPLIES
    lines.closed(source)


def test_stunnel_begins_tls(stunnels: list[Address]) -> None:
    assert asked(stunnels[1], SENT)[0] == REPLIES


# rsyslog


def rsyslog(
    children: Children, *numbers: int
) -> tuple["subprocess.Popen[bytes]", Callable[[list[bytes]], None]]:
    """Start rsyslogd, which forwards to these ports; give what logs, as by syslog(3)."""
    path = children.folder / "log"
    file = children.folder / "rsyslog.conf"
    forwarding = [
        f'action(type="omfwd" target="127.0.0.1" port="{number}" protocol="tcp")'
        for number in numbers
    ]
    file.write_text(
        "\n".join(
            [
                'module(load="imuxsock" SysSock.Use="off")',
                f'input(type="imuxsock" Socket="{path}")',
                *forwarding,
                "",
            ]
        )
    )
    pid = children.folder / "rsyslog.pid"
    process = children.start(program("rsyslogd"), "-n", "-f", str(file), "-i", str(pid))
    until(path.exists)

    def write(texts: list[bytes]) -> None:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sender:
            sender.settimeout(PATIENCE)
            sender.connect(str(path))
            for text in texts:
                sender.send(b"<13>Nov 26 20:00:00 compat: " + text)

    return process, write


def forwarded(lines: list[tuple[int, bytes]]) -> list[bytes]:
    parts = [line.partition(b" compat: ") for _, line in lines]
    assert all(each[0].startswith(b"<13>") for each in parts)
    return [each[2] for each in parts]


def test_what_rsyslog_forwards_is_stored(lines: Lines, children: Children) -> None:
    before = lines.last
    _, write = rsyslog(children, lines.ports["ack"])
    write([*LINES, b"two\nlines"])
    until(lambda: len(lines.stored(before)) > len(LINES))
    assert forwarded(lines.stored(before)) == [*LINES, b"two#012lines"]


def test_an_rsyslog_to_which_nothing_is_said_ends_without_a_reset(
    lines: Lines, children: Children
) -> None:
    behind = lines.mark()
    before = lines.last
    process, write = rsyslog(children, lines.ports["quiet"], lines.ports["discard"])
    write(LINES)
    until(lambda: len(lines.stored(before)) == len(LINES))
    process.send_signal(signal.SIGTERM)
    whole_and_clean = rb"closed: lines=1000 refused=0 [^\n]*closed cleanly"
    for _ in range(2):
        behind = lines.service.until(whole_and_clean, behind).end()
    assert forwarded(lines.stored(before)) == LINES
