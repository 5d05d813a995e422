"""Probes without I/O, the command's turns on a clock, and a peer that does everything wrong."""

import json
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from sockservice.cli import main
from sockservice.cli.output import Output
from sockservice.cli.ping.link import LineLink, Link, linked
from sockservice.cli.ping.pinging import Pinging
from sockservice.cli.ping.report import Printer, told
from sockservice.cli.ping.report import summary as inWords
from sockservice.client.line import REPLY_LIMIT
from sockservice.client.requests import Discarded
from sockservice.client.takeover import longest
from sockservice.client.targets import connect
from sockservice.measure.probes import Event, Fate, Probes, content, spread
from tests.certificates import Identity
from tests.conftest import PATIENCE, Children, ClosedNumber, HandReactor, Running


def sent(probes: Probes, count: int, every: float = 0.0) -> list[bytes]:
    """Send probes from the time 0 on; give them."""
    made = []
    for number in range(count):
        made.append(probes.following)
        probes.sent(number * every)
    return made


@given(st.integers(1, 10**9), st.integers(0, 100))
def test_a_probe_has_its_size_and_is_a_line(number: int, size: int) -> None:
    probe = content(number, size)
    assert len(probe) == size
    assert set(probe) <= set(b"0123456789-")


def test_probes_differ_as_far_as_their_size_allows() -> None:
    assert [content(12, size) for size in (0, 1, 3, 6, 9)] == [
        b"",
        b"2",
        b"012",
        b"000012",
        b"000012-00",
    ]


@given(st.lists(st.tuples(st.integers(1, 12), st.floats(0, 3)), max_size=40), st.integers(6, 20))
def test_no_probe_is_counted_twice(arrivals: list[tuple[int, float]], size: int) -> None:
    """Whatever echoes come, how often, and when."""
    probes = Probes(size, 1.0, stream=False)
    made = sent(probes, 10, every=0.1)
    fates: Counter[Fate] = Counter()
    for number, now in sorted(arrivals, key=lambda each: each[1]):
        fates.update(event.fate for event in probes.expire(now))
        fates[probes.receive(content(number, size), now).fate] += 1
        assert probes.count == probes.received + probes.lost + probes.awaited
    fates.update(event.fate for event in probes.giveUp())
    assert len(made) == probes.received + probes.lost
    assert probes.awaited == 0
    assert (fates[Fate.REPLY], fates[Fate.LOST]) == (probes.received, probes.lost) or (
        fates[Fate.CORRUPT] and size >= 6
    )
    assert fates[Fate.LATE] == probes.late <= probes.lost
    assert fates[Fate.DUPLICATE] == probes.duplicated
    assert fates[Fate.CORRUPT] == probes.corrupt


@pytest.mark.parametrize("size", [6, 7, 56, 65507])
def test_what_comes_late_twice_or_out_of_order_is_told(size: int) -> None:
    probes = Probes(size, 1.0, stream=False)
    one, two, three, four = sent(probes, 4)
    assert probes.receive(two, 0.25) == Event(Fate.REPLY, 2, size, 0.25)
    assert probes.receive(one, 0.5) == Event(Fate.REPLY, 1, size, 0.5, reordered=True)
    assert probes.receive(two, 0.5) == Event(Fate.DUPLICATE, 2, size)
    assert probes.deadline == 1.0
    assert probes.expire(0.99) == []
    assert probes.expire(1.0) == [Event(Fate.LOST, 3), Event(Fate.LOST, 4)]
    assert probes.deadline is None
    assert probes.receive(three, 1.5) == Event(Fate.LATE, 3, size, 1.5)
    assert probes.receive(three, 1.5) == Event(Fate.DUPLICATE, 3, size)
    assert (probes.received, probes.lost, probes.late) == (2, 2, 1)
    assert (probes.duplicated, probes.reordered, probes.corrupt) == (2, 1, 0)
    assert list(probes.roundTrips) == [0.25, 0.5]
    assert four not in (one, two, three)


@pytest.mark.parametrize(
    ("damaged", "number"),
    [
        (lambda probe: probe[:-1] + b"x", 2),
        (lambda probe: b"x" + probe[1:], 2),
        (lambda probe: probe[:20], 2),
        (lambda probe: probe + b"!", 2),
        (lambda probe: b"", None),
        (lambda probe: b"x" * len(probe), None),
        (lambda probe: content(4, 56), None),
    ],
)
def test_what_was_never_sent_is_corrupt(
    damaged: Callable[[bytes], bytes], number: int | None
) -> None:
    probes = Probes(56, 1.0, stream=False)
    made = sent(probes, 3)
    reply = damaged(made[1])
    assert probes.receive(reply, 0.1) == Event(Fate.CORRUPT, number, len(reply))
    assert probes.corrupt == 1
    assert probes.received == (number is not None)
    assert list(probes.roundTrips) == []
    assert not probes.whole


def test_numbers_go_on_where_their_digits_begin_again() -> None:
    probes = Probes(6, 1.0, stream=False)
    probes.count = 999_998
    made = sent(probes, 4)
    assert made[:3] == [b"999999", b"000000", b"000001"]
    assert [probes.receive(probe, 0.5).number for probe in made] == [
        999_999,
        1_000_000,
        1_000_001,
        1_000_002,
    ]
    assert probes.received == 4


@pytest.mark.parametrize("size", [0, 5])
def test_a_datagram_too_short_for_its_number_is_none(size: int) -> None:
    """For then a duplicate would be taken for the reply to a later one."""
    with pytest.raises(ValueError):
        Probes(size, 1.0, stream=False)


def test_empty_lines_are_answered_one_by_one() -> None:
    probes = Probes(0, 1.0, stream=True)
    sent(probes, 2)
    fates = [probes.receive(b"", 0.5).fate for _ in range(3)]
    assert fates == [Fate.REPLY, Fate.REPLY, Fate.DUPLICATE]


def test_what_is_a_refusal_can_be_said() -> None:
    probes = Probes(10, 1.0, stream=True, refusals=(b"4", b"5"))
    sent(probes, 3)
    fates = [probes.receive(each, 0.1).fate for each in (b"250 ok", b"550 no", b"error x")]
    assert fates == [Fate.REPLY, Fate.REFUSED, Fate.REPLY]
    assert probes.faults == {"refused": 1}


@pytest.mark.parametrize("size", [0, 2, 56])
def test_replies_of_a_line_server_are_taken_in_order(size: int) -> None:
    probes = Probes(size, 1.0, stream=True)
    sent(probes, 3)
    assert probes.receive(b"ok", 0.25) == Event(Fate.REPLY, 1, 2, 0.25)
    probes.expire(1.5)
    assert probes.receive(b"ok", 2.0) == Event(Fate.LATE, 2, 2, 2.0)
    refusal = b"error busy: 3 connections"
    assert probes.receive(refusal, 2.0) == Event(Fate.REFUSED, 3, len(refusal), reason=refusal)
    assert probes.receive(b"ok", 2.0) == Event(Fate.UNASKED, None, 2)
    assert (probes.unasked, probes.corrupt) == (1, 0)
    assert not probes.echoed


def test_a_line_that_an_echo_server_changed_is_corrupt() -> None:
    probes = Probes(10, 1.0, stream=True)
    made = sent(probes, 3)
    assert probes.receive(b"x" + made[0][1:], 0.1).fate is Fate.CORRUPT
    assert probes.receive(made[1], 0.1).fate is Fate.REPLY
    assert probes.receive(b"short", 0.1) == Event(Fate.CORRUPT, 3, 5)
    assert (probes.received, probes.awaited, probes.corrupt) == (3, 0, 2)
    assert probes.echoed


def test_what_looked_like_an_own_reply_is_corrupt_once_an_echo_has_come() -> None:
    probes = Probes(10, 1.0, stream=True)
    made = sent(probes, 2)
    assert probes.receive(b"short", 0.1).fate is Fate.REPLY
    assert probes.receive(made[1], 0.1).fate is Fate.REPLY
    assert (probes.corrupt, probes.echoed) == (1, True)


def test_the_spread_of_round_trips() -> None:
    assert spread([2.0]) == (2.0, 2.0, 2.0, 2.0, 2.0, 0.0)
    assert spread([4.0, 1.0, 2.0, 4.0]) == (1.0, 3.0, 2.75, 4.0, 4.0, 2.0)
    assert spread([float(each) for each in range(1000)]).p99 == 989.0


# The command's turns


class MemoryLink(Link):
    """Keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.probes: list[bytes] = []
        self.problems: list[OSError] = []
        self.closed = False

    def send(self, probe: bytes) -> None:
        if self.problems:
            raise self.problems.pop(0)
        self.probes.append(probe)

    def close(self) -> None:
        self.closed = True


class Run:
    """A run of the command on a clock."""

    def __init__(self, link: Link | None = None, asJson: bool = False, **settings: Any) -> None:
        self.clock = Clock()
        self.wire = MemoryLink() if link is None else link
        self.results: list[tuple[int, str]] = []
        probes = Probes(10, 1.0, stream=False)
        report = Printer("udp:x:7", 10, Output(), asJson, quiet=False)
        self._sum = partial(report.sum, probes)
        self.pinging = Pinging(
            self.clock,
            self.clock.seconds,
            self.wire,
            probes,
            report=report,
            **{"count": None, "interval": 1.0, "flood": None, **settings},
        )
        self.pinging.run().addCallback(self.results.append)

    @property
    def summary(self) -> dict[str, Any]:
        return self._sum()


def test_probes_go_out_at_their_times_and_the_end_waits_for_a_second_copy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Run(count=2, interval=0.5)
    assert isinstance(run.wire, MemoryLink)
    assert len(run.wire.probes) == 1
    run.clock.advance(0.25)
    run.wire.received(run.wire.probes[0])
    assert len(run.wire.probes) == 1
    run.clock.advance(0.25)
    assert len(run.wire.probes) == 2
    run.wire.received(run.wire.probes[1])
    run.clock.advance(0.4)
    assert not run.results
    run.wire.received(run.wire.probes[1])
    run.clock.advance(0.1)
    assert run.results == [(0, "")]
    assert run.wire.closed
    assert run.clock.getDelayedCalls() == []
    assert capsys.readouterr().out.splitlines() == [
        "ping udp:x:7: 10 bytes",
        "1: 10 bytes in 250.000 ms",
        "2: 10 bytes in 0.000 ms",
        "2: 10 bytes, duplicate",
        "sent 2, received 2, lost 0 (0%), duplicated 1, reordered 0, corrupt 0",
        "round trip  min 0.000 ms, median 125.000 ms, mean 125.000 ms",
        "            p99 250.000 ms, max 250.000 ms, jitter 250.000 ms",
    ]


def test_lost_probes_are_told_when_their_time_is_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Run(count=2, interval=0.5, asJson=True)
    run.clock.pump([0.5, 0.5, 0.25])
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told == [{"number": 1, "outcome": "lost"}]
    run.clock.pump([0.25, 0.5])
    assert run.results == [(1, "of 2 probes: 2 lost")]
    [last] = capsys.readouterr().out.splitlines()
    assert json.loads(last) == {"number": 2, "outcome": "lost"}
    summary = run.summary
    assert (summary["sent"], summary["lost"], summary["roundTrip"]) == (2, 2, None)
    assert summary["loss"] == 1.0


def test_a_flood_keeps_so_many_awaited_and_no_more() -> None:
    run = Run(count=5, flood=2)
    assert isinstance(run.wire, MemoryLink)
    assert len(run.wire.probes) == 2
    run.wire.received(run.wire.probes[0])
    assert len(run.wire.probes) == 3
    run.clock.advance(1.0)
    assert len(run.wire.probes) == 5
    run.clock.advance(1.0)
    run.clock.advance(1.0)
    assert run.results == [(1, "of 5 probes: 4 lost")]


def test_after_a_pause_of_the_process_probes_are_not_made_up_for() -> None:
    run = Run(interval=0.5)
    assert isinstance(run.wire, MemoryLink)
    run.clock.advance(100.0)
    assert len(run.wire.probes) <= 3


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run()
    run.wire.refused()
    assert run.results == [(3, "udp:x:7: nobody listens there")]
    assert "sent" not in capsys.readouterr().out


def test_a_server_that_goes_away_and_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(count=4)
    assert isinstance(run.wire, MemoryLink)
    run.wire.received(run.wire.probes[0])
    for _ in range(2):
        run.clock.advance(1.0)
        run.wire.refused()
    run.clock.advance(1.0)
    run.wire.received(run.wire.probes[3])
    run.clock.advance(1.0)
    assert run.results == [(1, "of 4 probes: 2 lost")]
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("nobody listens there any more") == 1
    assert "sent 4, received 2, lost 2 (50%), duplicated 0, reordered 0, corrupt 0" in lines


def test_a_probe_for_which_there_is_no_room_is_sent_a_little_later() -> None:
    wire = MemoryLink()
    wire.problems = [BlockingIOError(11, "full")]
    run = Run(wire, count=1)
    assert wire.probes == []
    run.clock.advance(0.01)
    assert len(wire.probes) == 1


def test_a_probe_that_cannot_be_sent_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    wire = MemoryLink()
    wire.problems = [OSError(90, "")]
    run = Run(wire, count=1)
    run.clock.advance(1.0)
    assert run.results == [(1, "of 1 probe: 1 lost")]
    assert "1: not sent: Message too long" in capsys.readouterr().out


def test_the_end_of_the_connection_is_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run()
    run.wire.ended("connection lost: reset", False)
    assert run.results == [(1, "connection lost: reset")]
    assert "1: lost" in capsys.readouterr().out


def test_when_stopped_what_is_awaited_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run()
    assert isinstance(run.wire, MemoryLink)
    run.wire.received(run.wire.probes[0])
    run.clock.advance(1.0)
    run.pinging.stop(130, "interrupted")
    assert run.results == [(130, "interrupted")]
    assert "corrupt 0, awaited 1" in capsys.readouterr().out


def test_a_refusal_cannot_command_the_terminal() -> None:
    assert told(Event(Fate.REFUSED, 1, reason=b"error \x1b[31m")) == r"1: error \x1b[31m"


# On real sockets


def over(reactor: HandReactor, target: str, size: int = 56, **settings: Any) -> Deferred[Any]:
    """Run the command's part behind the options."""
    link = linked(reactor.result(connect(reactor, target)))
    stream = isinstance(link, LineLink)
    report = Printer(target, size, Output(), asJson=True, quiet=True)
    given = {"count": 5, "interval": 0.01, "flood": None, **settings}
    probes = Probes(size, 1.0, stream)
    pinging = Pinging(reactor, reactor.seconds, link, probes, report=report, **given)
    return pinging.run().addCallback(partial(_printed, report, probes))


def _printed(report: Printer, probes: Probes, outcome: Any) -> Any:
    print(json.dumps(report.sum(probes)))
    return outcome


def summary(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("size", [6, 56, 65507])
def test_every_size_of_datagram(
    running: Running, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    running.start("--listen", "echo@udp:0:interface=127.0.0.1")
    [(_, _, port)] = running.addresses
    reactor = running.reactor
    outcome: list[Any] = []
    over(reactor, f"udp:127.0.0.1:{port}", size).addCallback(outcome.append)
    reactor.until(lambda: outcome, passing=0.001)
    assert outcome == [(0, "")]
    assert summary(capsys)["received"] == 5


@pytest.mark.parametrize(
    "listener", ["echo@unix", "ack@unix", "echo@unix-datagram", "echo@unix-seqpacket"]
)
def test_unix_sockets(
    running: Running, capsys: pytest.CaptureFixture[str], tmp_path: Path, listener: str
) -> None:
    running.start("--listen", f"{listener}:{tmp_path}/s")
    reactor = running.reactor
    outcome: list[Any] = []
    target = f"{listener.partition('@')[2]}:{tmp_path}/s"
    over(reactor, target, count=50, flood=5).addCallback(outcome.append)
    reactor.until(lambda: outcome, passing=0.001)
    assert outcome == [(0, "")]
    found = summary(capsys)
    assert (found["received"], found["echoed"]) == (50, listener.startswith("echo"))


def test_a_socket_that_its_server_knows_by_another_path(
    running: Running, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    running.start("--listen", f"echo@unix-datagram:{tmp_path}/s")
    moved = (tmp_path / "s").rename(tmp_path / "t")
    outcome: list[Any] = []
    over(running.reactor, f"unix-datagram:{moved}").addCallback(outcome.append)
    running.reactor.until(lambda: outcome, passing=0.001)
    moved.rename(tmp_path / "s")
    assert outcome == [(0, "")]
    assert summary(capsys)["received"] == 5


def test_a_reply_too_long_is_corrupt_and_no_words_of_the_servers() -> None:
    link = LineLink()
    link.makeConnection(StringTransport())
    got: list[bytes] = []
    link.received = got.append
    link.dataReceived(b"x" * (REPLY_LIMIT + 1) + b"\nok\n")
    why = b"reply line longer than %d bytes" % REPLY_LIMIT
    assert got == [why, b"ok"]
    probes = Probes(10, 1.0, stream=True)
    probes.sent(0.0)
    probes.sent(0.0)
    assert isinstance(got[0], Discarded)
    events = [probes.discard(got[0]), probes.receive(got[1], 0.0)]
    assert [each.fate for each in events] == [Fate.CORRUPT, Fate.REPLY]
    assert told(events[0]) == f"1: {why.decode()}"
    assert (probes.received, probes.refused, probes.corrupt) == (2, 0, 1)
    assert inWords(probes, 80)[:2] == [
        "sent 2, received 2, lost 0 (0%), duplicated 0, reordered 0, corrupt 1",
        "replies are no echoes: only those too long are seen to be corrupt",
    ]


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Passing method to:DeprecationWarning")
def test_tls(running: Running, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    running.start("--listen", f"echo@ssl:0:{Identity(tmp_path, 'a').said}:interface=127.0.0.1")
    [(_, _, port)] = running.addresses
    reactor = running.reactor
    outcome: list[Any] = []
    over(reactor, f"ssl:127.0.0.1:{port}").addCallback(outcome.append)
    reactor.until(lambda: outcome, passing=0.001)
    assert outcome == [(0, "")]
    assert summary(capsys)["echoed"]


def test_a_server_that_never_answers_is_not_sent_more_than_it_may_owe(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running.start("--listen", f"discard@unix:{tmp_path}/s", "--line-limit", "2000000")
    reactor = running.reactor
    outcome: list[Any] = []
    size = 1_000_000
    over(reactor, f"unix:{tmp_path}/s", size, count=8, flood=2).addCallback(outcome.append)
    reactor.until(lambda: outcome, passing=0.1)
    assert outcome == [(1, "of 8 probes: 8 lost")]
    found = summary(capsys)
    assert (found["sent"], found["lost"], found["roundTrip"]) == (8, 8, None)


def test_a_peer_that_drops_repeats_reorders_and_corrupts(
    reactor: HandReactor, opened: ExitStack, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = opened.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
    peer.bind(("127.0.0.1", 0))
    peer.setblocking(False)
    kept: list[bytes] = []
    outcome: list[Any] = []
    target = f"udp:127.0.0.1:{peer.getsockname()[1]}"
    over(reactor, target, count=10).addCallback(outcome.append)

    def answer() -> bool:
        try:
            probe, source = peer.recvfrom(65536)
        except BlockingIOError:
            return bool(outcome)
        number = int(probe[:6])
        if number == 2:  # twice
            peer.sendto(probe, source)
        elif number == 4:  # never
            return False
        elif number == 5:  # behind the next
            kept.append(probe)
            return False
        elif number == 8:
            probe = probe[:30] + b"?" + probe[31:]
        peer.sendto(probe, source)
        for each in kept:
            peer.sendto(each, source)
        kept.clear()
        return False

    reactor.until(answer, passing=0.05)
    assert outcome == [(1, "of 10 probes: 1 lost, 1 corrupt")]
    found = summary(capsys)
    counts = ("sent", "received", "lost", "duplicated", "reordered", "corrupt", "awaited")
    assert [found[name] for name in counts] == [10, 9, 1, 1, 1, 1, 0]


def test_nobody_listening_is_noticed_over_udp(
    reactor: HandReactor, closed_number: ClosedNumber
) -> None:
    port = closed_number(socket.SOCK_DGRAM)
    status, said = reactor.result(over(reactor, f"udp:127.0.0.1:{port}"))
    assert status == 3
    assert "nobody listens" in said


@pytest.mark.parametrize(
    ("host", "size"), [("127.0.0.1", 65507), ("[::1]", 65527)], ids=["IPv4", "IPv6"]
)
def test_the_longest_datagrams(reactor: HandReactor, host: str, size: int) -> None:
    try:
        client = reactor.result(connect(reactor, f"udp:{host}:7"))
    except ConnectError:
        pytest.skip("no IPv6 here")
    assert longest(client) == size
    client.close()


# As whoever types it meets it


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--interval", "0", "x"], "not a number greater than 0"),
        (["--timeout", "nan", "x"], "not a number greater than 0"),
        (["--count", "0", "x"], "--count"),
        (["--size", "-1", "x"], "--size"),
        (["--flood", "1001", "x"], "--flood"),
        (["--framing", "chunks", "--flood", "2", "x"], "one probe in flight"),
        ([], "Missing argument 'TARGET'"),
    ],
)
def test_bad_usage_is_status_2(options: list[str], why: str) -> None:
    done = CliRunner().invoke(main, ["ping", *options])
    assert done.exit_code == 2
    assert why in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x"], "x: Unknown endpoint type: 'x'; a host is written HOST:PORT, IPv6 in brackets\n"),
        (
            ["udp:127.0.0.1:7", "--size", "65508"],
            "--size: udp:127.0.0.1:7 takes at most 65507 bytes\n",
        ),
    ],
)
def test_a_target_that_cannot_be_is_status_2(
    children: Children, arguments: list[str], said: str
) -> None:
    done = children.run("sockservice", "ping", *arguments)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", said)


@pytest.mark.parametrize("command", ["ping", "bench"])
def test_ctrl_c_while_it_connects(children: Children, opened: ExitStack, command: str) -> None:
    full = opened.enter_context(closing(socket.socket()))
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    address = full.getsockname()
    # Fills the backlog: who comes behind waits to be connected.
    opened.enter_context(closing(socket.create_connection(address)))
    target = f"tcp:127.0.0.1:{address[1]}"
    process = children.start("sockservice", command, target)
    deadline = monotonic() + PATIENCE
    while not (connecting(address[1]) and catches(process.pid, signal.SIGTERM)):
        assert monotonic() < deadline
        with suppress(subprocess.TimeoutExpired):
            pytest.fail(f"it ended: {process.wait(0.05)}")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (130, b"")
    assert errors.decode() == f"interrupted before there was a connection to {target}\n"


def connecting(port: int) -> bool:
    """Whether a socket waits to be connected to a port of 127.0.0.1; proc(5)."""
    return f" 0100007F:{port:04X} 02 " in Path("/proc/net/tcp").read_text()


def catches(pid: int, number: int) -> bool:
    """Whether a process does something of its own at a signal, as a running reactor does."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (number - 1) & 1)


def test_what_cannot_be_printed_ends_it(children: Children, opened: ExitStack) -> None:
    peer = opened.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
    peer.bind(("127.0.0.1", 0))
    target = f"udp:127.0.0.1:{peer.getsockname()[1]}"
    with open("/dev/full", "wb") as full:
        done = children.run("sockservice", "ping", target, "--timeout=0.1", stdout=full)
    assert done.returncode == 1
    assert done.stderr == b"standard output: No space left on device\n"


def test_ping_as_a_process(children: Children) -> None:
    service = children.serve()
    target = f"tcp:127.0.0.1:{service.address[1]}"
    options = ("--count", "3", "--interval", "0.001")
    done = children.run("sockservice", "ping", target, *options)
    assert (done.returncode, done.stderr) == (0, b"")
    first, *_, counts, _, times, _ = done.stdout.decode().splitlines()
    assert first == f"ping {target}: 56 bytes"
    assert counts == "sent 3, received 3, lost 0 (0%), duplicated 0, reordered 0"
    assert times.startswith("round trip  min ")
    process = children.start("sockservice", "ping", target, "--interval", "0.01")
    assert process.stdout is not None
    assert process.stdout.readline() and process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (130, b"interrupted\n")
    assert b"lost 0" in rest
    service.stop()
    done = children.run("sockservice", "ping", target)
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.decode() == f"could not connect to {target}: Connection refused\n"
