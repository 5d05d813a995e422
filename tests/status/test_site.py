"""What is served where, and to whom: in order, with bounds, and nothing to other names."""

import errno
import json
import re
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from sockservice.daemon.checking import Checked
from sockservice.status.channel import BURST, PATIENCE
from sockservice.status.events import UNREAD
from tests.certificates import Identity
from tests.conftest import HandReactor, Log, Running
from tests.status.conftest import Served, parsed

PATHS = ["/", "/events", "/health/live", "/health/ready", "/metrics", "/status.json"]
WHOLE = [path for path in PATHS if path != "/events"]


def channels(served: Served) -> set[Any]:
    """Give the connections to the status page that are open."""
    found: set[Any] = served.service.status._factory.open
    return found


def request(*lines: str, host: str = "localhost") -> bytes:
    return "\r\n".join([lines[0], f"Host: {host}", *lines[1:], "", ""]).encode()


@pytest.mark.parametrize("path", WHOLE)
def test_each_path_is_served_for_this_page_alone(served: Served, path: str) -> None:
    found = served.get(path)
    assert found.status == 200
    assert int(found.headers["content-length"]) == len(found.body)
    assert found.headers["cache-control"] == "no-store"
    assert found.headers["referrer-policy"] == "no-referrer"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-security-policy"].startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in found.headers["content-security-policy"]
    head = served.get(path, method="HEAD")
    assert (head.status, head.body) == (found.status, b"")
    assert head.headers.keys() == found.headers.keys()


def test_events_have_a_head_too(served: Served) -> None:
    found = served.get("/events", method="HEAD")
    assert (found.status, found.headers["content-type"]) == (200, "text/event-stream")


LONG = "x" * 9000
MANY = [f"X-{number}: y" for number in range(100_000)]
HOSTS = [
    *("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example"),
    *("192.0.2.1", "127.0.0.2", "[2001:db8::1]:80"),
    *("x@localhost", "", "localhost:x", "a b", "<script>"),
]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        *((request(f"{method} / HTTP/1.1", "Connection: close"), 405) for method in
          ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "get", "PRI")),
        (request("GET /nothing HTTP/1.1", "Connection: close"), 404),
        (request("GET /metrics/ HTTP/1.1", "Connection: close"), 404),
        (request("GET /../metrics HTTP/1.1", "Connection: close"), 404),
        (request("GET /%6detrics HTTP/1.1", "Connection: close"), 404),
        (request("GET /%zz%f HTTP/1.1", "Connection: close"), 404),
        (request("GET /%00%ff%c0%af HTTP/1.1", "Connection: close"), 404),
        (request("GET http://evil.example/ HTTP/1.1", "Connection: close"), 404),
        (request("GET * HTTP/1.1", "Connection: close"), 404),
        (request("POST / HTTP/1.1", "Content-Length: 2") + b"hi", 413),
        (request("GET / HTTP/1.1", "Content-Length: 99999999999"), 413),
        (request("GET / HTTP/1.1", "Transfer-Encoding: chunked") + b"2\r\nhi\r\n0\r\n\r\n", 413),
        (request("GET / HTTP/1.1", "Content-Length: 2", "Transfer-Encoding: chunked"), 400),
        (request("GET / HTTP/1.1", "Content-Length: -1"), 400),
        (request("GET / HTTP/1.1", "Transfer-Encoding: gzip"), 400),
        (request("GET / HTTP/1.1", "no colon"), 400),
        (request("GET /"), 400),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n", 400),
        (b"hello\r\n", 400),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (request("GET / HTTP/1.1", "Host: localhost", "Connection: close"), 400),
        (request(f"GET /{LONG} HTTP/1.1"), 431),
        (request("GET / HTTP/1.1", f"Cookie: {LONG}"), 431),
        (request("GET / HTTP/1.1", f"Cookie: {LONG * 100}"), 431),
        (request("GET / HTTP/1.1", *(["a: b"] * 101)), 431),
        (request("GET / HTTP/1.1", *MANY), 431),
        (b"x" * 1_000_000, 431),
        *((request("GET / HTTP/1.1", "Connection: close", host=host), 421) for host in
          HOSTS),
    ],
    ids=lambda each: str(each)[:50] if isinstance(each, bytes) else None,
)  # fmt: skip
def test_what_is_no_request_for_this_is_refused_in_one_line(
    served: Served, sent: bytes, status: int
) -> None:
    found = parsed(served.sent(sent))
    assert found.status == status
    assert found.body.startswith(f"{status} ".encode()) and found.body.count(b"\n") == 1
    assert found.headers["content-type"].startswith("text/plain")
    assert found.headers["content-security-policy"].startswith("default-src 'none'")
    counters = served.state()["counters"]
    assert (counters["statusRefused"], counters["statusRequests"]) == (1, 2)


def test_whatever_bytes_come_get_an_answer_or_the_end(served: Served) -> None:
    dice = Random(1)
    usual = request("GET /status.json?x=%41 HTTP/1.1", "Accept: */*", "Connection: close")
    statuses = set()
    for _ in range(400):
        bent = bytearray(usual)
        for _ in range(dice.randrange(1, 6)):
            at = dice.randrange(len(bent))
            some = dice.randbytes(dice.randrange(9))
            bent[at : at + dice.choice((0, len(some), 9))] = some
        said = served.sent(bytes(bent), halfCloses=True)
        statuses.add(parsed(said).status if said else 0)
    assert statuses <= {0, 200, 400, 404, 405, 413, 421, 431}
    assert len(statuses) > 4


@pytest.mark.parametrize("header", ["a b: c", "a: b\0c"])
def test_a_header_that_may_not_be_does_nothing(served: Served, header: str) -> None:
    # The lowest Twisted takes no notice of it.
    assert served.get("/health/live", header).status in (200, 400)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.:9", "a.localhost:1", "127.0.0.1", "[::ffff:127.0.0.1]:5"]
)
def test_names_of_this_machine_are_served(served: Served, host: str) -> None:
    assert served.get("/", f"Host: {host}").status == 200


def test_names_that_are_permitted_are_served(serve: Callable[..., Served]) -> None:
    served = serve("--status-host", "Box.example", "--status-host", "192.0.2.7")
    assert served.get("/", "Host: box.example:80").status == 200
    assert served.get("/", "Host: 192.0.2.7").status == 200
    assert served.get("/", "Host: other.example").status == 421


def test_a_client_that_half_closes_is_answered(served: Served) -> None:
    said = served.sent(request("GET /status.json HTTP/1.1"), halfCloses=True)
    assert parsed(said).body.endswith(b"}\n")


def test_a_client_of_the_old_kind_needs_no_host(served: Served) -> None:
    assert parsed(served.sent(b"GET /health/live HTTP/1.0\r\n\r\n")).status == 200


def test_requests_in_one_go_are_answered_in_order(served: Served) -> None:
    paths = ["/health/live", "/nothing", "/health/live"]
    sent = b"".join(request(f"GET {path} HTTP/1.1") for path in paths[:-1])
    said = served.sent(sent + request("GET /health/live HTTP/1.1", "Connection: close"))
    assert [int(each[:3]) for each in said.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200]


def test_responses_that_nobody_reads_are_bounded(served: Served, reactor: HandReactor) -> None:
    peer = served.peer()
    peer.setblocking(False)
    sent = request("GET /status.json HTTP/1.1") * 20_000
    taken = 0
    for _ in range(300):
        with suppress(OSError):
            taken += peer.send(sent[taken : taken + 65536])
        reactor.iterate(0)
    assert sum(len(each.transport.dataBuffer) for each in channels(served)) < 1_000_000
    assert served.state()["counters"]["statusRequests"] <= BURST + 1


@pytest.mark.parametrize("every", [1.0, 40.0])
def test_a_slow_request_is_refused(served: Served, reactor: HandReactor, every: float) -> None:
    peer = served.peer()
    peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    reactor.until(lambda: [each for each in channels(served) if each._receivedHeaderSize])
    passed = 0.0
    while passed < 31:
        reactor.advance(every)
        passed += every
        if passed < 29:
            peer.sendall(b"a")
            reactor.iterate(0)
    found = parsed(reactor.received(peer))
    assert found.status == 408
    assert served.state()["counters"]["statusTimedOut"] == 1


def test_a_connection_without_requests_is_closed(served: Served, reactor: HandReactor) -> None:
    peer = served.peer()
    peer.sendall(request("GET /status.json HTTP/1.1"))
    reactor.received(peer, 5)
    reactor.advance(29)
    peer.sendall(request("GET /status.json HTTP/1.1"))
    reactor.until(lambda: served.service._counters.total.statusRequests == 2)
    reactor.advance(31)
    assert reactor.received(peer).count(b"HTTP/1.1 200") == 1
    assert served.state()["counters"]["statusTimedOut"] == 0


def test_connections_beyond_the_limit_are_refused(
    serve: Callable[..., Served], reactor: HandReactor
) -> None:
    served = serve("--status-connections", "2")
    peers = [served.peer() for _ in range(2)]
    reactor.until(lambda: len(channels(served)) == 2)
    refused = parsed(served.sent(b""))
    assert refused.status == 503 and b"2 connections to the status page" in refused.body
    peers[0].close()
    reactor.until(lambda: len(channels(served)) == 1)
    assert served.state()["counters"]["statusTurnedAway"] == 1


def test_a_connection_that_cannot_be_made_holds_no_place(
    serve: Callable[..., Served],
    reactor: HandReactor,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = serve("--status-connections", "2")

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(reactor, "addReader", full)
        for _ in range(2):
            assert reactor.received(served.peer()) == b""
    assert len(log.failures(OSError)) == 2
    assert served.get("/health/live").status == 200


def events(received: bytes) -> list[dict[str, str]]:
    """Give the whole events of a stream so far."""
    return [json.loads(each) for each in re.findall(rb"data: (.*)\n\n", received)]


def test_pages_are_told_each_second(served: Served, reactor: HandReactor) -> None:
    peer = served.peer()
    peer.sendall(request("GET /events HTTP/1.1", "Connection: close"))
    received = bytearray()
    peer.setblocking(False)

    def came(most: int) -> bool:
        with suppress(BlockingIOError):
            received.extend(peer.recv(1_000_000))
        return len(events(bytes(received))) >= most

    reactor.until(lambda: came(1))
    assert b"text/event-stream" in received
    (whole,) = events(bytes(received))
    assert "options" in whole and "127.0.0.1" in whole["listeners"]
    served.ask(b"a\n")
    reactor.advance(1)
    reactor.until(lambda: came(2))
    later = events(bytes(received))[1]
    assert "1 so far" in later["figures"] and "options" not in later
    peer.close()
    reactor.until(lambda: not channels(served))


def test_a_page_that_reads_nothing_is_told_nothing_and_cut(
    served: Served, reactor: HandReactor
) -> None:
    peer = served.peer()
    peer.sendall(request("GET /events HTTP/1.1"))
    reactor.until(lambda: len(served.service.status._site.streams) == 1)
    (channel,) = channels(served)
    most = 0
    for _ in range(3000):
        reactor.advance(1)
        if not channels(served):
            break
        most = max(most, len(channel.transport.dataBuffer))
    assert not channels(served)
    assert most < 500_000
    assert UNREAD < 60


def test_pages_leave_places_for_scrapers(
    serve: Callable[..., Served], reactor: HandReactor
) -> None:
    served = serve("--status-connections", "2")
    peer = served.peer()
    peer.sendall(request("GET /events HTTP/1.1"))
    reactor.until(lambda: len(served.service.status._site.streams) == 1)
    found = served.get("/events")
    assert (found.status, found.headers["retry-after"]) == (503, "10")


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("udp:0", "HTTP is not served there"),
        ("unix-seqpacket:s", "HTTP is not served there"),
        ("haproxy:tcp:0", "HTTP is not served there"),
        ("tcp:99999", "not a port number"),
        ("nothing", "nothing"),
        ("tcp:0:interface=192.0.2.1", "no such address"),
    ],
)
def test_an_endpoint_that_cannot_be_is_told_in_one_line(
    running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, endpoint: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = running.fail("--port", "0", "--status", endpoint)
    assert "--status" in said and why in said and "\n" not in said


def test_a_unix_socket_is_served_whatever_it_is_called(
    running: Running, tmp_path: Path, reactor: HandReactor
) -> None:
    running.start("--port", "0", "--status", f"unix:{tmp_path / 's'}")
    peer = running.local(tmp_path / "s")
    peer.sendall(request("GET /health/live HTTP/1.1", "Connection: close", host="x"))
    assert parsed(reactor.received(peer)).status == 200


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
def test_tls_is_served_to_whom_it_is_meant_for(
    running: Running, server: Identity, authority: Identity, alice: Identity, reactor: HandReactor
) -> None:
    running.start(
        "--port", "0", "--status",
        f"ssl:0:interface=127.0.0.1:privateKey={server.privateKey}:certKey={server.certKey}"
        f":caCerts={authority.certKey}",
    )  # fmt: skip
    context = ssl.create_default_context(cafile=str(authority.certKey))
    context.load_cert_chain(alice.certKey, alice.privateKey)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    peer = running.peer(*running.addresses[-1][1:])
    peer.setblocking(False)
    said = bytearray()
    shaken = False

    def come() -> bool:
        nonlocal shaken
        with suppress(BlockingIOError):
            incoming.write(peer.recv(65536))
        try:
            if not shaken:
                client.do_handshake()
                shaken = True
                client.write(request("GET /health/live HTTP/1.1", "Connection: close"))
            said.extend(client.read(65536))
        except ssl.SSLWantReadError:
            pass
        if outgoing.pending:
            peer.sendall(outgoing.read())
        return b'"why"' in said

    reactor.until(come)
    assert parsed(bytes(said)).status == 200


def test_a_fault_of_ours_is_told_and_logged(
    served: Served, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> None:
        raise ZeroDivisionError

    served.service.status._site._paths[b"/"] = broken
    assert served.get("/").status == 500
    assert log.failures(ZeroDivisionError)


def test_a_refusal_is_waited_for(served: Served, reactor: HandReactor) -> None:
    peer = served.peer()
    peer.sendall(b"hello\r\n" + b"x" * 100_000)
    reactor.until(lambda: served.service._counters.total.statusRefused)
    reactor.advance(PATIENCE + 1)
    reactor.until(lambda: not channels(served))


@pytest.mark.parametrize(
    ("endpoint", "said", "problem"),
    [
        ("tcp:9555:interface=127.0.0.1", "status page would listen on tcp:127.0.0.1:9555\n", ""),
        ("udp:9555", "", "sockservice: --status udp:9555: HTTP is not served there\n"),
    ],
)
def test_a_check_says_where_the_page_would_be(
    capsys: pytest.CaptureFixture[str], endpoint: str, said: str, problem: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        Checked().parseOptions(["--check", "--port", "0", "--status", endpoint])
    printed, errors = capsys.readouterr()
    assert ended.value.code == (1 if problem else 0)
    assert said in printed and errors == problem
