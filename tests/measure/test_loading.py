"""The load: against servers in memory, on a clock; then on sockets, and as a command."""

import json
import os
import pty
import signal
import socket
from contextlib import ExitStack, closing, suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from sockservice.cli import main
from sockservice.cli.bench.child import local
from sockservice.cli.bench.report import summary, table
from sockservice.cli.bench.settings import Settings
from sockservice.client.line import LineClient
from sockservice.client.targets import connect
from sockservice.measure.load import Load
from sockservice.measure.schedule import SECOND
from sockservice.measure.tally import Tally
from sockservice.wire.continued import Continued
from sockservice.wire.framer import Framer
from sockservice.wire.framing import LF, Control, Lines, Refusal
from sockservice.wire.relpclient import RelpReplies
from tests.certificates import Identity
from tests.conftest import PATIENCE, Children, ClosedNumber, HandReactor, Running
from tests.doubles import Wire
from tests.wire.test_relp import WELCOME


def taken(wire: Wire) -> list[bytes]:
    """Give the lines that one connection has sent since this was last asked."""
    lines = wire.sent().split(b"\n")
    assert lines.pop() == b""
    return lines


class Loaded:
    """A load of so many connections in memory, on a clock."""

    def __init__(
        self,
        connections: int = 1,
        size: int = 3,
        pipeline: int = 2,
        start: bool = True,
        **given: Any,
    ) -> None:
        self.clock = Clock()
        self.ahead = 0.0  # of the timers
        self.load = Load(self.clock, self.now, size, pipeline, **given)
        self.wires = []
        for _ in range(connections):
            client = LineClient(self.clock)
            wire = Wire()
            client.makeConnection(wire)
            self.load.add(client)
            self.wires.append(wire)
        if start:
            self.load.start()

    def now(self) -> int:
        return round((self.clock.seconds() + self.ahead) * SECOND)

    def reply(self, data: bytes, place: int = 0) -> None:
        self.wires[place].protocol.dataReceived(data)

    def lose(self, place: int = 0) -> None:
        self.wires[place].protocol.connectionLost()

    @property
    def tally(self) -> Tally:
        return self.load.tally

    def end(self) -> list[Any]:
        settled: list[Any] = []
        self.load.finish().addCallback(settled.append)
        return settled


def test_messages_of_relp_are_numbered_and_their_responses_are_replies() -> None:
    loaded = Loaded(framing=RelpReplies)
    [wire] = loaded.wires
    assert wire.sent().endswith(b"2 syslog 3 xxx\n3 syslog 3 xxx\n")
    loaded.reply(WELCOME + b"2 rsp 6 200 OK\n3 rsp 6 200 OK\n")
    assert wire.sent() == b"4 syslog 3 xxx\n5 syslog 3 xxx\n"
    assert (loaded.tally.answered, loaded.tally.refused) == (2, 0)
    loaded.reply(b"0 serverclose 4 away\n")
    assert wire.cut
    loaded.lose()
    assert loaded.tally.reason == "the server ended the connection: away"


class Pages(Continued):
    """Replies of several lines, the last of which is a dot."""

    def continues(self, line: bytes) -> bool:
        return line != b"."


def test_a_reply_of_several_lines_is_one() -> None:
    loaded = Loaded(framing=Pages)
    assert taken(loaded.wires[0]) == [b"xxx"] * 2
    loaded.reply(b"one\ntwo\n.\none")
    assert taken(loaded.wires[0]) == [b"xxx"]
    loaded.reply(b"\nerror three\n.\nerror full\n.\n")
    tally = loaded.tally
    assert (tally.answered, tally.refused, tally.reason) == (3, 1, "error full\n.")


class Guarded(Framer):
    """Asks whether anybody is there, and takes no line of more than four bytes."""

    def take(self, most: int) -> Any:
        item = super().take(1)
        if not isinstance(item, Lines):
            return item
        if item.lines == [b"?"]:
            return Control(b"!\n")
        return Refusal(b"too long", LF) if len(item.lines[0]) > 4 else item


def test_what_a_framing_answers_is_sent_and_what_it_refuses_is_wrong() -> None:
    loaded = Loaded(framing=Guarded, pipeline=1)
    assert taken(loaded.wires[0]) == [b"xxx"]
    loaded.reply(b"?\n")
    assert taken(loaded.wires[0]) == [b"!"]
    loaded.reply(b"xxx\n")
    loaded.reply(b"xxxxx\n")
    tally = loaded.tally
    assert (tally.answered, tally.wrong, tally.refused, tally.reason) == (2, 1, 0, "reply too long")


def test_so_many_lines_are_in_flight_and_each_reply_is_followed_by_a_line() -> None:
    loaded = Loaded(connections=2)
    assert [taken(wire) for wire in loaded.wires] == [[b"xxx"] * 2] * 2
    loaded.clock.advance(0.5)
    loaded.reply(b"ok\n")
    assert taken(loaded.wires[0]) == [b"xxx"]
    loaded.reply(b"ok\nok\n")
    assert taken(loaded.wires[0]) == [b"xxx"] * 2
    assert taken(loaded.wires[1]) == []
    assert (loaded.tally.answered, loaded.tally.inTime) == (3, 3)
    assert loaded.tally.latencies.quantile(1) == pytest.approx(SECOND / 2, rel=1 / 128)
    assert loaded.tally.latencies.quantile(0) == 0


@pytest.mark.parametrize("reply", [b"ok\n", b"xxx\n", b"\n", b"longer than what was sent\r\n"])
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_replies_are_counted_however_they_are_cut(reply: bytes, size: int) -> None:
    loaded = Loaded(pipeline=50)
    stream = reply * 50
    for begin in range(0, len(stream), size):
        loaded.reply(stream[begin : begin + size])
    assert (loaded.tally.answered, loaded.tally.wrong, loaded.tally.unasked) == (50, 0, 0)
    assert taken(loaded.wires[0]) == [b"xxx"] * 100


@pytest.mark.parametrize("size", [1, 3, 6, 1000])
def test_refusals_and_wrong_echoes_are_counted(size: int) -> None:
    loaded = Loaded(pipeline=8)
    stream = b"error busy\nxxx\nxxx\nxyx\nerror idle\nxxx\nxxxx\nxxx\n"
    for begin in range(0, len(stream), size):
        loaded.reply(stream[begin : begin + size])
    tally = loaded.tally
    assert (tally.answered, tally.refused, tally.wrong, tally.unasked) == (8, 2, 2, 0)
    assert tally.reason == "error busy"
    assert not tally.whole


def test_a_connection_that_is_refused_before_it_asks_is_told() -> None:
    loaded = Loaded(connections=2, start=False)
    loaded.reply(b"error busy: 1 connection\n")
    loaded.lose()
    loaded.load.start()
    loaded.load.forget()
    loaded.reply(b"ok\n", 1)
    tally = loaded.tally
    assert loaded.wires[0].value() == b""
    assert (tally.refused, tally.unasked, tally.ended, tally.answered) == (1, 0, 1, 1)
    assert tally.reason == "error busy: 1 connection"
    loaded.load.close()
    assert tally.unanswered == 2


def test_a_server_with_replies_of_its_own_may_vary_them() -> None:
    loaded = Loaded()
    loaded.reply(b"1\n2\n3\n")
    assert (loaded.tally.wrong, loaded.tally.unasked) == (0, 1)


def test_a_reply_to_nothing_is_counted() -> None:
    loaded = Loaded(pipeline=1)
    loaded.reply(b"ok\nok\n")
    assert (loaded.tally.answered, loaded.tally.unasked) == (1, 1)


def test_a_connection_that_ends_is_counted_with_what_it_owed() -> None:
    loaded = Loaded(connections=2)
    loaded.lose()
    assert (loaded.load.alive, loaded.tally.ended) == (1, 1)
    settled = loaded.end()
    assert not settled
    loaded.reply(b"ok\nok\n", 1)
    assert settled
    loaded.load.close()
    loaded.load.close()
    assert (loaded.tally.unanswered, loaded.tally.answered, loaded.tally.inTime) == (2, 2, 0)
    assert loaded.tally.ended == 1
    assert loaded.clock.getDelayedCalls() == []


def test_warming_up_is_forgotten() -> None:
    loaded = Loaded()
    loaded.reply(b"ok\nok\n")
    loaded.clock.advance(1)
    loaded.load.forget()
    assert (loaded.tally.answered, loaded.load.since) == (0, SECOND)
    loaded.reply(b"ok\n")
    assert loaded.tally.answered == 1


def test_at_a_rate_each_line_has_its_time() -> None:
    loaded = Loaded(connections=2, rate=10.0, pipeline=100)
    assert [taken(wire) for wire in loaded.wires] == [[b"xxx"], []]
    loaded.clock.pump([0.05] * 2)
    assert [taken(wire) for wire in loaded.wires] == [[], [b"xxx"]]
    loaded.clock.pump([0.01] * 95)
    assert [len(taken(wire)) for wire in loaded.wires] == [5, 4]
    settled = loaded.end()
    loaded.clock.advance(5)
    loaded.reply(b"ok\n" * 6, 0)
    loaded.reply(b"ok\n" * 5, 1)
    assert settled
    assert loaded.tally.answered == 11


def test_a_stall_is_charged_to_every_line_that_was_due_meanwhile() -> None:
    """One line in flight: without a rate, a stall of 1 s would be one slow line of many."""
    loaded = Loaded(rate=100.0, pipeline=1)
    for _ in range(100):
        loaded.clock.advance(0.01)
    while taken(loaded.wires[0]):
        loaded.reply(b"ok\n")
    assert loaded.tally.answered == 101
    assert loaded.tally.latencies.quantile(1) == pytest.approx(SECOND, rel=0.02)
    assert loaded.tally.latencies.quantile(0.5) == pytest.approx(SECOND / 2, rel=0.02)


def test_lines_that_were_due_and_never_sent_are_unanswered() -> None:
    loaded = Loaded(rate=10.0, pipeline=1)
    loaded.clock.pump([0.1] * 5)
    assert not loaded.end()
    loaded.clock.advance(5)
    loaded.load.close()
    assert loaded.tally.unanswered == 6


def test_what_became_due_behind_the_last_tick_is_sent_at_the_end() -> None:
    loaded = Loaded(rate=10.0, pipeline=100)
    taken(loaded.wires[0])
    loaded.ahead = 0.55
    loaded.end()
    assert len(taken(loaded.wires[0])) == 5


def test_at_a_rate_lines_due_while_warming_up_do_not_count() -> None:
    loaded = Loaded(rate=10.0, pipeline=100)
    loaded.clock.pump([0.01] * 95)
    loaded.load.forget()
    loaded.clock.pump([0.01] * 10)
    loaded.reply(b"ok\n" * len(taken(loaded.wires[0])))
    assert loaded.tally.answered == 1


def test_so_many_lines_at_a_rate_are_due_and_no_more() -> None:
    loaded = Loaded(connections=2, rate=10.0, pipeline=100, count=5)
    exhausted: list[Any] = []
    loaded.load.exhausted.addCallback(exhausted.append)
    loaded.clock.pump([0.01] * 100)
    assert [len(taken(wire)) for wire in loaded.wires] == [3, 2]
    assert not loaded.clock.getDelayedCalls()
    loaded.reply(b"ok\n" * 3, 0)
    assert not exhausted
    loaded.reply(b"ok\n" * 2, 1)
    assert exhausted
    assert loaded.tally.answered == 5


def test_lines_that_are_due_and_not_sent_yet_are_waited_for() -> None:
    loaded = Loaded(connections=2, rate=10.0, pipeline=1, count=5)
    loaded.clock.pump([0.01] * 100)
    settled = loaded.end()
    while not settled:
        for place, wire in enumerate(loaded.wires):
            loaded.reply(b"ok\n" * len(taken(wire)), place)
    loaded.load.close()
    assert (loaded.tally.answered, loaded.tally.unanswered) == (5, 0)


def test_lines_of_a_connection_that_ended_are_due_all_the_same() -> None:
    loaded = Loaded(connections=2, rate=10.0, pipeline=100, count=5)
    exhausted: list[Any] = []
    loaded.load.exhausted.addCallback(exhausted.append)
    loaded.lose(1)
    loaded.clock.pump([0.01] * 100)
    loaded.reply(b"ok\n" * len(taken(loaded.wires[0])))
    assert exhausted
    loaded.load.close()
    assert (loaded.tally.answered, loaded.tally.unanswered) == (3, 2)


def test_a_load_of_no_lines_is_over_at_once() -> None:
    loaded = Loaded(count=0)
    assert loaded.load.exhausted.called
    assert taken(loaded.wires[0]) == []


@pytest.mark.parametrize("rate", [None, 1000.0])
def test_a_datagram_for_which_there_is_no_room_is_still_due(
    reactor: HandReactor, opened: ExitStack, monkeypatch: pytest.MonkeyPatch, rate: float | None
) -> None:
    peer = opened.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
    peer.bind(("127.0.0.1", 0))
    peer.settimeout(PATIENCE)

    def now() -> int:
        return round(reactor.seconds() * SECOND)

    load = Load(reactor, now, 20, 10, rate, timeout=10.0, count=3)
    client = reactor.result(connect(reactor, f"udp:127.0.0.1:{peer.getsockname()[1]}"))
    load.add(client)
    write, full = client.transport.write, [True]

    def wrote(datagram: bytes, peer: Any) -> None:
        if full[0]:
            raise BlockingIOError(11, "full")
        write(datagram, peer)

    monkeypatch.setattr(client.transport, "write", wrote)
    load.start()
    reactor.advance(0.5)
    settled = load.finish() if rate else Deferred()
    assert not (settled.called or load.exhausted.called)
    full[0] = False
    reactor.advance(0.5)
    for _ in range(3):
        peer.sendto(*peer.recvfrom(100))
    reactor.until(lambda: load.exhausted.called)
    assert settled.called or not rate
    assert load.tally.answered == 3
    load.close()


def test_tallies_add_up() -> None:
    one, other = Tally(answered=2, inTime=1), Tally(answered=3, lost=1)
    other.latencies.record(5)
    other.fault("refused", "error \x1b")
    one.add(other)
    assert (one.reason, one.refused) == ("error \x1b", 1)
    assert "reason    error \\x1b" in table(SETTINGS, one, 1.0, 80, False)
    assert (one.answered, one.inTime, one.lost, one.latencies.total) == (5, 1, 1, 1)
    assert not one.whole
    assert Tally(answered=1).whole
    assert not Tally().whole


# On real sockets


def run(reactor: HandReactor, target: str, rate: float | None, wanted: int, size: int = 20) -> Load:
    def now() -> int:
        return round(reactor.seconds() * SECOND)

    load = Load(reactor, now, size, 4, rate)
    for _ in range(3):
        load.add(reactor.result(connect(reactor, target)))
    load.start()
    reactor.until(lambda: load.tally.answered >= wanted or not load.alive, passing=0.001)
    settled: list[Any] = []
    load.finish().addCallback(settled.append)
    reactor.until(lambda: settled, passing=0.001)
    load.close()
    return load


@pytest.mark.parametrize("rate", [None, 5000.0])
@pytest.mark.parametrize(
    "listener",
    ["ack@unix", "echo@unix", "echo@unix-seqpacket", "echo@unix-datagram"],
)
def test_every_kind_of_unix_socket(
    running: Running, tmp_path: Path, listener: str, rate: float | None
) -> None:
    running.start("--listen", f"{listener}:{tmp_path}/s")
    target = f"{listener.partition('@')[2]}:{tmp_path}/s"
    load = run(running.reactor, target, rate, 200)
    assert load.tally.whole
    assert load.tally.answered >= 200


def test_a_socket_that_its_server_knows_by_another_path(running: Running, tmp_path: Path) -> None:
    running.start("--listen", f"echo@unix-datagram:{tmp_path}/s")
    moved = (tmp_path / "s").rename(tmp_path / "t")
    load = run(running.reactor, f"unix-datagram:{moved}", None, 200)
    moved.rename(tmp_path / "s")
    assert load.tally.whole


@pytest.mark.parametrize("kind", ["unix", "unix-seqpacket"])
def test_more_than_the_system_takes_at_once_is_sent_all_the_same(
    running: Running, tmp_path: Path, kind: str
) -> None:
    running.start("--listen", f"echo@{kind}:{tmp_path}/s", "--line-limit", "1000000")
    load = run(running.reactor, f"{kind}:{tmp_path}/s", None, 40, size=100_000)
    assert load.tally.whole


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Passing method to:DeprecationWarning")
def test_tls(running: Running, tmp_path: Path) -> None:
    running.start("--listen", f"echo@ssl:0:{Identity(tmp_path, 'a').said}:interface=127.0.0.1")
    [(_, _, port)] = running.addresses
    load = run(running.reactor, f"ssl:127.0.0.1:{port}", None, 200)
    assert load.tally.whole


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_internet_sockets(running: Running, scheme: str) -> None:
    running.start("--listen", f"echo@{scheme}:0:interface=127.0.0.1")
    [(_, _, port)] = running.addresses
    load = run(running.reactor, f"{scheme}:127.0.0.1:{port}", None, 200)
    assert load.tally.whole
    assert not load.unheard


def test_lost_and_changed_datagrams_are_counted(reactor: HandReactor, opened: ExitStack) -> None:
    peer = opened.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
    peer.bind(("127.0.0.1", 0))
    peer.settimeout(5)
    target = f"udp:127.0.0.1:{peer.getsockname()[1]}"

    def now() -> int:
        return round(reactor.seconds() * SECOND)

    load = Load(reactor, now, 20, 3, timeout=1.0)
    load.add(reactor.result(connect(reactor, target)))
    load.start()
    received = [peer.recvfrom(100) for _ in range(3)]
    (one, source), (two, _), _ = received
    for each in (one, one, two[:-1] + b"?"):
        peer.sendto(each, source)
    reactor.until(lambda: load.tally.wrong)
    reactor.advance(2)
    reactor.until(lambda: load.tally.lost)
    assert (load.tally.answered, load.tally.unasked, load.tally.wrong) == (1, 1, 1)
    load.close()


def test_nobody_listening_for_datagrams_ends_it(
    reactor: HandReactor, closed_number: ClosedNumber
) -> None:
    port = closed_number(socket.SOCK_DGRAM)
    load = run(reactor, f"udp:127.0.0.1:{port}", None, 1)
    assert load.unheard
    assert (load.tally.answered, load.tally.ended) == (0, 3)


def test_what_is_on_this_machine_for_sure() -> None:
    def connected(host: str) -> bool:
        client = LineClient(Clock())
        transport = StringTransport()
        transport.peerAddr = IPv4Address("TCP", host, 7)
        client.makeConnection(transport)
        return local(client)

    inside = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]
    outside = ["192.0.2.1", "0.0.0.0", "fe80::1%lo", "::ffff:192.0.2.1", "2001:db8::1"]
    assert [connected(host) for host in inside] == [True] * len(inside)
    assert [connected(host) for host in outside] == [False] * len(outside)


# What is printed

SETTINGS = Settings("tcp:x:1", 2, 3, 100, 10.0, 0.0, None, 1.0, 1, False, {})


def tally() -> Tally:
    made = Tally(answered=2000, inTime=2000, wrong=7)
    for latency in range(2000):
        made.latencies.record(latency * 1000)
    return made


def test_the_table() -> None:
    assert table(SETTINGS, tally(), 2.0, 80, False) == [
        "bench tcp:x:1: 2 connections, 3 in flight on each, 100 bytes",
        "answered  2,000 in 2.0 s: 1,000 a second, 0.1 MB/s",
        "faults    wrong 7",
        "latency   min 0.000 ms, mean 1.000 ms, deviation 0.577 ms",
        "          p50 0.999 ms, p90 1.802 ms, p99 1.982 ms",
        "          p99.9 1.999 ms, max 1.999 ms",
    ]
    drawn = table(SETTINGS, tally(), 2.0, 80, True)[6:]
    assert 1 < len(drawn) <= 16
    assert drawn[-1].endswith("#" * 40)


def test_the_table_of_nothing() -> None:
    assert table(SETTINGS, Tally(), 0.0, 80, True)[1:] == [
        "answered  0 in 0.0 s: 0 a second, 0.0 MB/s",
        "faults    none",
    ]
    assert summary(SETTINGS, Tally(), 0.0)["latency"] is None


def test_processes_share_connections_and_rate() -> None:
    settings = SETTINGS._replace(connections=5, processes=3, rate=50.0)
    parts = [settings.part(place) for place in range(3)]
    assert [part.connections for part in parts] == [1, 2, 2]
    assert [part.rate for part in parts] == [10.0, 20.0, 20.0]


@pytest.mark.parametrize("lines", [1, 2, 7, 500])
def test_processes_share_lines_and_none_is_lost_or_added(lines: int) -> None:
    for processes, more in product(range(1, 9), range(4)):
        shared = SETTINGS._replace(connections=processes + more, processes=processes, lines=lines)
        parts = [shared.part(place) for place in range(processes)]
        assert sum(part.lines or 0 for part in parts) == lines
        assert sum(part.connections for part in parts) == processes + more
        assert all(part.connections for part in parts)


# As whoever types it meets it


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--duration", "0"], "not a number greater than 0"),
        (["--warmup", "-1"], "not a number of seconds"),
        (["--rate", "0"], "not a number greater than 0"),
        (["--pipeline", "1000", "--size", "1000000"], "is more than 67108864 bytes"),
        (["--processes", "3", "--connections", "2"], "each needs one of the --connections"),
        (["--framing", "nonsense"], "no such framing: nonsense"),
        (["--framing", "chunks", "--pipeline", "2"], "has one line in flight"),
    ],
)
def test_bad_usage_is_status_2(options: list[str], why: str) -> None:
    done = CliRunner().invoke(main, ["bench", *options, "tcp:127.0.0.1:7"])
    assert done.exit_code == 2
    assert why in done.stderr


def test_ctrl_c_prints_what_was_measured(children: Children, opened: ExitStack) -> None:
    service = children.serve()
    target = f"tcp:127.0.0.1:{service.address[1]}"
    ours, theirs = pty.openpty()
    opened.callback(os.close, ours)
    with closing(os.fdopen(theirs, "wb", buffering=0)) as terminal:
        process = children.start("sockservice", "bench", target, "--duration=99", stderr=terminal)
    shown = b""
    while b" answered" not in shown:
        shown += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert b"answered 0 " not in output
    assert output.decode().splitlines()[2] == "faults    none"
    while b"interrupted\r\n" not in shown:
        shown += os.read(ours, 65536)
    assert b"Traceback" not in shown
    service.stop()


def test_bench_as_a_process(children: Children) -> None:
    service = children.serve()
    target = f"tcp:127.0.0.1:{service.address[1]}"
    short = ("--duration", "0.2", "--json")
    done = children.run("sockservice", "bench", target, *short, "--processes", "2", "--warmup=0.1")
    assert (done.returncode, done.stderr) == (0, b"")
    found = json.loads(done.stdout)
    assert found["answered"] > 0
    assert found["latency"]["p50"] <= found["latency"]["max"]
    service.stop()
    done = children.run("sockservice", "bench", target)
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.decode() == f"could not connect to {target}: Connection refused\n"


def test_a_target_or_size_that_cannot_be_is_status_2(children: Children) -> None:
    done = children.run("sockservice", "bench", "x")
    assert (done.returncode, done.stderr) == (
        2,
        b"x: Unknown endpoint type: 'x'; a host is written HOST:PORT, IPv6 in brackets\n",
    )
    done = children.run("sockservice", "bench", "udp:127.0.0.1:7", "--size", "65508")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"--size: udp:127.0.0.1:7 takes at most 65507 bytes\n"


def test_a_process_that_loads_ends_with_the_one_that_started_it(children: Children) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        target = f"tcp:127.0.0.1:{server.getsockname()[1]}"
        process = children.start("sockservice", "bench", target, "--connections=1")
        connection, _ = server.accept()
    with connection:
        connection.settimeout(PATIENCE)
        assert connection.recv(100) == b"x" * 56 + b"\n"
        process.kill()
        with suppress(ConnectionResetError):
            assert connection.recv(100) == b""


def test_what_is_elsewhere_is_not_loaded(children: Children) -> None:
    done = children.run("sockservice", "bench", "udp:192.0.2.1:7", "--duration", "0.1")
    assert done.returncode in (2, 3)  # without a network it can't even connect
    assert b"192.0.2.1" in done.stderr
    assert done.stdout == b""
