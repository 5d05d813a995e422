"""The service that options ask for, on real sockets, with a reactor turned by hand."""

import atexit
import errno
import os
import signal
import socket
from contextlib import closing
from typing import Any, ClassVar

import pytest
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred

from sockservice import DatagramServer, LineServer
from sockservice.daemon.exit import endWith
from sockservice.server.answers import Answer
from tests.conftest import PATIENCE, HandReactor, Log, Running, unprivileged


class Slow(LineServer):
    """Answers when the test does."""

    due: ClassVar[list[Deferred[bytes | None]]] = []

    def answer(self, line: bytes) -> Answer:
        self.due.append(Deferred())
        return self.due[-1]


class SlowDatagrams(DatagramServer):
    """Answers when the test does, at most two at a time."""

    answerLimit = 2
    due: ClassVar[list[Deferred[bytes | None]]] = []

    def answer(self, datagram: bytes, peer: Any) -> Answer:
        self.due.append(Deferred())
        return self.due[-1]


@pytest.fixture(autouse=True)
def none_due() -> None:
    Slow.due.clear()
    SlowDatagrams.due.clear()


def taken(kind: socket.SocketKind, other: socket.SocketKind) -> socket.socket:
    """Take a port that is free for the other kind."""
    while True:
        made = socket.socket(socket.AF_INET, kind)
        made.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            made.listen()
        if is_free(other, made.getsockname()[1]):
            return made
        made.close()


def is_free(kind: socket.SocketKind, port: int) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


# Coming up


def test_lines_and_datagrams_are_served_on_one_number_that_the_log_names(running: Running) -> None:
    running.start("--port", "0")
    (tcp, host, port), udp = running.addresses
    assert (tcp, host) == ("tcp", "127.0.0.1")
    assert udp == ("udp", host, port)
    assert running.ask(host, port, b"a\nb\r\n") == b"ok\nok\r\n"
    asking = running.asking(host, port)
    asking.send(b"hello")
    assert running.reactor.received(asking, 5) == b"hello"


def test_every_family_is_served_on_the_ipv6_wildcard(running: Running) -> None:
    running.start("--host", "::", "--port", "0")
    [(_, host, port), _] = running.addresses
    assert host == "::"
    for address in ("127.0.0.1", "127.0.0.2", "::1"):
        assert running.ask(address, port, b"a\n") == b"ok\n"
        asking = running.asking(address, port)
        asking.send(b"x")
        assert running.reactor.received(asking, 1) == b"x"


def test_a_name_stands_for_all_its_addresses(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some systems do, this one gives an address of a name twice."""
    resolve = socket.getaddrinfo

    def resolved(host: str, *args: Any, **kwargs: Any) -> Any:
        if host != "both.invalid":
            return resolve(host, *args, **kwargs)
        if kwargs.get("flags") == socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        found = [resolve(each, *args, **kwargs) for each in ("127.0.0.1", "::1", "127.0.0.1")]
        return [each for [each] in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    running.start("--host", "both.invalid", "--port", "0")
    addresses = running.addresses
    [number] = {port for _, _, port in addresses}
    assert sorted(addresses) == [
        (scheme, host, number) for scheme in ("tcp", "udp") for host in ("127.0.0.1", "::1")
    ]
    for host in ("127.0.0.1", "::1"):
        assert running.ask(host, number, b"a\n") == b"ok\n"


def test_twist_starts_it_without_the_privileged_start(running: Running) -> None:
    running.start("--port", "0", privileged=False)
    [(_, host, port), _] = running.addresses
    assert running.ask(host, port, b"a\n") == b"ok\n"


def test_options_reach_the_connections(running: Running, log: Log) -> None:
    running.start("--port", "0", "--line-limit", "3", "--verbose")
    [(_, host, port), _] = running.addresses
    replies = running.ask(host, port, b"abc\nabcd\n")
    assert replies == b"ok\nerror line longer than 3 bytes\n"
    asking = running.asking(host, port)
    asking.send(b"gram")
    running.reactor.received(asking, 4)
    assert [text for text in log.texts if text.endswith(" line b'abc'")]
    assert [text for text in log.texts if text.endswith(" datagram b'gram'")]


# Not coming up


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_taken_port_is_told_in_one_line_and_nothing_is_half_up(
    running: Running, kind: socket.SocketKind, capfd: pytest.CaptureFixture[str]
) -> None:
    other = socket.SOCK_DGRAM if kind == socket.SOCK_STREAM else socket.SOCK_STREAM
    with closing(taken(kind, other)) as holder:
        port = holder.getsockname()[1]
        said = running.fail("--port", str(port))
        scheme = "tcp" if kind == socket.SOCK_STREAM else "udp"
        assert said.startswith(f"cannot listen on {scheme}:127.0.0.1:{port}: the port is taken; ")
        assert capfd.readouterr().err.splitlines()[-1] == f"sockservice: {said}"
        assert is_free(other, port)
    assert running.addresses == []


def test_an_address_this_host_does_not_have_is_told(running: Running) -> None:
    """192.0.2.0/24 is nobody's (RFC 5737)."""
    said = running.fail("--host", "192.0.2.77", "--port", "5555")
    assert said.startswith("cannot listen on tcp:192.0.2.77:5555: this host has no such address")


@pytest.mark.parametrize("name", ["nowhere.invalid", "a..b", "x" * 70, "1.2.3.4.5", "\x1b[31m"])
def test_a_name_without_an_address_is_told(running: Running, name: str) -> None:
    said = running.fail("--host", name, "--port", "0")
    assert "host" in said
    assert ascii(name)[1:-1] in said
    assert said.isprintable()


def test_a_port_that_needs_root_is_told_with_the_remedy(running: Running) -> None:
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        if int(file.read()) <= 555:
            pytest.skip("this system lets everybody have every port")
    with unprivileged():
        said = running.fail("--port", "555")
    assert said.startswith("cannot listen on tcp:127.0.0.1:555: ")
    assert "ports below 1024 need root or CAP_NET_BIND_SERVICE; or choose --port 5555" in said


def test_any_other_reason_is_the_systems_own(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_datagrams(monkeypatch, errno.ENOBUFS, 1)
    said = running.fail("--port", "0")
    assert said.endswith(": No buffer space available")


def refuse_datagrams(monkeypatch: pytest.MonkeyPatch, number: int, times: int) -> None:
    """Have the next UDP sockets not be bound."""
    left = [number] * times

    class Refusing(socket.socket):
        def bind(self, address: Any) -> None:
            if self.type == socket.SOCK_DGRAM and left:
                raise OSError(left.pop(), "refused")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Refusing)


def test_a_number_that_udp_has_not_free_is_not_taken(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_datagrams(monkeypatch, errno.EADDRINUSE, 3)
    running.start("--port", "0")
    [(_, host, port), _] = running.addresses
    assert running.ask(host, port, b"a\n") == b"ok\n"


def test_it_does_not_look_for_a_free_number_for_ever(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_datagrams(monkeypatch, errno.EADDRINUSE, 100_000)
    assert "the port is taken" in running.fail("--port", "0")


# Going down


def test_stopping_an_idle_service_closes_its_connections(running: Running) -> None:
    service = running.start("--port", "0")
    [(_, host, port), _] = running.addresses
    peer = running.peer(host, port)
    peer.sendall(b"a\n")
    assert running.reactor.received(peer, 3) == b"ok\n"
    stopping = running.stopping(service)
    assert running.reactor.received(peer) == b""
    peer.close()
    running.reactor.result(stopping)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), PATIENCE).close()
    assert is_free(socket.SOCK_DGRAM, port)


def slow_lines(running: Running) -> tuple[MultiService, socket.socket]:
    service = running.start(
        "--listen", "tests.daemon.test_listeners.Slow@tcp:0:interface=127.0.0.1"
    )
    [(_, host, port)] = running.addresses
    return service, running.peer(host, port)


def test_stopping_waits_for_the_answers_to_what_was_received(running: Running) -> None:
    service, peer = slow_lines(running)
    peer.sendall(b"a\nb\n")
    running.reactor.until(lambda: len(Slow.due) == 2)
    stopping = running.stopping(service)
    running.reactor.advance(5)
    assert not stopping.called
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(peer.getpeername(), PATIENCE).close()
    Slow.due[1].callback(b"B")
    Slow.due[0].callback(b"A")
    assert running.reactor.received(peer) == b"A\nB\n"
    peer.close()
    running.reactor.result(stopping)
    assert running.reactor.getDelayedCalls() == []


def test_stopping_waits_no_longer_than_ten_seconds(running: Running) -> None:
    service, peer = slow_lines(running)
    peer.sendall(b"a\n")
    running.reactor.until(lambda: Slow.due)
    stopping = running.stopping(service)
    running.reactor.advance(9.9)
    assert not stopping.called
    running.reactor.advance(0.2)
    running.reactor.result(stopping)
    assert Slow.due[0].called


def slow_datagrams(running: Running) -> tuple[MultiService, socket.socket]:
    service = running.start(
        "--listen", "tests.daemon.test_listeners.SlowDatagrams@udp:0:interface=127.0.0.1"
    )
    [(_, host, port)] = running.addresses
    return service, running.asking(host, port)


def test_stopping_waits_for_the_answers_to_datagrams(running: Running) -> None:
    service, peer = slow_datagrams(running)
    peer.send(b"a")
    running.reactor.until(lambda: SlowDatagrams.due)
    stopping = running.stopping(service)
    running.reactor.advance(5)
    assert not stopping.called
    SlowDatagrams.due[0].callback(b"A")
    running.reactor.result(stopping)
    assert running.reactor.received(peer, 1) == b"A"


def test_no_datagram_is_read_while_it_stops(running: Running) -> None:
    """Not either when an answer makes room for one."""
    service, peer = slow_datagrams(running)
    for datagram in (b"a", b"b", b"c"):
        peer.send(datagram)
    running.reactor.until(lambda: len(SlowDatagrams.due) == 2)
    stopping = running.stopping(service)
    SlowDatagrams.due[0].callback(b"A")
    for _ in range(3):
        running.reactor.advance(0)
    assert len(SlowDatagrams.due) == 2
    SlowDatagrams.due[1].callback(b"B")
    running.reactor.result(stopping)


def test_stopping_waits_for_datagrams_no_longer_than_ten_seconds(running: Running) -> None:
    service, peer = slow_datagrams(running)
    peer.send(b"a")
    running.reactor.until(lambda: SlowDatagrams.due)
    stopping = running.stopping(service)
    running.reactor.advance(9.9)
    assert not stopping.called
    running.reactor.advance(0.2)
    running.reactor.result(stopping)


# Signals, and a status of our own


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_reactor_and_the_next_one_ends_at_once(
    running: Running, log: Log, number: signal.Signals
) -> None:
    running.start("--port", "0")
    stopped: list[None] = []
    running.reactor.addSystemEventTrigger("before", "shutdown", stopped.append, None)
    signal.raise_signal(number)
    running.reactor.until(lambda: stopped)
    assert [text for text in log.texts if text.startswith(f"{number.name}: answering what was")]
    assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_ignored(running: Running) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running.start("--port", "0")
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


def test_a_status_of_our_own_is_given_when_all_has_stopped(
    reactor: HandReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[tuple[Any, ...]] = []
    ended: list[int] = []
    monkeypatch.setattr(atexit, "register", lambda *call: registered.append(call))
    monkeypatch.setattr(os, "_exit", ended.append)
    stopped: list[None] = []
    reactor.addSystemEventTrigger("before", "shutdown", stopped.append, None)
    endWith(reactor, 7)
    reactor.until(lambda: stopped)
    [(call, *arguments)] = registered
    assert ended == []
    call(*arguments)
    assert ended == [7]


def test_a_host_and_port_are_served_beside_others_only_if_given(running: Running) -> None:
    running.start("--listen", "tcp:0:interface=127.0.0.1")
    assert len(running.addresses) == 1
    running.start("--listen", "tcp:0:interface=127.0.0.1", "--port", "0")
    assert [scheme for scheme, _, _ in running.addresses[1:]] == ["tcp", "udp", "tcp"]
