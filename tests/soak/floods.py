"""One server, one load, one bystander: what it costs the bystander, and what the server keeps.

The bounds are those that a server of the usual settings has to keep on any machine; they are
stated with each flood.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic, sleep

from sockservice.limits.tokenbucket import SOURCES
from sockservice.net.epoll import SLICE
from sockservice.net.udp.mmsg import REMEMBERED
from tests.certificates import Identity
from tests.soak import loads
from tests.soak.loads import Done, Load
from tests.soak.watched import MIB, Bystander, Ended, State, Trips, Watched, rests, settled

#: Times its quiet value that a bystander's median round trip may take under a load.
SLOWER = 3.0
#: Seconds of quiet, before and after.
QUIET = 3.0
#: Seconds within which all is released: more than a peer that does not close is waited for.
RELEASED = 15.0
#: Blocks of memory that may stay behind, in what the interpreter and the service keep once.
BLOCKS = 2000


@dataclass
class Flood:
    """A load on a server with some options, and what is allowed to come of it."""

    name: str
    options: Callable[[Path], list[str]]
    #: Give the server its load.
    start: Callable[[Watched], list[Load]]
    #: Seconds of it.
    seconds: float
    #: Bytes of memory that the server may grow by.
    bound: int
    #: Bytes that may not have gone back to the system afterwards.
    slack: int
    #: Compare what the server sums up with what was done.
    counted: Callable[[Ended, Done], str] = lambda ended, done: ""
    #: Blocks of memory that may stay behind.
    blocks: int = BLOCKS
    #: Seconds that a piece of the load takes which can't be divided: it may have to be waited for.
    piece: float = 0.0


@dataclass
class Figures:
    """What came of a flood."""

    name: str
    quiet: Trips
    loaded: Trips
    before: State
    peak: State
    after: State
    logged: int
    done: Done
    problems: list[str] = field(default_factory=list)

    @property
    def slower(self) -> float:
        return self.loaded.median / self.quiet.median

    def __str__(self) -> str:
        did = ", ".join(f"{count:,} {what}" for what, count in self.done.items())
        return (
            f"{self.name}: round trip {_us(self.quiet.median)} quiet, {_us(self.loaded.median)} "
            f"under load, {self.slower:.1f} times (p99 {_us(self.quiet.p99)}, "
            f"{_us(self.loaded.p99)}; worst {_us(self.loaded.worst)}); memory "
            f"{_mib(self.before)}, {_mib(self.peak)}, {_mib(self.after)} MiB; descriptors "
            f"{self.before.files}, {self.peak.files}, {self.after.files}; delayed calls "
            f"{self.before.calls}, {self.after.calls}; blocks {self.before.blocks:,}, "
            f"{self.after.blocks:,}; log {self.logged / MIB:.1f} MiB; {did}"
        )


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < 0.01 else f"{seconds * 1e3:.0f} ms"


def _mib(state: State) -> int:
    return round(state.memory / MIB)


def measured(flood: Flood) -> Figures:
    """Start a server, load it, and see what is left of that."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = Watched(folder, stack, *flood.options(folder))
        bystander = Bystander(server.addresses["ack tcp"])
        bystander.start()
        stack.callback(bystander.stop)
        problems: list[str] = []
        rests(0.5)
        quiet = bystander.trips(*rests(QUIET))
        before = server.state()

        running = flood.start(server)
        for load in running:
            stack.callback(load.process.kill)
        memory, files = before.memory, before.files
        start = end = monotonic()
        done = Done()
        try:
            for load in running:
                load.begun()
            start = monotonic()
            while (end := monotonic()) < start + flood.seconds:
                memory, files = max(memory, server.memory), max(files, server.files)
                sleep(0.1)
            done = loads.together(running)
        except AssertionError as problem:
            problems.append(str(problem))
        loaded = bystander.trips(start, end)
        peak = State(max(memory, server.memory), max(files, server.files), 0, 0)

        if not settled(server, before.files, RELEASED):
            problems.append(f"{server.files - before.files} descriptors are not released")
        after = server.state()
        still = bystander.trips(*rests(QUIET / 2))
        bystander.stop()
        try:
            ended = server.end()
        except AssertionError as problem:
            problems.append(str(problem))
        else:
            # One question was asked before, and one after.
            lines = bystander.lines + 2
            problems += filter(None, [_answered(ended), flood.counted(ended, done)])
            if ended.datagrams:
                done["datagrams received"] = ended.datagrams
            if "lines" in done and ended.acknowledged + ended.refused < done["lines"] + lines:
                problems.append(f"{ended} does not hold the {done['lines'] + lines} lines sent")
        # Of the two quiet times the slower one is nearer to what the machine gave meanwhile.
        quiet = max(quiet, still)
        figures = Figures(flood.name, quiet, loaded, before, peak, after, server.logged, done)
        figures.problems = [*problems, *_kept(flood, figures)]
        if bystander.problem:
            figures.problems.append(bystander.problem)
        figures.problems += [f"logged: {line}" for line in server.failures()[:3]]
        return figures


def _answered(ended: Ended) -> str:
    """Say so if lines were not answered, other than those of peers that went away."""
    unanswered = ended.lines - ended.acknowledged - ended.refused
    return f"{unanswered} lines are not answered" if unanswered and not ended.cut else ""


def _kept(flood: Flood, figures: Figures) -> list[str]:
    """Give what was not kept to."""
    before, peak, after = figures.before, figures.peak, figures.after
    problems = []
    if (grown := peak.memory - before.memory) > flood.bound:
        problems.append(f"memory grew by {grown / MIB:.0f} MiB, more than {flood.bound // MIB}")
    if (left := after.memory - before.memory) > flood.slack:
        problems.append(
            f"{left / MIB:.0f} MiB of memory are not released, more than {flood.slack // MIB}"
        )
    if (blocks := after.blocks - before.blocks) > flood.blocks:
        problems.append(f"{blocks} blocks of memory are still in use")
    if after.calls > before.calls + 1:
        # One sums up, a while later, what was turned away.
        problems.append(f"{after.calls - before.calls} delayed calls are left")
    return problems


def tried(flood: Flood, tries: int, say: Callable[[str], None]) -> bool:
    """Measure; say what came of it, and whether that is well.

    A round trip that was too slow is measured again, up to so many tries in all: on a shared
    machine any one may be the neighbours'. All else counts at once.
    """
    for left in range(tries - 1, -1, -1):
        figures = measured(flood)
        say(str(figures))
        for problem in figures.problems:
            say(f"{flood.name} FAILED: {problem}")
        if figures.problems:
            return False
        if figures.loaded.median <= figures.quiet.median * SLOWER + flood.piece:
            return True
        say(
            f"{flood.name}{'' if left else ' FAILED'}: the bystander's round trip took "
            f"{figures.slower:.1f} times its quiet value, more than {SLOWER:g}"
            f"{f' and {_us(flood.piece)}' if flood.piece else ''}"
        )
    return False


def _usual(folder: Path) -> list[str]:
    return []


def _overTls(folder: Path) -> list[str]:
    files = Identity(folder, "server").said
    return ["--listen", f"ack@ssl:0:interface=127.0.0.1:{files}"]


# The floods


def unread(peers: int, seconds: float) -> Flood:
    """Peers that send lines and never read.

    A connection may hold one read, 64 KiB, of lines or of replies, and some for itself.
    """

    def start(server: Watched) -> list[Load]:
        addresses = [server.addresses["ack tcp"], server.addresses["echo tcp"]]
        return [Load(loads.unread, addresses, peers)]

    return Flood(
        "unread",
        # What the system holds is no matter of ours; small, it is full sooner.
        lambda folder: [
            "--listen",
            "echo@tcp:0:interface=127.0.0.1",
            "--socket-option",
            "SO_SNDBUF=16384",
        ],
        start,
        seconds,
        bound=16 * MIB + peers * 192 * 1024,
        slack=16 * MIB + peers * 16 * 1024,
    )


def slow(peers: int, seconds: float) -> Flood:
    """Peers that send a byte a second; half of them never end a line, and are told."""
    timeout = 5

    def start(server: Watched) -> list[Load]:
        return [Load(loads.slow, server.addresses["ack tcp"], peers, timeout)]

    return Flood(
        "slow",
        lambda folder: ["--line-timeout", str(timeout)],
        start,
        seconds,
        bound=8 * MIB + peers * 16 * 1024,
        slack=8 * MIB,
    )


def idle(peers: int, seconds: float) -> Flood:
    """Idle connections; in the end each is told to make room."""
    timeout = int(seconds) + 10

    def start(server: Watched) -> list[Load]:
        return [Load(loads.idle, server.addresses["ack tcp"], peers, timeout)]

    return Flood(
        "idle",
        lambda folder: ["--idle-timeout", str(timeout), "--max-connections", str(peers + 10)],
        start,
        seconds,
        bound=16 * MIB + peers * 10 * 1024,
        slack=16 * MIB + peers * 2 * 1024,
    )


def storm(rate: int, seconds: float, loaders: int = 2) -> Flood:
    """Connections that are closed at once; some reset, some after a line and a half."""

    def start(server: Watched) -> list[Load]:
        address = server.addresses["ack tcp"]
        return [Load(loads.storm, address, rate // loaders) for _ in range(loaders)]

    def counted(ended: Ended, done: Done) -> str:
        # The bystander's own, and the two questions.
        served = ended.connections - 3
        if served > done["connections"]:
            return f"{served} connections served, {done['connections']} made"
        return ""

    return Flood("storm", _usual, start, seconds, bound=64 * MIB, slack=32 * MIB, counted=counted)


def refused(peers: int, seconds: float) -> Flood:
    """Peers that are one too many, over and over; so many of them do not close.

    They must not use up the descriptors of the process: then nobody would be told anything.
    """
    places = 100

    def start(server: Watched) -> list[Load]:
        return [Load(loads.refused, server.addresses["ack tcp"], places, peers)]

    return Flood(
        "refused",
        # The bystander has a place, too.
        lambda folder: ["--max-connections", str(places + 1)],
        start,
        seconds,
        bound=16 * MIB + peers * 10 * 1024,
        slack=16 * MIB + peers * 2 * 1024,
    )


def tls(rate: int, seconds: float) -> Flood:
    """Handshakes: garbage, begun ones that get no further, and whole ones."""

    def start(server: Watched) -> list[Load]:
        return [Load(loads.tls, server.addresses["ack ssl"], rate)]

    return Flood(
        "tls",
        lambda folder: [*_overTls(folder), "--line-timeout", "5"],
        start,
        seconds,
        # A TLS session takes up to 100 KiB or so; 1000 of them are the backlog of the load.
        bound=128 * MIB,
        slack=64 * MIB,
        piece=0.001,  # a handshake with an RSA key of 2048 bits
    )


def forged(rate: int, seconds: float) -> Flood:
    """Datagrams with forged sources, those of loops among them."""

    def start(server: Watched) -> list[Load]:
        return [Load(loads.forged, server.addresses["echo udp"], rate)]

    def counted(ended: Ended, done: Done) -> str:
        if ended.datagrams > done["datagrams"]:
            return f"{ended.datagrams} datagrams received, {done['datagrams']} sent: a loop"
        # A quarter must meet with silence, all but for chance in what the system drops.
        if ended.silent < ended.datagrams * 0.15:
            return f"only {ended.silent} of {ended.datagrams} datagrams met with silence"
        return ""

    return Flood(
        "forged",
        lambda folder: ["--datagram-rate", "1000"],
        start,
        seconds,
        bound=16 * MIB,
        slack=16 * MIB,
        counted=counted,
        # The sources whose rates are remembered, and the addresses.
        blocks=BLOCKS + 3 * SOURCES + 15 * REMEMBERED,
        piece=0.0005,  # a batch, with replies that the system answers with errors
    )


def telnet(peers: int, seconds: float) -> Flood:
    """Telnet clients that negotiate without end."""

    def start(server: Watched) -> list[Load]:
        return [Load(loads.telnet, server.addresses["ack tcp"], peers)]

    return Flood(
        "telnet",
        _usual,
        start,
        seconds,
        bound=16 * MIB + peers * 256 * 1024,
        slack=16 * MIB + peers * 16 * 1024,
        piece=SLICE,
    )


# All of them, for long


def mixed(minutes: float, say: Callable[[str], None]) -> bool:
    """Load a server with all of them at once, in rounds; after each it holds what it held before.

    The first third of the rounds counts for nothing: what is cached grows in them.
    """
    states: list[State] = []
    problems: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = Watched(
            folder,
            stack,
            *("--listen", "echo@tcp:0:interface=127.0.0.1", "--line-timeout", "5"),
            *("--socket-option", "SO_SNDBUF=16384", "--datagram-rate", "1000"),
            *_overTls(folder),
        )
        at = server.addresses
        bystander = Bystander(at["ack tcp"])
        bystander.start()
        stack.callback(bystander.stop)
        before = server.state()
        until = monotonic() + minutes * 60
        works: list[Callable[[], Load]] = [
            partial(Load, loads.unread, [at["ack tcp"], at["echo tcp"]], 100),
            partial(Load, loads.slow, at["ack tcp"], 50, 5),
            partial(Load, loads.storm, at["ack tcp"], 300),
            partial(Load, loads.tls, at["ack ssl"], 100),
            partial(Load, loads.telnet, at["ack tcp"], 5),
        ]
        if os.geteuid() == 0:
            works.append(partial(Load, loads.forged, at["echo udp"], 2000))
        done = Done()
        while monotonic() < until and not problems:
            running = [work() for work in works]
            for load in running:
                stack.callback(load.process.kill)
            try:
                for load in running:
                    load.begun()
                rests(5)
                done.update(loads.together(running))
            except AssertionError as problem:
                problems.append(str(problem))
                break
            if not settled(server, before.files, RELEASED):
                problems.append(f"{server.files - before.files} descriptors are not released")
            states.append(state := server.state())
            say(
                f"mixed {len(states)}: memory {_mib(state)} MiB, descriptors {state.files}, "
                f"delayed calls {state.calls}, blocks {state.blocks:,}"
            )
        bystander.stop()
        if bystander.problem:
            problems.append(bystander.problem)
        try:
            ended = server.end()
            problems += filter(None, [_answered(ended)])
        except AssertionError as problem:
            problems.append(str(problem))
        problems += [f"logged: {line}" for line in server.failures()[:3]]
    problems += grown(states)
    did = ", ".join(f"{count:,} {what}" for what, count in done.items())
    say(f"mixed: {len(states)} rounds; {did}; {bystander.lines:,} lines of the bystander")
    for each in problems:
        say(f"mixed FAILED: {each}")
    return not problems


def grown(states: list[State]) -> list[str]:
    """Say what has grown from the middle third of the states to the last."""
    third = len(states) // 3
    if not third:
        return []
    allowed = State(memory=4 * MIB, files=0, calls=1, blocks=5000)
    problems = []
    for name, most in allowed._asdict().items():
        middle, last = (
            median(getattr(state, name) for state in states[a : a + third])
            for a in (len(states) - 2 * third, len(states) - third)
        )
        if last - middle > most:
            problems.append(f"{name} grew from {middle:,.0f} to {last:,.0f}")
    return problems
