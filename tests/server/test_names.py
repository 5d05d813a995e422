"""Names of peers in the log: never waited for, never trusted."""

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.address import IPv4Address

from sockservice import Ack, LineFactory
from sockservice.limits.admission import Admission, Limits
from sockservice.limits.lograte import PERIOD, Journal
from sockservice.server import reversedns as names
from sockservice.server.reversedns import Names
from tests.conftest import PATIENCE, HandReactor, Log, Reactor, Serving, received, until

Asked = list[str]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Answer reverse lookups as the test needs them; give the hosts that were asked for."""
    hosts: Asked = []

    def gethostbyaddr(host: str) -> tuple[str, list[str], list[str]]:
        hosts.append(host)
        if host.startswith("198."):
            raise socket.herror(1, "Unknown host")
        return f"host-{host}.example\x1b", [], [host]

    monkeypatch.setattr(socket, "gethostbyaddr", gethostbyaddr)
    return hosts


def called(log: Log) -> list[str]:
    return [text for text in log.texts if "is called" in text]


async def test_the_name_is_logged_when_it_is_known(real: Reactor, asked: Asked, log: Log) -> None:
    looking = Names(real, Journal(real))
    looking.look("192.0.2.1:7", "192.0.2.1")
    assert called(log) == []
    await until(lambda: called(log))
    looking.look("192.0.2.1:8", "192.0.2.1")
    assert called(log) == [
        rf"192.0.2.1:{port} is called host-192.0.2.1.example\x1b, says its address"
        for port in (7, 8)
    ]
    assert asked == ["192.0.2.1"]


async def test_a_host_without_a_name_is_asked_for_once(
    real: Reactor, asked: Asked, log: Log
) -> None:
    looking = Names(real, Journal(real))
    looking.look("198.51.100.1:7", "198.51.100.1")
    looking.look("192.0.2.1:7", "192.0.2.1")
    await until(lambda: called(log))
    await until(lambda: "198.51.100.1" in looking._known)
    looking.look("198.51.100.1:8", "198.51.100.1")
    assert len(called(log)) == 1
    assert sorted(asked) == ["192.0.2.1", "198.51.100.1"]


async def test_no_more_than_so_many_are_looked_for_at_once(
    real: Reactor, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    monkeypatch.setattr(names, "UNDER_WAY", 2)
    let = threading.Event()

    def gethostbyaddr(host: str) -> tuple[str, list[str], list[str]]:
        assert let.wait(PATIENCE)
        return host, [], [host]

    monkeypatch.setattr(socket, "gethostbyaddr", gethostbyaddr)
    looking = Names(real, Journal(real))
    for last in range(3):
        looking.look(f"192.0.2.{last}:7", f"192.0.2.{last}")
    let.set()
    await until(lambda: len(called(log)) == 2)
    looking.look("192.0.2.9:7", "192.0.2.9")
    await until(lambda: len(called(log)) == 3)
    assert sorted(text.partition(":")[0] for text in called(log)) == [
        "192.0.2.0",
        "192.0.2.1",
        "192.0.2.9",
    ]


async def test_the_oldest_is_forgotten(
    real: Reactor, asked: Asked, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    monkeypatch.setattr(names, "KNOWN", 2)
    looking = Names(real, Journal(real))
    hosts = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    for number, host in enumerate([*hosts, "192.0.2.3", "192.0.2.1"], 1):
        looking.look(f"{host}:7", host)
        await until(lambda number=number: len(called(log)) == number)  # type: ignore[misc]
    assert asked == [*hosts, "192.0.2.1"]


def test_a_flood_of_names_is_summed_up(reactor: HandReactor, asked: Asked, log: Log) -> None:
    looking = Names(reactor, Journal(reactor, 2))
    looking.look("192.0.2.1:7", "192.0.2.1")
    reactor.until(lambda: called(log))
    for port in range(8, 12):
        looking.look(f"192.0.2.1:{port}", "192.0.2.1")
    assert len(called(log)) == 2
    reactor.advance(PERIOD)
    assert log.texts[-1] == "3 more in 10 seconds: names of peers"


@pytest.mark.parametrize("resolve", [False, True])
async def test_names_are_looked_for_when_it_is_asked_for(
    serving: Serving, asked: Asked, log: Log, resolve: bool
) -> None:
    option: Callable[[], list[str]] = lambda: ["--resolve"] if resolve else []  # noqa: E731
    serving.start("--listen", "tcp:0:interface=127.0.0.1", *option())
    [(_, host, port)] = serving.addresses
    assert await serving.ask(host, port, b"a\n") == b"ok\n"
    if resolve:
        await until(lambda: called(log))
    assert asked == (["127.0.0.1"] if resolve else [])


async def test_a_unix_peer_has_no_name_to_look_for(
    serving: Serving, asked: Asked, tmp_path: Any
) -> None:
    serving.start("--listen", f"unix:{tmp_path}/s", "--resolve")
    peer = serving.local(tmp_path / "s")
    peer.sendall(b"a\n")
    assert await received(peer, 3) == b"ok\n"
    assert asked == []


def test_without_threads_peers_stay_nameless_and_later_ones_do_not(
    reactor: HandReactor, asked: Asked, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = Names(reactor, Journal(reactor))
    with monkeypatch.context() as patched:
        patched.setattr(names, "Thread", _noThread)
        for number in range(names.UNDER_WAY + 1):
            looking.look(f"192.0.2.{number}:7", f"192.0.2.{number}")
    looking.look("192.0.2.99:7", "192.0.2.99")
    reactor.until(lambda: called(log))
    assert asked == ["192.0.2.99"]


def _noThread(**_: Any) -> None:
    raise RuntimeError("can't start new thread")


def test_a_connection_that_finds_no_memory_holds_no_place(reactor: HandReactor) -> None:
    class Starving(Names):
        def look(self, peer: str, host: str) -> None:
            raise MemoryError

    admission = Admission(Limits(connections=1))
    starving = Starving(reactor, Journal(reactor))
    factory = LineFactory(reactor, Ack, admission=admission, names=starving)
    address = IPv4Address("TCP", "192.0.2.1", 7)
    for _ in range(2):
        with pytest.raises(MemoryError):
            factory.buildProtocol(address)
    assert factory.counters.turnedAway == 0
