"""Names of hosts: who is asked for their addresses, and what is told where nobody can say."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.python.threadpool import ThreadPool

from sockservice import connect
from sockservice.client.explain import explained
from sockservice.client.resolving import lookedUp
from tests.conftest import ClosedNumber, HandReactor
from tests.doubles import Outcome


def failed(reactor: HandReactor, target: str, **how: int) -> BaseException:
    """See that it can't be connected to; give the reason."""
    outcome = Outcome(connect(reactor, target, ip=how.get("ip")))
    reactor.until(lambda: outcome.came, passing=0.1)
    reactor.advance(0)
    return outcome.error


@contextmanager
def full() -> Iterator[None]:
    """Leave no descriptor to open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as held:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), before[1]))
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        with pytest.raises(OSError):
            while True:
                held.enter_context(closing(socket.socket()))
        yield


@pytest.fixture
def threaded(reactor: HandReactor) -> ThreadPool:
    """Start a thread of the reactor's beforehand: that opens nothing, but its first import may."""
    reactor.result(lookedUp(reactor, "localhost", 1, socket.SOCK_STREAM))
    return reactor.getThreadPool()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize("scheme", ["tcp", "tls", "udp"])
def test_an_address_is_not_looked_up(
    reactor: HandReactor, scheme: str, host: str, closed_number: ClosedNumber
) -> None:
    number = closed_number(socket.SOCK_STREAM)
    outcome = Outcome(connect(reactor, f"{scheme}:{host}:{number}"))
    reactor.until(lambda: outcome.came, passing=0.1)
    if scheme == "udp":
        outcome.value.close()
        reactor.advance(0)
    assert reactor.threadpool is None or not reactor.threadpool.threads


@pytest.mark.parametrize("target", ["tcp:localhost:5", "udp:localhost:5"])
def test_what_stops_a_lookup_is_told_at_once(
    reactor: HandReactor, threaded: ThreadPool, target: str
) -> None:
    with full():
        error = failed(reactor, target)
    assert isinstance(error, ConnectError)
    assert explained(error) == "Too many open files"


@pytest.mark.parametrize(
    "scheme", ["tcp:127.0.0.1:5", "udp:127.0.0.1:5", "unix:{}", "unix-seqpacket:{}"]
)
def test_a_socket_that_cannot_be_made_is_told(
    reactor: HandReactor, tmp_path: Path, scheme: str
) -> None:
    with full():
        error = failed(reactor, scheme.format(tmp_path))
    assert isinstance(error, ConnectError)
    assert explained(error) == "Too many open files"


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_a_name_that_nobody_has_is_told(reactor: HandReactor, scheme: str) -> None:
    error = failed(reactor, f"{scheme}:nobody.invalid:5")
    assert isinstance(error, DNSLookupError)
    assert "nobody.invalid: " in explained(error)


def test_a_version_of_ip_chooses_among_addresses(reactor: HandReactor) -> None:
    looking = lookedUp(reactor, "localhost", 5, socket.SOCK_STREAM, 4)
    assert [each[4] for each in reactor.result(looking)] == [("127.0.0.1", 5)]
    # Whether or not the name has such an address.
    outcome = Outcome(lookedUp(reactor, "localhost", 5, socket.SOCK_STREAM, 6))
    reactor.until(lambda: outcome.came)
    [found] = outcome.results
    if isinstance(found, list):
        assert {each[0] for each in found} == {socket.AF_INET6}
    else:
        assert "localhost over IPv6: " in str(outcome.error)


@pytest.mark.parametrize(
    ("target", "version", "why"),
    [
        ("127.0.0.1:5", 6, "127.0.0.1 is not of the family of IPv6"),
        ("udp:[::1]:5", 4, "::1 is not of the family of IPv4"),
        ("tcp:localhost:5", 5, "the version of IP is 4 or 6"),
        ("unix:/x", 4, "a version of IP applies to tcp:, tls: and udp:HOST:PORT alone"),
        ("unix-datagram:/x", 4, "a version of IP applies to tcp:, tls: and udp:HOST:PORT alone"),
    ],
)
def test_a_version_of_ip_that_makes_no_sense_is_told(
    reactor: HandReactor, target: str, version: int, why: str
) -> None:
    error = failed(reactor, target, ip=version)
    assert isinstance(error, ValueError)
    assert str(error) == why
