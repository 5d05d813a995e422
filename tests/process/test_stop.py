"""How the service ends: what was received is answered, the rest is cut and counted."""

import os
import re
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import MultiService

from sockservice import Counters
from sockservice.daemon.signals import Signals
from sockservice.server import intake
from tests.conftest import PATIENCE, Children, HandReactor, Log, Running, Service
from tests.daemon.test_listeners import Slow

ENDED = re.compile(
    r"ended: (\d+) connections?, (\d+) of them cut; (\d+) lines?, (\d+) acknowledged, (\d+) refused"
)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """What the service has done with signals it has undone."""
    Slow.due.clear()
    yield
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        assert not isinstance(getattr(signal.getsignal(number), "__self__", None), Signals)


def counts(log: Log) -> list[int]:
    """Give connections, cut ones, lines, acknowledged and refused ones, as summed up."""
    (found,) = filter(None, map(ENDED.search, log.texts))
    return [int(each) for each in found.groups()]


def test_lines_that_only_the_system_has_received_are_answered(
    running: Running, reactor: HandReactor, log: Log
) -> None:
    service = running.start("--port", "0")
    peer = running.peer("127.0.0.1", running.addresses[0][2])
    peer.sendall(b"x\n" * 20_000)
    stopping = running.stopping(service)
    assert reactor.received(peer) == b"ok\n" * 20_000
    peer.close()
    reactor.result(stopping)
    assert counts(log) == [1, 0, 20_000, 20_000, 0]


def test_no_more_is_read_than_the_system_may_hold(
    running: Running, reactor: HandReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a peer that never stops sending would never let the service end."""
    monkeypatch.setattr(intake, "DRAIN_READS", 0)
    service = running.start("--port", "0")
    peer = running.peer("127.0.0.1", running.addresses[0][2])
    peer.sendall(b"x\n")
    stopping = running.stopping(service)
    assert reactor.received(peer) == b""
    peer.close()
    reactor.result(stopping)


def test_a_peer_that_has_half_closed_gets_what_is_due_to_it(
    running: Running, reactor: HandReactor
) -> None:
    service = running.start("--port", "0")
    peer = running.peer("127.0.0.1", running.addresses[0][2])
    peer.sendall(b"whole\ntorn")
    peer.shutdown(1)
    stopping = running.stopping(service)
    assert reactor.received(peer) == b"ok\nerror unterminated line\n"
    reactor.result(stopping)


def test_packets_that_only_the_system_has_received_are_answered(
    running: Running, reactor: HandReactor, log: Log, tmp_path: Path
) -> None:
    service = running.start("--listen", f"unix-seqpacket:{tmp_path}/s")
    peer = running.local(tmp_path / "s", socket.SOCK_SEQPACKET)
    reactor.until(lambda: [text for text in log.texts if "connected" in text])
    for _ in range(50):
        peer.send(b"x")
    stopping = running.stopping(service)
    assert reactor.received(peer, 100) == b"ok" * 50
    # Nor does what comes too late destroy a reply.
    peer.send(b"x")
    assert reactor.received(peer) == b""
    peer.close()
    reactor.result(stopping)


def test_connections_that_only_the_system_has_accepted_are_served(
    running: Running, reactor: HandReactor, log: Log
) -> None:
    service = running.start("--port", "0")
    peers = [running.peer("127.0.0.1", running.addresses[0][2]) for _ in range(3)]
    for peer in peers:
        peer.sendall(b"x\n")
        peer.shutdown(1)
    stopping = running.stopping(service)
    assert [reactor.received(peer) for peer in peers] == [b"ok\n"] * 3
    reactor.result(stopping)
    assert counts(log)[0] == 3


def slow(running: Running, *arguments: str) -> tuple[MultiService, Any]:
    """Have a line on its way whose answer is awaited."""
    endpoint = f"{Slow.__module__}.Slow@tcp:0:interface=127.0.0.1"
    service = running.start("--listen", endpoint, *arguments)
    peer = running.peer("127.0.0.1", running.addresses[0][2])
    peer.sendall(b"x\n")
    running.reactor.until(lambda: Slow.due)
    return service, peer


def test_what_does_not_drain_in_time_is_cut_and_counted(
    running: Running, reactor: HandReactor, log: Log
) -> None:
    service, _ = slow(running, "--drain-timeout", "3")
    stopping = running.stopping(service)
    reactor.advance(2.9)
    assert not stopping.called
    reactor.advance(0.2)
    reactor.result(stopping)
    assert counts(log) == [1, 1, 1, 0, 0]


def test_an_awaited_answer_counts_when_it_has_come(
    running: Running, reactor: HandReactor, log: Log
) -> None:
    service, peer = slow(running)
    stopping = running.stopping(service)
    Slow.due[0].callback(b"fine")
    assert reactor.received(peer) == b"fine\n"
    peer.close()
    reactor.result(stopping)
    assert counts(log) == [1, 0, 1, 1, 0]


def test_a_failed_answer_counts_as_refused(
    running: Running, reactor: HandReactor, log: Log
) -> None:
    service, peer = slow(running)
    Slow.due[0].errback(ZeroDivisionError())
    assert reactor.received(peer, 6) == b"error "
    assert len(log.failures(ZeroDivisionError)) == 1
    peer.close()
    reactor.result(running.stopping(service))
    assert counts(log) == [1, 0, 1, 0, 1]


def test_a_report_is_logged_as_often_as_asked(
    running: Running, reactor: HandReactor, log: Log
) -> None:
    service = running.start("--port", "0", "--report", "5")
    assert running.ask("127.0.0.1", running.addresses[0][2], b"x\n") == b"ok\n"
    reactor.advance(4.9)
    assert not [text for text in log.texts if text.startswith("so far")]
    reactor.advance(0.2)
    (said,) = [event for event in log.events if "so far" in (event.get("log_format") or "")]
    assert said["counts"]["lines"] == said["counts"]["answered"] == 1
    assert said["counts"]["acknowledged"] == 1
    reactor.result(running.stopping(service))
    reactor.advance(10)
    assert len([text for text in log.texts if text.startswith("so far")]) == 1


def test_what_the_system_drops_of_datagrams_is_counted(
    running: Running, reactor: HandReactor, log: Log
) -> None:
    options = ["--report", "5", "--socket-option", "SO_RCVBUF=4096"]
    service = running.start("--listen", "udp:0:interface=127.0.0.1", *options)
    [(_, host, number)] = running.addresses
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for _ in range(100):
            peer.sendto(b"x" * 500, (host, number))
        reactor.advance(5.1)
        (said,) = [event for event in log.events if "so far" in (event.get("log_format") or "")]
        dropped = said["counts"]["dropped"]
        assert 0 < dropped < 100
        for _ in range(100):
            peer.sendto(b"x" * 500, (host, number))
    reactor.result(running.stopping(service))
    (said,) = [event for event in log.events if "ended" in (event.get("log_format") or "")]
    assert said["counts"]["dropped"] > dropped


def test_counters_say_what_was_acknowledged() -> None:
    counters = Counters(2, 1, 4, 9, 7, 3, overheld=6, slowed=8, datagrams=5)
    assert counters.acknowledged == 4
    assert str(counters) == (
        "2 connections, 1 of them cut; 9 lines, 4 acknowledged, 3 refused; "
        "5 datagrams, 0 met with silence, 0 throttled, 0 dropped by the system, "
        "0 replies not sent; "
        "4 connections turned away, 6 closed to make room, 0 timed out, "
        "0 of HTTP, 0 of TLS or plain text in the wrong place, 8 pauses of too fast ones; "
        "0 lines met with silence, 7 answered in all, 0 lost, 0 datagrams refused, "
        "0 lines of the log missing, "
        "0 times no memory; 0 sessions opened, 0 refused, 0 taken over, 0 expired; "
        "0 reloads failed, 0 workers not ready in time; "
        "0 status requests, 0 refused, 0 connections turned away, 0 timed out"
    )


def test_the_last_line_names_every_counter() -> None:
    counters = Counters()
    for number, name in enumerate(counters.counts().keys() - {"acknowledged"}):
        setattr(counters, name, 10**6 + 7919 * number)
    said = {int(each) for each in re.findall(r"-?\d+", str(counters))}
    assert {name for name, count in counters.counts().items() if count not in said} == set()


def test_what_was_left_out_of_the_log_is_summed_up_before_the_end(
    running: Running, reactor: HandReactor, log: Log
) -> None:
    service = running.start("--port", "0", "--log-limit", "1")
    for _ in range(3):
        running.ask("127.0.0.1", running.addresses[0][2], b"x\n")
    reactor.result(running.stopping(service))
    assert log.texts[-3:-1] == [f"2 more in 10 seconds: {kind}" for kind in ("connected", "closed")]
    assert log.texts[-1].startswith("ended: 3 connections")


def test_a_hangup_does_not_end_what_drains(running: Running, reactor: HandReactor) -> None:
    service, peer = slow(running)
    stopping = running.stopping(service)
    signal.raise_signal(signal.SIGHUP)
    Slow.due[0].callback(b"fine")
    assert reactor.received(peer) == b"fine\n"
    peer.close()
    reactor.result(stopping)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_service_that_has_stopped_leaves_signals_as_they_were(
    running: Running, reactor: HandReactor, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    service = running.start("--port", "0")
    assert signal.getsignal(number) is not before
    reactor.result(running.stopping(service))
    assert signal.getsignal(number) is before


HOLDS = """
from twisted.internet.defer import Deferred

from sockservice import LineServer


class Holds(LineServer):
    def answer(self, line):
        return Deferred()
"""


@pytest.mark.parametrize("holds", [False, True], ids=["answered", "cut"])
def test_what_there_was_no_descriptor_for_is_accepted_as_others_close(
    children: Children, holds: bool
) -> None:
    (children.folder / "holds.py").write_text(HOLDS)
    process = children.start(
        *("twistd", "-n", "--pidfile=", "sockservice", "--drain-timeout", "2" if holds else "15"),
        *("--listen", f"{'holds.Holds' if holds else 'ack'}@tcp:0"),
        env={**os.environ, "PYTHONPATH": str(children.folder)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)),
    )
    service = Service(process)
    found = service.until(rb"listening on tcp:(\S+):(\d+)")
    address = found[1].decode(), int(found[2])
    with ExitStack() as opened:
        peers = [
            opened.enter_context(closing(socket.create_connection(address))) for _ in range(60)
        ]
        for peer in peers:
            peer.settimeout(PATIENCE)
            peer.sendall(b"x\n")
        service.until(rb"cannot accept connections: Too many open files")
        process.terminate()
        for peer in [] if holds else peers:
            assert peer.recv(100) == b"ok\n"
            assert peer.recv(100) == b""
            peer.close()
        service.ended()
    cut = 60 if holds else 0
    assert b"ended: 60 connections, %d of them cut;" % cut in service.output
