"""Two cores: one for the server, the other for the load."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.failure import Failure


@dataclass(frozen=True)
class Cores:
    server: int
    loader: int


def siblings(core: int) -> str:
    """The hardware threads that share one physical core with `core`, as the kernel lists them."""
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    try:
        return path.read_text()
    except OSError:
        return str(core)


def choose(available: Iterable[int]) -> Cores:
    """Take the first core, and the first after it that shares no physical core with it."""
    server, *others = sorted(available)
    # Two threads of one core would slow one another down, and the busier loader the server more.
    for other in others:
        if siblings(other) != siblings(server):
            return Cores(server, other)
    if others:
        return Cores(server, others[0])
    raise Failure("two processor cores are needed: one for the server, one for the load")


def choose_available() -> Cores:
    return choose(os.sched_getaffinity(0))
