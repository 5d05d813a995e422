"""The figures of one process: what its listeners, its connections and its store do now."""

import os
import resource
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from heapq import nlargest
from operator import itemgetter
from typing import Any, Protocol

from sockservice.distribution import Distribution
from sockservice.limits.counters import CounterSet
from sockservice.limits.memory import MemoryLimit
from sockservice.server.standing import Standing
from sockservice.store.groupcommit import Store

#: Seconds between two looks.
INTERVAL = 1.0
#: Connections that are told of: the busiest, and those that hold most.
MOST = 10
#: Characters of a peer's name that are told: the subject of a certificate may have many.
LONGEST = 200
#: Looks for which it is remembered that one came late.
REMEMBERED = 10


class Lively(Protocol):
    """A connection, as it is told of."""

    @property
    def standing(self) -> Standing:
        """How it stands."""


class Seen(Protocol):
    """A listener, as it is told of."""

    #: Where it listens, as counters and stores name it.
    at: str
    protocol: str
    #: The sizes of its datagrams, in bytes.
    sizes: Distribution | None

    @property
    def connections(self) -> int:
        """How many connections it serves now."""

    @property
    def lacking(self) -> bool:
        """Whether it could not accept a connection, for want of descriptors."""

    @property
    def expires(self) -> float | None:
        """When its certificate expires, in seconds since 1970."""

    def lively(self) -> Iterable[tuple[Lively, int, int]]:
        """Give each of its connections that has lines or holds bytes, and how many of each."""


class Process:
    """Gathers the figures of this process, once a second; `reactor` tells the time."""

    def __init__(
        self,
        reactor: Any,
        listeners: Callable[[], Iterable[Seen]],
        memory: MemoryLimit,
        store: Store | None,
    ) -> None:
        self._reactor = reactor
        self._listeners = listeners
        self._memory = memory
        self._store = store
        self._before: dict[int, int] = {}  # lines of connections, by what tells these apart
        self._looked: float | None = None
        self._late: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def late(self) -> float:
        """Seconds by which the reactor was late, at most, of the last looks and now."""
        overdue = 0.0 if self._looked is None else self._reactor.seconds() - self._looked - INTERVAL
        return max(0.0, overdue, *self._late)

    def look(self) -> dict[str, Any]:
        """Return the figures, fit for JSON; to be called each INTERVAL."""
        now = self._reactor.seconds()
        passed = INTERVAL if self._looked is None else max(now - self._looked, 0.001)
        self._late.append(max(0.0, passed - INTERVAL))
        self._looked = now
        listeners = {}
        rows: list[tuple[int, int, Lively, str]] = []
        before, self._before = self._before, {}
        for each in self._listeners():
            listeners[each.at] = {
                "protocol": each.protocol,
                "connections": each.connections,
                "lacking": each.lacking,
                "expires": each.expires,
                "sizes": None if each.sizes is None else each.sizes.state,
            }
            at = each.at
            for connection, lines, held in each.lively():
                key = id(connection)
                rows.append((lines - before.get(key, 0), held, connection, at))
                self._before[key] = lines
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "pid": os.getpid(),
            "late": round(self.late, 3),
            "cpu": usage.ru_utime + usage.ru_stime,
            "resident": resident(),
            "listeners": listeners,
            "held": self._memory.held,
            "store": None if self._store is None else self._stored(self._store),
            "busiest": _most(rows, 0, passed),
            "heaviest": _most(rows, 1, passed),
        }

    def _stored(self, store: Store) -> dict[str, Any]:
        return {
            "awaiting": store.awaiting,
            "pending": store.pending,
            "oldest": round(store.oldest, 6),
            "problem": None if store.problem is None else store.problem.reason,
            "waits": store.waits.state,
        }


class Measurements:
    """What the processes have measured since the start, those that have ended included."""

    def __init__(self) -> None:
        #: Microseconds from a line's arrival to its acknowledgement, with a store.
        self.waits = Distribution()
        #: Bytes of datagrams, by listener.
        self.sizes: dict[str, Distribution] = {}

    def heard(self, now: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        """Add by how much the figures of a process have grown; `before` may be empty."""
        if now["store"] is not None:
            known = before["store"]["waits"] if before else ()
            self.waits.grow(Distribution(*now["store"]["waits"]), Distribution(*known))
        for at, each in now["listeners"].items():
            if each["sizes"] is not None:
                known = before["listeners"][at]["sizes"] if before else ()
                grown = self.sizes.setdefault(at, Distribution())
                grown.grow(Distribution(*each["sizes"]), Distribution(*known))


def counted(counters: CounterSet, listener: str) -> dict[str, Any]:
    """Return the counters of a listener and their reasons, fit for JSON."""
    each = counters[listener]
    counts = {name: count for name, count in each.counts().items() if count}
    return {"counters": counts, "reasons": each.reasons}


def resident() -> int:
    """Return the bytes of this process that are in memory; proc(5)."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _most(
    rows: Iterable[tuple[int, int, Lively, str]], place: int, seconds: float
) -> list[dict[str, Any]]:
    """Return the connections with most at a place of their rows; these alone are looked at."""
    return [
        {
            **connection.standing._asdict(),
            "peer": connection.standing.peer[:LONGEST],
            "listener": at,
            "rate": round(max(0, grown) / seconds, 1),
        }
        for grown, held, connection, at in nlargest(MOST, rows, key=itemgetter(place))
        if (grown, held)[place] > 0
    ]
