"""Who is let in, who is told why not, and who is told to make room."""

import errno
import ipaddress
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address

from sockservice.limits import openfiles
from sockservice.limits.access import Access, network
from sockservice.limits.admission import Admission, Limits, source
from sockservice.limits.lograte import PERIOD
from sockservice.limits.rejection import PATIENCE, WAITED_FOR
from sockservice.limits.tokenbucket import SOURCES, Rate
from sockservice.net.addresses import LocalPeer
from tests.conftest import HandReactor, Log, Running


def address(host: str) -> IPv4Address | IPv6Address:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, 40000)


# Sources


@pytest.mark.parametrize(
    ("peer", "whose"),
    [
        (address("192.0.2.7"), "192.0.2.7"),
        (address("::ffff:192.0.2.7"), "192.0.2.7"),
        (address("2001:db8:1:2:3::4"), "2001:db8:1:2::/64"),
        (address("fe80::1%eth0"), "fe80::/64"),
        (LocalPeer(1, 1000, 1000), "user 1000"),
        (None, None),
    ],
)
def test_a_source_is_an_address_a_64_or_a_user(peer: Any, whose: str | None) -> None:
    assert source(peer) == whose


# Networks


def access(allow: str = "", deny: str = "") -> Access:
    return Access(*([ipaddress.ip_network(n) for n in words.split()] for words in (allow, deny)))


@pytest.mark.parametrize(
    ("allow", "deny", "host", "permitted"),
    [
        ("", "", "192.0.2.1", True),
        ("192.0.2.0/24", "", "192.0.2.1", True),
        ("192.0.2.0/24", "", "198.51.100.1", False),
        ("", "192.0.2.0/24", "192.0.2.1", False),
        ("", "192.0.2.0/24", "198.51.100.1", True),
        ("192.0.2.7", "192.0.2.0/24", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.0/24", "192.0.2.8", False),
        ("192.0.2.0/24", "192.0.2.7", "192.0.2.7", False),
        ("192.0.2.0/24", "192.0.2.0/24", "192.0.2.7", False),
        ("192.0.2.0/24", "", "::ffff:192.0.2.7", True),
        ("", "192.0.2.0/24", "::ffff:192.0.2.7", False),
        ("2001:db8::/32", "", "2001:db8::1", True),
        ("2001:db8::/32", "", "192.0.2.1", False),
        ("fe80::/10", "", "fe80::1%eth0", True),
    ],
)
def test_the_most_specific_network_decides(
    allow: str, deny: str, host: str, permitted: bool
) -> None:
    assert access(allow, deny).permits(host) is permitted


NETWORKS = st.builds(
    lambda number, bits: ipaddress.IPv4Network((number >> bits << bits, 32 - bits)),
    st.integers(2**32 - 16, 2**32 - 1),
    st.sampled_from([0, 1, 2, 3, 4, 32]),
)


@given(st.lists(NETWORKS, max_size=5), st.lists(NETWORKS, max_size=5))
def test_the_longest_prefix_decides_and_of_equals_the_denial(
    allow: list[ipaddress.IPv4Network], deny: list[ipaddress.IPv4Network]
) -> None:
    decides = Access(allow, deny)
    for number in range(2**32 - 16, 2**32):
        host = ipaddress.IPv4Address(number)
        holding = [(each.prefixlen, each in deny) for each in allow + deny if host in each]
        permitted = not max(holding)[1] if holding else not allow
        assert decides.permits(str(host)) is permitted


def test_where_only_those_named_may_and_none_is_named_nobody_may() -> None:
    assert not Access(only=True).permits("192.0.2.1")
    assert not Access(only=True).everybody


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::/0", "::/0"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
    ],
)
def test_a_network_of_mapped_addresses_is_the_one_they_stand_for(text: str, read: str) -> None:
    assert network(text) == ipaddress.ip_network(read)


def test_who_is_not_allowed_is_named_as_the_rules_name_it() -> None:
    admission = Admission(Limits(Access(deny=[network("192.0.2.0/24")])))
    assert admission.refusal(address("::ffff:192.0.2.7"), 0.0) == "not allowed: 192.0.2.7"


# Rates


def test_a_rate_is_so_many_a_second_and_as_many_at_once() -> None:
    rate = Rate(2)
    assert [rate.take("a", 0.0) for _ in range(3)] == [True, True, False]
    assert rate.take("b", 0.0)
    assert [rate.take("a", 0.5) for _ in range(2)] == [True, False]
    assert [rate.take("a", 100.0) for _ in range(3)] == [True, True, False]


def test_a_clock_that_is_set_back_takes_nothing_away() -> None:
    rate = Rate(2)
    assert rate.take("a", 3600.0)
    assert rate.take("a", 0.0)
    assert [rate.take("a", 0.5) for _ in range(2)] == [True, False]


@given(st.lists(st.floats(0, 0.2), max_size=200))
def test_no_second_sees_more_than_twice_the_rate(pauses: list[float]) -> None:
    """What was saved up may go at once, and the rate itself besides."""
    rate, now = Rate(10), 0.0
    taken = []
    for pause in pauses:
        now += pause
        if rate.take("a", now):
            taken.append(now)
    for start in taken:
        assert len([moment for moment in taken if start <= moment < start + 1]) <= 20


def test_only_so_many_sources_are_remembered() -> None:
    rate = Rate(1)
    assert rate.take("first", 0.0)
    for number in range(SOURCES):
        rate.take(str(number), 0.0)
    assert rate.take("first", 0.0)


# Connections


def test_the_rate_of_one_source_is_not_anothers() -> None:
    admission = Admission(Limits(connectionRate=1))
    assert admission.refusal(address("192.0.2.1"), 0.0) is None
    assert admission.refusal(address("192.0.2.1"), 0.0) == (
        "busy: 1 connection a second from 192.0.2.1, the limit; try again later"
    )
    assert admission.refusal(address("192.0.2.2"), 0.0) is None
    assert admission.refusal(address("192.0.2.1"), 1.0) is None


# What peers are told


def test_who_is_one_too_many_is_told_so_and_has_time_to_hear_it(
    running: Running, reactor: HandReactor, log: Log
) -> None:
    running.start("--port", "0", "--max-connections", "1")
    port = running.addresses[0][2]
    first = running.peer("127.0.0.1", port)
    first.sendall(b"x\n")
    assert reactor.received(first, 3) == b"ok\n"
    for _ in range(3):
        second = running.peer("127.0.0.1", port)
        second.sendall(b"x\n" * 1000)
        assert reactor.received(second) == (
            b"error busy: 1 connection, the limit; try again later\n"
        )
        second.close()
    first.close()
    reactor.until(lambda: [text for text in log.texts if "closed: lines=1 " in text])
    assert running.ask("127.0.0.1", port, b"x\n") == b"ok\n"
    reactor.advance(PERIOD)
    said = [text for text in log.texts if "turned away" in text]
    assert len(said) == 2
    assert said[1] == (
        "2 more in 10 seconds: turned away: busy: 1 connection, the limit; try again later"
    )


def test_who_does_not_close_after_a_refusal_is_cut(running: Running, reactor: HandReactor) -> None:
    running.start("--port", "0", "--deny", "127.0.0.1")
    peer = running.peer("127.0.0.1", running.addresses[0][2])
    assert reactor.received(peer) == b"error not allowed: 127.0.0.1\n"
    reactor.advance(PATIENCE)
    reactor.advance(0)
    with pytest.raises(OSError, check=lambda error: error.errno in (errno.EPIPE, errno.ECONNRESET)):
        reactor.until(lambda: peer.send(b"x\n") and False)


def test_networks_come_from_a_file_too(
    running: Running, reactor: HandReactor, tmp_path: Path
) -> None:
    (tmp_path / "nets").write_text("# ours\n127.0.0.0/8 # all\n\n")
    running.start("--port", "0", "--allow", f"@{tmp_path / 'nets'}", "--deny", "127.0.0.2")
    assert running.ask("127.0.0.1", running.addresses[0][2], b"x\n") == b"ok\n"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("foo", "'foo' does not appear to be an IPv4 or IPv6 network"),
        ("192.0.2.1/24", "192.0.2.1/24 has host bits set"),
        ("@/nowhere/at/all", "No such file or directory"),
    ],
)
def test_what_is_no_network_is_told_so(running: Running, value: str, why: str) -> None:
    with pytest.raises(Exception) as told:
        running.make("--deny", value)
    assert str(told.value) == f"--deny {value}: {why}"


def test_datagrams_from_who_is_not_allowed_meet_with_silence(
    running: Running, reactor: HandReactor, log: Log
) -> None:
    running.start("--port", "0", "--deny", "127.0.0.1", "--report", "1")
    peer = running.asking("127.0.0.1", running.addresses[1][2])
    peer.send(b"x")
    said = "1 datagram, 1 met with silence"
    reactor.until(lambda: [text for text in log.texts if said in text], passing=1)


def test_datagrams_beyond_the_rate_of_a_source_meet_with_silence(
    running: Running, reactor: HandReactor
) -> None:
    running.start("--port", "0", "--datagram-rate", "2")
    peer = running.asking("127.0.0.1", running.addresses[1][2])
    for datagram in (b"a", b"b", b"c"):
        peer.send(datagram)
    assert reactor.received(peer, 1) + reactor.received(peer, 1) == b"ab"
    reactor.advance(1)
    peer.send(b"d")
    assert reactor.received(peer, 1) == b"d"


# Idleness


@pytest.mark.parametrize(
    ("sent", "seconds", "said"),
    [
        (b"", 600, b"error idle for 600 seconds\n"),
        (b"x\n", 600, b"ok\nerror idle for 600 seconds\n"),
        (b"x\r\nhalf", 60, b"ok\r\nerror unfinished line for 60 seconds\n"),
        (b"\xff\xf4half", 60, b"error unfinished line for 60 seconds\n"),
    ],
)
def test_who_only_holds_a_place_is_told_to_make_room(
    running: Running, reactor: HandReactor, sent: bytes, seconds: int, said: bytes
) -> None:
    running.start("--port", "0")
    peer = running.peer("127.0.0.1", running.addresses[0][2])
    peer.sendall(sent)
    replies = said[: -len(b"error " + said.rpartition(b"error ")[2])]
    assert reactor.received(peer, len(replies)) == replies
    for _ in range(3):
        reactor.advance(0.5)
    for _ in range(seconds - 1):
        reactor.advance(1)
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(1)
    reactor.advance(2)
    assert reactor.received(peer) == said.removeprefix(replies)


def test_bytes_alone_keep_no_connection_open(running: Running, reactor: HandReactor) -> None:
    running.start("--port", "0")
    peer = running.peer("127.0.0.1", running.addresses[0][2])
    for _ in range(70):
        peer.sendall(b"x")
        reactor.advance(1)
    assert reactor.received(peer) == b"error unfinished line for 60 seconds\n"


def test_whose_answer_is_awaited_is_not_idle(running: Running, reactor: HandReactor) -> None:
    from tests.daemon.test_listeners import Slow

    Slow.due.clear()
    running.start("--listen", f"{Slow.__module__}.Slow@tcp:0:interface=127.0.0.1")
    peer = running.peer("127.0.0.1", running.addresses[0][2])
    peer.sendall(b"x\n")
    reactor.until(lambda: Slow.due)
    for _ in range(700):
        reactor.advance(1)
    Slow.due[0].callback(b"at last")
    assert reactor.received(peer, 8) == b"at last\n"


def test_who_never_reads_is_cut_in_the_end(
    running: Running, reactor: HandReactor, log: Log
) -> None:
    running.start("--listen", "echo@tcp:0:interface=127.0.0.1")
    peer = running.peer("127.0.0.1", running.addresses[0][2])
    peer.setblocking(False)

    def sent() -> int:
        size = 0
        try:
            while True:
                size += peer.send(b"x" * 99 + b"\n")
        except BlockingIOError:
            return size

    stuck = 0
    while stuck < 20:
        stuck = 0 if sent() else stuck + 1
        reactor.iterate(0.01)
    reactor.until(lambda: any("cut: idle for 600 seconds" in text for text in log.texts), 10)


# Open files


def test_who_is_turned_away_has_a_descriptor_too() -> None:
    assert openfiles.OTHERS > WAITED_FOR + 50


@pytest.mark.parametrize(
    ("before", "set", "warned"),
    [
        ((1024, 4096), (2064, 4096), False),
        ((1024, 2030), (2030, 2030), True),
        ((1024, resource.RLIM_INFINITY), (2064, resource.RLIM_INFINITY), False),
        ((3000, 4096), None, False),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None, False),
    ],
)
def test_as_many_files_may_be_open_as_connections_are_allowed(
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
    before: tuple[int, int],
    set: tuple[int, int] | None,
    warned: bool,
) -> None:
    done: list[Any] = []
    record: Callable[..., None] = lambda what, limits: done.append(limits)  # noqa: E731
    monkeypatch.setattr(resource, "getrlimit", lambda what: before)
    monkeypatch.setattr(resource, "setrlimit", record)
    openfiles.allow(1000)
    assert done == ([set] if set else [])
    assert bool([text for text in log.texts if "1000 connections are allowed" in text]) is warned


def test_no_limit_of_connections_is_as_many_files_as_may_be(
    monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    done: list[Any] = []
    record: Callable[..., None] = lambda what, limits: done.append(limits)  # noqa: E731
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 50_000))
    monkeypatch.setattr(resource, "setrlimit", record)
    openfiles.allow(0)
    assert (done, log.texts) == ([(50_000, 50_000)], [])
