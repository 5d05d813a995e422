"""The figures of the whole service: sums over its processes, and the last five minutes."""

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from sockservice import __version__
from sockservice.distribution import Distribution
from sockservice.limits.counters import Counters, CounterSet
from sockservice.limits.setting import Setting
from sockservice.limits.settings import SETTINGS
from sockservice.status.process import LONGEST, MOST, Measurements, Process, Seen, counted
from sockservice.store.groupcommit import PENDING_LIMIT, Store

#: Samples of the history, one a second: five minutes.
HISTORY = 300
#: Samples over which a rate is taken: workers report once a second, and not all at one moment.
SMOOTH = 3
# What a store's or an endpoint's place may have before its host: a name and a password.
_SECRET = re.compile(r"//[^/@\s]+@")


class WorkerReport(NamedTuple):
    """What a worker has told of itself last."""

    number: int
    #: Whether it serves.
    ready: bool
    #: Whether another takes its place.
    retiring: bool
    #: Its figures, or none yet.
    figures: Mapping[str, Any]
    #: Seconds since it told them, or since it was started.
    silent: float


class Overview:
    """Sums up what the processes tell; a process without workers tells of itself."""

    def __init__(
        self,
        reactor: Any,
        process: Process,
        counters: CounterSet,
        inForce: Mapping[str, Any],
        listeners: Callable[[], Iterable[Seen]],
        store: Store | None = None,
        workers: Callable[[], list[WorkerReport]] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._process = process
        self.counters = counters
        #: The value of each option that holds now.
        self.inForce = inForce
        self._listeners = listeners
        self.store = store
        self._workers = workers
        self._wall = wall
        self.version = __version__
        self.started = wall()
        self._since = reactor.seconds()
        #: What was measured.
        self.measured = Measurements()
        #: The figures of this process.
        self.own: Mapping[str, Any] = {}
        self._history: deque[list[Any]] = deque(maxlen=HISTORY)
        # Of the last samples: the time, the counters by listener, and the waits.
        self._samples: deque[tuple[float, dict[str, Counters], Distribution]] = deque(
            maxlen=SMOOTH + 1
        )

    @property
    def late(self) -> float:
        """Seconds by which the reactor of this process was late."""
        return self._process.late

    @property
    def workers(self) -> list[WorkerReport] | None:
        """What each worker has told; None if there are none."""
        return None if self._workers is None else self._workers()

    @property
    def processes(self) -> list[Mapping[str, Any]]:
        """The figures of each process that serves."""
        workers = self.workers
        if workers is None:
            return [self.own] if self.own else []
        return [each.figures for each in workers if each.figures]

    def look(self) -> None:
        """Take a sample; to be called each second."""
        before, self.own = self.own, self._process.look()
        if self._workers is None:
            self.measured.heard(self.own, before)
        now = self._reactor.seconds()
        of = {}
        for at, each in self.counters.of.items():
            of[at] = Counters()
            of[at].grow(each, Counters())
        waits = self.measured.waits
        self._samples.append((now, of, Distribution(waits.counts, waits.sum)))
        sums = self.rates()
        gauges = self.gauges
        took = self._recent.quantile(0.99)
        self._history.append(
            [
                round(self._wall()),
                round(sums["lines"], 1),
                round(sums["refused"], 1),
                round(sums["datagrams"], 1),
                gauges["connections"],
                gauges["held"],
                None if took is None else took / 1_000_000,
            ]
        )

    @property
    def history(self) -> list[list[Any]]:
        """The last five minutes, a row a second.

        In it: the time, lines, refusals and datagrams a second, connections, bytes held, and
        the seconds in which 99 % of lines were durable.
        """
        return list(self._history)

    @property
    def _recent(self) -> Distribution:
        """The waits between the oldest sample and the newest."""
        recent = Distribution()
        if self._samples:
            recent.grow(self._samples[-1][2], self._samples[0][2])
        return recent

    def rates(self, listener: str | None = None) -> dict[str, float]:
        """Return how much each counter grows in a second, of one listener or of all."""
        grown = Counters()
        seconds = 1.0
        if len(self._samples) > 1:
            (began, first, _), (ended, last, _) = self._samples[0], self._samples[-1]
            seconds = max(ended - began, 0.001)
            for at in last if listener is None else [listener]:
                if at in last:
                    grown.grow(last[at], first.get(at, Counters()))
        return {name: count / seconds for name, count in grown.counts().items()}

    @property
    def gauges(self) -> dict[str, Any]:
        """What is there now, in all processes together."""
        processes = self.processes
        listeners = [each for one in processes for each in one["listeners"].values()]
        stores = [one["store"] for one in processes if one["store"] is not None]
        return {
            "connections": sum(each["connections"] for each in listeners),
            "held": sum(one["held"] for one in processes),
            "awaiting": sum(each["awaiting"] for each in stores),
            "pending": sum(each["pending"] for each in stores),
            "oldest": max((each["oldest"] for each in stores), default=0.0),
            "lacking": any(each["lacking"] for each in listeners),
        }

    def listeners(self) -> list[dict[str, Any]]:
        """Return what each listener does, in all processes together."""
        found = []
        for at, protocol, expires in self._known():
            of = [one["listeners"][at] for one in self.processes if at in one["listeners"]]
            found.append(
                {
                    "listener": at,
                    "protocol": protocol,
                    "connections": sum(each["connections"] for each in of),
                    "expires": min(
                        (each["expires"] for each in of if each["expires"]), default=expires
                    ),
                    "rates": {
                        name: round(rate, 1) for name, rate in self.rates(at).items() if rate
                    },
                    **counted(self.counters, at),
                }
            )
        return found

    def _known(self) -> list[tuple[str, str, float | None]]:
        return [(each.at, each.protocol, each.expires) for each in self._listeners() if each.at]

    @property
    def majorityMissing(self) -> float:
        """Seconds for which a majority of the store's nodes is missing."""
        return (
            0.0
            if self.store is None
            else float(self.store.writer.figures.get("majorityMissing", 0))
        )

    def stored(self) -> dict[str, Any] | None:
        """Return what the store does; None if there is none."""
        if self.store is None:
            return None
        writer = self.store.writer
        problem = self.store.problem
        recent = self._recent
        gauges = self.gauges
        return {
            "engine": _SECRET.sub("//...@", str(self.inForce["store"])),
            "failing": None if problem is None else problem.reason,
            "stored": self.store.stored,
            "awaiting": gauges["awaiting"],
            "oldest": gauges["oldest"],
            "pending": gauges["pending"],
            "pendingLimit": PENDING_LIMIT,
            "commits": writer.durations.count,
            "commitsFailed": writer.failures,
            "lastCommit": writer.last,
            "p50": _seconds(recent.quantile(0.5)),
            "p99": _seconds(recent.quantile(0.99)),
            **writer.figures,
        }

    def options(self) -> list[dict[str, Any]]:
        """Return every option with the value in force, and whether it is the default."""
        return [
            {
                "option": each.name,
                "value": _shown(each, self.inForce[each.name]),
                "default": _shown(each, each.default),
                "differs": _shown(each, self.inForce[each.name]) != _shown(each, each.default),
                "limit": bool(each.protects),
            }
            for each in SETTINGS
        ]

    def state(self) -> dict[str, Any]:
        """Return all that changes by itself, fit for JSON."""
        workers = self.workers
        return {
            "version": self.version,
            "time": round(self._wall(), 3),
            "started": round(self.started, 3),
            "uptime": round(self._reactor.seconds() - self._since, 1),
            "late": round(self.late, 3),
            **self.gauges,
            "limits": {name: self.inForce[name] for name in ("max-connections", "memory-limit")},
            "counters": self.counters.counts(),
            "rates": _rounded(self.rates()),
            "listeners": self.listeners(),
            "store": self.stored(),
            "busiest": self._most("busiest", "rate"),
            "heaviest": self._most("heaviest", "held"),
            "workers": None if workers is None else [_worker(each) for each in workers],
        }

    def _most(self, which: str, by: str) -> list[dict[str, Any]]:
        """Return the connections that have the most, of all processes."""
        rows: list[dict[str, Any]] = []
        workers = self.workers
        if workers is None:
            rows = list(self.own.get(which, ()))
        else:
            for each in workers:
                rows += [{**row, "worker": each.number} for row in each.figures.get(which, ())]
        rows.sort(key=lambda row: -row[by])
        return rows[:MOST]


def _rounded(rates: Mapping[str, float]) -> dict[str, float]:
    return {name: round(rate, 1) for name, rate in rates.items() if rate}


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1_000_000


def _shown(setting: Setting, value: Any) -> str:
    text = _SECRET.sub("//...@", setting.written(value))
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _worker(told: WorkerReport) -> dict[str, Any]:
    figures = told.figures
    return {
        "worker": told.number,
        "ready": told.ready,
        "retiring": told.retiring,
        "silent": round(told.silent, 1),
        "pid": figures.get("pid"),
        "late": figures.get("late"),
        "cpu": figures.get("cpu"),
        "resident": figures.get("resident"),
        "held": figures.get("held"),
        "connections": sum(each["connections"] for each in figures.get("listeners", {}).values()),
    }
