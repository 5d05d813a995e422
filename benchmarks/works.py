"""What is measured: the kinds of load, and the ratios that must be reached."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.contestants import Contestant, Load, Loop, Program

Side = Literal["stream", "datagram", "durable"]

# Enough for the largest read of any contestant to be full, little enough to stay in the caches.
PIPELINED_BYTES = 256 * 1024
PIPELINED_LINES = 8192


@dataclass(frozen=True)
class Work:
    name: str
    description: str
    kind: Load
    unit: str
    connections: int
    size: int
    window: int
    side: Side = "stream"

    def program(self, contestant: Contestant) -> Program | Loop | None:
        """Return the server this load is for, or None where the contestant has none."""
        if self.side == "durable":
            return contestant.durable
        return contestant.datagram if self.side == "datagram" else contestant.stream


@dataclass(frozen=True)
class Target:
    """`contestant` must reach `ratio` times the throughput of its baseline in `work`.

    `baseline` names another one to compare with; where it was measured in several of the
    works `best_of`, it is the one in which it did best.
    """

    work: str
    contestant: str
    ratio: float
    baseline: str | None = None
    best_of: tuple[str, ...] = ()


def pipelined(size: int) -> Work:
    return Work(
        f"pipelined-{size}",
        f"8 connections, {size}-byte lines, as many in flight as fit",
        kind="lines",
        unit="lines",
        connections=8,
        size=size,
        window=min(PIPELINED_BYTES // size, PIPELINED_LINES),
    )


def pingpong(connections: int) -> Work:
    return Work(
        f"pingpong-{connections}",
        f"{connections} connection{'s' * (connections > 1)}, a 32-byte line and its reply in turn",
        kind="lines",
        unit="lines",
        connections=connections,
        size=32,
        window=1,
    )


def udp(size: int) -> Work:
    return Work(
        f"udp-{size}",
        f"{size}-byte datagrams sent back, 64 in flight",
        kind="datagrams",
        unit="datagrams",
        connections=1,
        size=size,
        window=64,
        side="datagram",
    )


def durable(name: str, connections: int, window: int) -> Work:
    many = f"{connections} connection{'s' * (connections > 1)}, 64-byte lines, "
    return Work(
        f"durable-{name}",
        many + ("each and its reply in turn" if window == 1 else f"{window:,} in flight"),
        kind="lines",
        unit="lines",
        connections=connections,
        size=64,
        window=window,
        side="durable",
    )


WORKS = {
    work.name: work
    for work in (
        pipelined(8),
        pipelined(32),
        pipelined(200),
        pipelined(4000),
        pingpong(1),
        pingpong(50),
        pingpong(1000),
        udp(32),
        udp(1400),
        Work(
            "connect",
            "connect, a 32-byte line, its reply, close; 8 at a time",
            kind="connections",
            unit="connections",
            connections=8,
            size=32,
            window=1,
        ),
        durable("pingpong-1", 1, 1),
        durable("pingpong-16", 16, 1),
        durable("pingpong-256", 256, 1),
        durable("pipelined", 1, 2048),
    )
}

RELP = ("durable-pingpong-256", "durable-pipelined")

TARGETS = (
    Target("pipelined-32", "sockservice", 8.0),
    Target("pingpong-50", "sockservice", 1.5),
    Target("pipelined-32", "subclass", 1.5),
    Target("durable-pingpong-1", "store", 0.6, "fdatasync"),
    Target("durable-pingpong-256", "store", 0.75),
    Target("durable-pingpong-256", "store", 50, "relp", RELP),
    Target("durable-pipelined", "store", 60, "fdatasync"),
    Target("durable-pipelined", "store", 50, "relp", RELP),
)

DEFAULT_WORKS = tuple(dict.fromkeys(target.work for target in TARGETS))
