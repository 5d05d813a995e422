"""What is measured: the kinds of load, and the ratios that must be reached."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.contestants import Contestant, Program

Kind = Literal["lines", "connections", "datagrams"]

# Enough for the largest read of any contestant to be full, little enough to stay in the caches.
PIPELINED_BYTES = 256 * 1024
PIPELINED_LINES = 8192


@dataclass(frozen=True)
class Work:
    name: str
    description: str
    kind: Kind
    unit: str
    connections: int
    size: int
    window: int

    def program(self, contestant: Contestant) -> Program | None:
        """Return the server this load is for, or None where the contestant has none."""
        return contestant.datagram if self.kind == "datagrams" else contestant.stream


@dataclass(frozen=True)
class Target:
    """`contestant` must reach `ratio` times the throughput of its baseline in `work`."""

    work: str
    contestant: str
    ratio: float


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
    )
}

TARGETS = (
    Target("pipelined-32", "sockservice", 8.0),
    Target("pingpong-50", "sockservice", 1.5),
    Target("pipelined-32", "subclass", 1.5),
)

DEFAULT_WORKS = tuple(dict.fromkeys(target.work for target in TARGETS))
