"""What is measured: the kinds of load, and the ratios that must be reached."""

from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.contestants import CONTESTANTS, Contestant, Load, Loop, Program, Sender

Side = Literal["stream", "datagram", "durable", "startup", "sender"]
Figure = Literal["figure", "p50", "p99"]

# Enough for the largest read of any contestant to be full, little enough to stay in the caches.
PIPELINED_BYTES = 256 * 1024
PIPELINED_LINES = 8192
# Of all connections together, however many they are.
PIPELINED_BYTES_IN_ALL = 8 * PIPELINED_BYTES


@dataclass(frozen=True)
class Curve:
    """How a figure grows: the works that name it are its points."""

    title: str
    grows: str


CURVES = {
    "pingpong": Curve("Ping-pong", "connections"),
    "pipelined": Curve("Pipelined lines on 8 connections", "bytes in a line"),
    "connect": Curve("Connect, a line, its reply, close", "connections at a time"),
    "udp-32": Curve("Datagrams of 32 bytes", "datagrams/s sent"),
    "udp-1400": Curve("Datagrams of 1,400 bytes", "datagrams/s sent"),
    "udp-60000": Curve("Datagrams of 60,000 bytes", "datagrams/s sent"),
    "idle": Curve("Memory for an idle connection", "connections"),
    "burst": Curve("Connections that come all at once", "connections"),
    "durable": Curve("Lines kept on disk", "connections"),
    "flight": Curve("Lines on one connection", "lines in flight"),
    "durable-flight": Curve("Lines on one connection, kept on disk", "lines in flight"),
    "stored": Curve("Lines kept on disk for 16 connections", "MB in the store beforehand"),
}


@dataclass(frozen=True)
class Work:
    """A kind of load. `unit` is that of its figure, of which more is better unless `less`.

    `window` is the number of lines in flight, or that a sender has. `rate` is in datagrams a
    second; with 0 the next waits for a reply. `stored` is how many megabytes of lines the
    store has beforehand. In `curve` the work is the point `at`.
    """

    name: str
    description: str
    kind: Load
    unit: str
    connections: int = 1
    size: int = 32
    window: int = 1
    side: Side = "stream"
    rate: int = 0
    stored: int = 0
    less: bool = False
    curve: str = ""
    at: int = 0

    def program(self, contestant: Contestant) -> Program | Loop | Sender | None:
        """Return what this load is for, or None where the contestant has no such thing."""
        if contestant.tls and self.kind not in ("lines", "idle"):
            return None
        if self.side == "durable":
            made = contestant.durable
            if self.stored and not (isinstance(made, Program) and made.stored):
                return None
            return made
        if self.side == "startup":
            return contestant.startup
        if self.side == "sender":
            return contestant.sender
        return contestant.datagram if self.side == "datagram" else contestant.stream

    def beyond(self, contestant: Contestant) -> str | None:
        """Say why this is more than the contestant can do."""
        if self.connections <= contestant.most:
            return None
        return f"can't, at most {contestant.most:,} connections: {contestant.bound}"


@dataclass(frozen=True)
class Target:
    """`contestant` must reach `ratio` times what its baseline reaches in `work`.

    That is at least, or, where less is better, at most, and `spare` more in the work's unit.
    `baseline` names another one to compare with; where it was measured in several of the
    works `best_of`, it is the one in which it did best.
    """

    work: str
    contestant: str
    ratio: float
    baseline: str | None = None
    best_of: tuple[str, ...] = ()
    figure: Figure = "figure"
    spare: float = 0.0

    @property
    def at_most(self) -> bool:
        return self.figure != "figure" or WORKS[self.work].less


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number > 1)}"


def pipelined(size: int, connections: int = 8) -> Work:
    in_flight = min(PIPELINED_BYTES, PIPELINED_BYTES_IN_ALL // connections)
    return Work(
        f"pipelined-{size}" + (f"-on-{connections}" if connections != 8 else ""),
        f"{counted(connections, 'connection')}, {size}-byte lines, as many in flight as fit",
        kind="lines",
        unit="lines/s",
        connections=connections,
        size=size,
        window=max(2, min(in_flight // size, PIPELINED_LINES)),
        curve="pipelined" if connections == 8 else "",
        at=size,
    )


def pingpong(connections: int) -> Work:
    return Work(
        f"pingpong-{connections}",
        f"{counted(connections, 'connection')}, a 32-byte line and its reply in turn",
        kind="lines",
        unit="lines/s",
        connections=connections,
        curve="pingpong",
        at=connections,
    )


def connect(connections: int) -> Work:
    return Work(
        "connect" if connections == 8 else f"connect-{connections}",
        f"connect, a 32-byte line, its reply, close; {connections} at a time",
        kind="connections",
        unit="connections/s",
        connections=connections,
        curve="connect",
        at=connections,
    )


def udp(size: int, window: int) -> Work:
    return Work(
        f"udp-{size}",
        f"{size}-byte datagrams sent back, {window} in flight",
        kind="datagrams",
        unit="datagrams/s",
        size=size,
        window=window,
        side="datagram",
    )


def udp_at(size: int, rate: int) -> Work:
    return Work(
        f"udp-{size}-at-{rate}",
        f"{size}-byte datagrams, {rate:,} a second whatever comes back",
        kind="datagrams",
        unit="datagrams/s",
        size=size,
        side="datagram",
        rate=rate,
        curve=f"udp-{size}",
        at=rate,
    )


def idle(connections: int) -> Work:
    return Work(
        f"idle-{connections}",
        f"{connections:,} connections that have had one line answered: memory for each",
        kind="idle",
        unit="bytes",
        connections=connections,
        less=True,
        curve="idle",
        at=connections,
    )


def burst(connections: int) -> Work:
    return Work(
        f"burst-{connections}",
        f"{connections:,} connections at once, a line on each: until all are answered",
        kind="burst",
        unit="ms",
        connections=connections,
        less=True,
        curve="burst",
        at=connections,
    )


def durable(connections: int, window: int) -> Work:
    each = "each and its reply in turn" if window == 1 else f"{window:,} in flight"
    return Work(
        f"durable-pingpong-{connections}"
        if window == 1
        else "durable-pipelined"
        if window == 2048
        else f"durable-window-{window}",
        f"{counted(connections, 'connection')}, 64-byte lines, {each}",
        kind="lines",
        unit="lines/s",
        connections=connections,
        size=64,
        window=window,
        side="durable",
        curve="durable" if window == 1 else "durable-flight" if connections == 1 else "",
        at=connections if window == 1 else window,
    )


def flight(window: int) -> Work:
    return Work(
        f"flight-{window}",
        f"1 connection, 32-byte lines, {window:,} in flight",
        kind="lines",
        unit="lines/s",
        window=window,
        curve="flight",
        at=window,
    )


def stored(megabytes: int) -> Work:
    return replace(
        durable(16, 1),
        name=f"stored-{megabytes}",
        description=f"16 connections, 64-byte lines, each and its reply in turn, "
        f"into a store that has {megabytes:,} MB of lines",
        stored=megabytes,
        curve="stored",
        at=megabytes,
    )


SIZES = (8, 32, 200, 4000)
# What most servers hold to be a line, and about the most that ours does.
LONG = (16_000, 65_000)
FLIGHTS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
RATES = {
    32: (25_000, 50_000, 100_000, 150_000, 200_000),
    1400: (25_000, 50_000, 100_000, 150_000, 200_000),
    60_000: (2_500, 5_000, 10_000, 20_000),
}

WORKS = {
    work.name: work
    for work in (
        *(pipelined(size) for size in (*SIZES, *LONG)),
        *(pipelined(size, connections) for connections in (1, 256) for size in SIZES),
        *map(pingpong, (1, 50, 1_000, 10_000)),
        *map(connect, (1, 8, 64)),
        udp(32, 64),
        udp(1400, 64),
        udp(60_000, 1),
        *(udp_at(size, rate) for size, rates in RATES.items() for rate in rates),
        *map(flight, FLIGHTS),
        *map(idle, (300, 1_000, 3_000, 10_000)),
        *map(burst, (100, 1_000, 4_000)),
        Work(
            "startup",
            "from starting twistd to the first reply, or to the reactor's first turn",
            kind="startup",
            unit="ms",
            side="startup",
            less=True,
        ),
        *(durable(connections, 1) for connections in (1, 16, 256)),
        durable(1, 2048),
        # What librelp has in flight.
        durable(1, 128),
        *(durable(1, window) for window in (16_384, 131_072, 1_000_000)),
        *map(stored, (1, 100, 1_000, 5_000, 20_000)),
        Work(
            "sending",
            "64-byte lines into a session, from a program that has them all: until all are stored",
            kind="sending",
            unit="lines/s",
            size=64,
            window=300_000,
            side="sender",
        ),
    )
}

RELP = ("durable-pingpong-256", "durable-pipelined")

TARGETS = (
    Target("pipelined-32", "sockservice", 10),
    Target("pipelined-32", "sockservice", 50, "asyncio-streams"),
    Target("pipelined-32", "sockservice", 50, "uvloop-protocol"),
    Target("pipelined-32", "sockservice", 0.4, "c"),
    Target("pipelined-32", "subclass", 2),
    *(
        target
        for work in ("pingpong-50", "pingpong-1000")
        for target in (
            Target(work, "sockservice", 2),
            Target(work, "sockservice", 2, "asyncio-streams"),
            Target(work, "sockservice", 1, "uvloop-protocol"),
            Target(work, "sockservice", 1, "uvloop-protocol", figure="p50"),
            Target(work, "sockservice", 1, "uvloop-protocol", figure="p99"),
            Target(work, "sockservice", 0.7, "c"),
        )
    ),
    Target("udp-32", "sockservice", 1.5),
    Target("udp-32", "sockservice", 1.5, "asyncio-protocol"),
    Target("udp-32", "sockservice", 1, "uvloop-protocol"),
    Target("idle-10000", "sockservice", 1.3),
    Target("burst-1000", "sockservice", 1.5, "c", spare=200),
    Target("startup", "sockservice", 1.25, "empty-plugin"),
    Target("pingpong-50", "status", 0.98),
    Target("pipelined-32", "status", 0.98),
    Target("durable-pingpong-1", "store", 0.6, "fdatasync"),
    Target("durable-pingpong-256", "store", 0.5),
    Target("durable-pingpong-256", "workers", 1.2, "store"),
    Target("durable-pingpong-256", "store", 50, "relp", RELP),
    Target("durable-pingpong-256", "sessions", 0.6),
    Target("durable-pingpong-256", "beside", 1),
    Target("durable-pipelined", "store", 60, "fdatasync"),
    Target("durable-pipelined", "store", 50, "relp", RELP),
    *(
        target
        for work in ("durable-window-128", "durable-pipelined")
        for target in (
            Target(work, "collector", 50, "relp"),
            Target(work, "collector", 1, "relp-memory"),
        )
    ),
    Target("durable-pipelined", "sessions", 0.9),
    Target("durable-pipelined", "beside", 1),
    Target("sending", "ship", 0.8),
)


def is_judged(work: Work, contestant: Contestant) -> bool:
    """Whether a target compares this contestant in this work, or compares with it."""
    return any(
        work.name in (target.work, *target.best_of)
        and contestant.name
        in (target.contestant, target.baseline or CONTESTANTS[target.contestant].baseline)
        for target in TARGETS
    )
