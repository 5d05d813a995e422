"""Endpoint strings: what each serves, and what is said of one that cannot be served."""

import atexit
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from io import BytesIO
from pathlib import Path

import pytest
from twisted.internet.error import CannotListenError

from tests.conftest import (
    PATIENCE,
    SCRIPTS,
    Child,
    Children,
    Log,
    Running,
    Serving,
    received,
)


def on(endpoint: str) -> tuple[str, ...]:
    return ("--listen", endpoint)


@pytest.mark.parametrize(
    ("endpoint", "scheme", "host"),
    [
        ("tcp:0:interface=127.0.0.1", "tcp", "127.0.0.1"),
        ("tcp:port=0:interface=127.0.0.1:backlog=7", "tcp", "127.0.0.1"),
        ("tcp:0", "tcp", "0.0.0.0"),
        ("tcp:0:interface=", "tcp", "0.0.0.0"),
        (r"tcp:0:interface=\:\:1", "tcp", "::1"),
        ("tcp6:0", "tcp", "::"),
    ],
)
async def test_streams_are_acknowledged(
    serving: Serving, endpoint: str, scheme: str, host: str
) -> None:
    serving.start(*on(endpoint))
    [(said, where, port)] = serving.addresses
    assert (said, where) == (scheme, host)
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    assert await serving.ask(reached, port, b"a\r\n") == b"ok\r\n"


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("udp:0:interface=127.0.0.1", "127.0.0.1"),
        (r"udp:port=0:interface=\:\:1", "::1"),
    ],
)
async def test_datagrams_are_echoed(serving: Serving, endpoint: str, host: str) -> None:
    serving.start(*on(endpoint))
    [(scheme, where, port)] = serving.addresses
    assert (scheme, where) == ("udp", host)
    asking = serving.asking(host, port)
    asking.send(b"x" * 60_000)
    assert await received(asking, 60_000) == b"x" * 60_000


async def test_a_unix_stream_is_acknowledged(serving: Serving, tmp_path: Path, log: Log) -> None:
    serving.start(*on(f"unix:{tmp_path}/s"))
    peer = serving.local(tmp_path / "s")
    peer.sendall(b"a\n")
    assert await received(peer, 3) == b"ok\n"
    assert f"ack listening on unix:{tmp_path}/s" in log.texts


async def test_a_path_with_colons_and_equals_signs_is_escaped(
    serving: Serving, tmp_path: Path
) -> None:
    serving.start(*on(rf"unix:{tmp_path}/a\:b\=c\\d"), *on(f"unix:address={tmp_path}/a=b"))
    for name in (r"a:b=c\d", "a=b"):
        peer = serving.local(tmp_path / name)
        peer.sendall(b"a\n")
        assert await received(peer, 3) == b"ok\n"


async def test_unix_datagrams_are_echoed_to_who_has_a_name(
    serving: Serving, tmp_path: Path
) -> None:
    service = serving.start(*on(f"unix-datagram:{tmp_path}/s"))
    nameless = serving.local(tmp_path / "s", socket.SOCK_DGRAM)
    nameless.send(b"nobody hears")
    named = serving.local(tmp_path / "s", socket.SOCK_DGRAM, f"{tmp_path}/c")
    named.send(b"hello")
    assert await received(named, 5) == b"hello"
    await serving.stop(service)
    assert not (tmp_path / "s").exists()


async def test_a_packet_is_a_line(serving: Serving, tmp_path: Path) -> None:
    serving.start(*on(f"echo@unix-seqpacket:{tmp_path}/s"))
    peer = serving.local(tmp_path / "s", socket.SOCK_SEQPACKET)
    for packet in (b"one", b"two\n", b"three\r\n"):
        peer.send(packet)
        assert await received(peer, len(packet)) == packet


# A third party's endpoint

PARSER = """
from twisted.internet import defer, endpoints, error, interfaces
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(interfaces.IStreamServerEndpoint)
class Refused:
    def listen(self, factory):
        return defer.fail(error.CannotListenError("any", 7, "not today"))


@implementer(interfaces.IStreamServerEndpoint)
class Late:
    listening = []

    def listen(self, factory):
        self.listening.append(defer.Deferred())
        return self.listening[-1]


@implementer(IPlugin, interfaces.IStreamServerEndpointStringParser)
class Parser:
    prefix = "elsewhere"

    def parseStreamServer(self, reactor, how):
        if how == "badly":
            return Refused()
        if how == "late":
            return Late()
        return endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")


parser = Parser()
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a plugin of Twisted's that parses `elsewhere:well` and `elsewhere:badly`."""
    import twisted.plugins

    (tmp_path / "sockservice_elsewhere.py").write_text(PARSER)
    path = [*twisted.plugins.__path__, str(tmp_path)]
    monkeypatch.setattr(twisted.plugins, "__path__", path)
    monkeypatch.delitem(sys.modules, "twisted.plugins.sockservice_elsewhere", raising=False)


@pytest.mark.usefixtures("third_party")
def test_an_endpoint_of_a_third_party_is_served(running: Running) -> None:
    service = running.start(*on("echo@elsewhere:well"))
    [(scheme, host, port)] = running.addresses
    assert (scheme, host) == ("elsewhere", "127.0.0.1")
    assert running.ask(host, port, b"a\n") == b"a\n"
    peer = running.peer(host, port)
    running.reactor.advance(0)
    stopping = running.stopping(service)
    assert running.reactor.received(peer) == b""
    peer.close()
    running.reactor.result(stopping)
    with pytest.raises(ConnectionRefusedError):
        running.peer(host, port)


@pytest.mark.usefixtures("third_party")
async def test_an_endpoint_of_a_third_party_behind_a_proxy_is_served(
    serving: Serving, log: Log
) -> None:
    serving.start(*on("haproxy:elsewhere:well"))
    [(_, host, port)] = serving.addresses
    header = b"PROXY TCP4 192.0.2.7 192.0.2.9 4000 5555\r\n"
    assert await serving.ask(host, port, header + b"a\n") == b"ok\n"
    assert "192.0.2.7:4000 connected" in log.texts


@pytest.mark.usefixtures("third_party")
def test_an_endpoint_of_a_third_party_that_fails_takes_all_others_down(
    running: Running,
) -> None:
    said = running.fail(*on("elsewhere:well"), *on("elsewhere:badly"))
    assert said == "cannot listen on elsewhere:badly: Couldn't listen on any:7: not today."
    [(_, host, port)] = running.addresses
    with pytest.raises(ConnectionRefusedError):
        running.peer(host, port)


@pytest.mark.usefixtures("third_party")
def test_an_endpoint_of_a_third_party_that_fails_later_ends_the_service(
    running: Running, log: Log, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses: list[int] = []
    stopped: list[None] = []
    monkeypatch.setattr(atexit, "register", lambda _, status: statuses.append(status))
    running.reactor.addSystemEventTrigger("before", "shutdown", stopped.append, None)
    running.start(*on("elsewhere:late"))
    [listening] = sys.modules["twisted.plugins.sockservice_elsewhere"].Late.listening
    assert statuses == []
    listening.errback(CannotListenError("any", 7, "not today"))
    said = "cannot listen on elsewhere:late: Couldn't listen on any:7: not today."
    running.reactor.until(lambda: stopped)
    assert statuses == [1]
    assert capfd.readouterr().err == f"sockservice: {said}\n"
    assert said in log.texts


@pytest.mark.usefixtures("third_party")
async def test_an_endpoint_of_a_third_party_is_waited_for_no_more_at_the_end(
    serving: Serving,
) -> None:
    service = serving.start(*on("elsewhere:late"))
    await serving.stop(service)


# Not coming up


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("", "bad endpoint '': it begins with no scheme"),
        (":5555", "bad endpoint :5555: it begins with no scheme"),
        ("port=5", "bad endpoint port=5: it begins with no scheme"),
        ("nonsense:1", "bad endpoint nonsense:1: Unknown endpoint type: 'nonsense'"),
        ("\x1b[31m", r"bad endpoint \x1b[31m: Unknown endpoint type: '\x1b[31m'"),
        ("tcp:", "bad endpoint tcp:: '' is not a port number"),
        ("tcp:65536", "bad endpoint tcp:65536: '65536' is not a port number"),
        ("tcp:-1", "bad endpoint tcp:-1: '-1' is not a port number"),
        ("tcp:\u0665", r"bad endpoint tcp:\u0665: '\u0665' is not a port number"),
        ("udp:domain", "bad endpoint udp:domain: 'domain' is not a port number"),
        (
            "tcp:0:interface=::1",
            r"bad endpoint tcp:0:interface=::1: too many parts (a `:` inside one is written `\:`)",
        ),
        (
            "tcp:0:interfcae=::1",
            "bad endpoint tcp:0:interfcae=::1: no option interfcae; "
            "it takes backlog, interface, port",
        ),
        (
            "udp:0:backlog=1",
            "bad endpoint udp:0:backlog=1: no option backlog; it takes interface, port",
        ),
        ("raw:lo:mode=1", "bad endpoint raw:lo:mode=1: no option mode"),
        ("tcp:0:backlog=x", "tcp:0:backlog=x: backlog=x is not a number of connections"),
        ("haproxy:udp:0", "haproxy:udp:0: a PROXY header can only stand before a stream"),
        (
            "systemd:",
            "systemd: no socket was passed to this process (LISTEN_PID says so); "
            "it has to be the one that was started: use twistd -n",
        ),
    ],
)
def test_a_bad_endpoint_is_told(running: Running, endpoint: str, said: str) -> None:
    assert running.fail(*on(endpoint)) == said
    assert running.addresses == []


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 11])
@pytest.mark.parametrize("endpoint", ["tcp:{}", "tcp:0:interface=127.0.0.1:backlog={}"])
def test_a_number_too_long_to_be_one_is_told(running: Running, endpoint: str, number: str) -> None:
    said = running.fail(*on(endpoint.format(number)))
    assert number in said


@pytest.mark.parametrize("endpoint", ["raw", "raw:"])
def test_an_interface_has_to_be_named(running: Running, endpoint: str) -> None:
    assert running.fail(*on(endpoint)).startswith(f"bad endpoint {endpoint}: ")


def test_a_packet_socket_takes_no_backlog_that_would_be_passed_over(
    running: Running, tmp_path: Path
) -> None:
    said = running.fail(*on(f"unix-datagram:{tmp_path}/s:backlog=5"))
    assert "no option backlog" in said


def test_the_backlog_of_a_unix_socket_is_its_own(running: Running, tmp_path: Path) -> None:
    """One connection more than the backlog fits; the next would have to wait."""
    running.start(*on(f"unix:{tmp_path}/s:backlog=1"))
    for _ in range(2):
        running.local(tmp_path / "s")
    with closing(socket.socket(socket.AF_UNIX)) as late:
        late.setblocking(False)
        with pytest.raises(BlockingIOError):
            late.connect(f"{tmp_path}/s")


def test_all_listeners_come_up_or_none(
    running: Running, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = running.fail(
        *on(f"unix:{tmp_path}/s"),
        *on("udp:0:interface=127.0.0.1"),
        *on(f"unix-datagram:{tmp_path}/d"),
        *on(f"unix:{tmp_path}/missing/s"),
    )
    assert said == f"cannot listen on {tmp_path}/missing/s: there is no folder {tmp_path}/missing"
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err.splitlines()[-1] == f"sockservice: {said}"


# Sockets that were passed


@contextmanager
def passed(
    monkeypatch: pytest.MonkeyPatch, *given: socket.socket, names: str = ""
) -> Iterator[None]:
    """Have this process find sockets from descriptor 3 on, as if it had been started so."""
    environment = f"LISTEN_PID={os.getpid()}\0LISTEN_FDS={len(given)}\0"
    if names:
        environment += f"LISTEN_FDNAMES={names}\0"
    monkeypatch.setattr(
        "sockservice.net.bind.activation.open",
        lambda *_: BytesIO(environment.encode()),
        raising=False,
    )
    kept: dict[int, int] = {}
    copies = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 100) for each in given]
    for number, copy in enumerate(copies, 3):
        with suppress(OSError):  # nothing had that number
            kept[number] = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 100)
        os.dup2(copy, number)
    try:
        yield
    finally:
        for number, copy in enumerate(copies, 3):
            os.close(copy)
            os.close(number)
            if number in kept:
                os.dup2(kept[number], number, inheritable=False)
                os.close(kept[number])


@pytest.fixture
def stream() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as made:
        yield made


@pytest.fixture
def datagrams() -> Iterator[socket.socket]:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as made:
        made.bind(("127.0.0.1", 0))
        yield made


@pytest.mark.parametrize(
    ("endpoints", "names"),
    [
        (("systemd:", "systemd:index=1"), ""),
        (("systemd:domain=INET:index=0", "echo@systemd:index=1"), "a:b"),
        (("ack@systemd:name=lines", "systemd:name=grams"), "lines:grams"),
    ],
)
async def test_passed_sockets_are_served(
    serving: Serving,
    monkeypatch: pytest.MonkeyPatch,
    stream: socket.socket,
    datagrams: socket.socket,
    endpoints: tuple[str, str],
    names: str,
) -> None:
    with passed(monkeypatch, stream, datagrams, names=names):
        serving.start(*on(endpoints[0]), *on(endpoints[1]))
    host, port = stream.getsockname()
    assert await serving.ask(host, port, b"a\n") == b"ok\n"
    asking = serving.asking(*datagrams.getsockname())
    asking.send(b"hello")
    assert await received(asking, 5) == b"hello"


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("systemd:index=1", "systemd: no socket of index '1'; 1 were passed"),
        ("systemd:index=x", "systemd: no socket of index 'x'; 1 were passed"),
        ("systemd:name=other", "systemd: no socket named 'other' was passed"),
        ("ack@systemd:name=late", "systemd: no socket named 'late' was passed"),
    ],
)
def test_a_socket_that_was_not_passed_is_told(
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
    stream: socket.socket,
    endpoint: str,
    said: str,
) -> None:
    with passed(monkeypatch, stream, names="lines:late"):
        assert running.fail(*on(endpoint)) == said


@pytest.mark.parametrize(
    ("family", "kind", "why"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, "it does not listen"),
        (socket.AF_INET, socket.SOCK_DGRAM, "it is bound to no address"),
        (
            socket.AF_NETLINK,
            socket.SOCK_RAW,
            "it is of the family AF_NETLINK; IPv4, IPv6 and UNIX are served",
        ),
    ],
)
def test_a_passed_socket_that_cannot_be_served_is_told(
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
    family: socket.AddressFamily,
    kind: socket.SocketKind,
    why: str,
) -> None:
    with socket.socket(family, kind) as given, passed(monkeypatch, given):
        assert running.fail(*on("systemd:")) == f"systemd:index=0: {why}"


def test_a_passed_connection_is_told(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, passed(monkeypatch, ours):
        said = running.fail(*on("systemd:"))
    assert said.startswith("systemd:index=0: it is connected; ")


def test_a_name_of_two_and_a_socket_for_two_are_told(
    running: Running, monkeypatch: pytest.MonkeyPatch, stream: socket.socket
) -> None:
    with passed(monkeypatch, stream, stream, names="a:a"):
        said = running.fail(*on("systemd:name=a"))
        assert said == "systemd: 2 sockets are named 'a'; choose by index: 0, 1"
        said = running.fail(*on("systemd:index=0"), *on("echo@systemd:index=1"))
    at = "{}:{}".format(*stream.getsockname())
    assert said == (
        f"ack listening on systemd:{at}, and echo listening on systemd:{at}: "
        "these are one socket, which only one listener can serve"
    )


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("tcp6:0", "cannot listen on tcp:[::]:0: this system has no IPv6"),
        ("udp:0", "cannot listen on udp:0.0.0.0:0: this system has no IPv4"),
        ("unix:s", "cannot listen on s: this system has no UNIX sockets"),
        ("raw:lo", "raw:lo: this system has no packet sockets"),
    ],
)
def test_a_family_that_the_system_has_not_is_told(
    running: Running, monkeypatch: pytest.MonkeyPatch, endpoint: str, said: str
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    service = running.make(*on(endpoint))
    monkeypatch.setattr("sockservice.net.bind.unbound.socket.socket", none)
    with pytest.raises(SystemExit) as ended:
        service.privilegedStartService()
    monkeypatch.undo()
    assert str(ended.value) == said


def test_a_process_serves_the_sockets_it_was_started_with(
    children: Children, stream: socket.socket, datagrams: socket.socket, opened: ExitStack
) -> None:
    """For the shell, a descriptor above 9 is nothing that it uses itself."""
    copies = [fcntl.fcntl(each, fcntl.F_DUPFD, 20) for each in (stream, datagrams)]
    for copy in copies:
        opened.callback(os.close, copy)
    script = (
        f"export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=lines:grams; "
        f"exec {SCRIPTS}/twistd -n --pidfile= sockservice --listen systemd:name=lines "
        f"--listen echo@systemd:index=1 3<&{copies[0]} 4<&{copies[1]}"
    )
    child = Child(children.start("/bin/bash", "-c", script, pass_fds=copies))
    child.until(rb"echo listening on systemd:127.0.0.1:\d+\n")
    with closing(socket.create_connection(stream.getsockname(), PATIENCE)) as peer:
        peer.sendall(b"a\n")
        assert peer.recv(9) == b"ok\n"
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
        asking.settimeout(PATIENCE)
        asking.connect(datagrams.getsockname())
        asking.send(b"hello")
        assert asking.recv(9) == b"hello"
    child.process.terminate()
    assert child.end() == (0, b"")
