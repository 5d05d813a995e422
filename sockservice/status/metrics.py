"""The figures as Prometheus and OpenMetrics write them, read when they are asked for."""

import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from operator import itemgetter
from typing import Any

from sockservice.distribution import Distribution
from sockservice.limits.counters import Counters
from sockservice.limits.settings import SETTINGS
from sockservice.status.health import Health
from sockservice.status.overview import Overview

#: Powers of two of the bounds of histograms: microseconds, lines, bytes.
DURATION, LINES, BYTES, DATAGRAM = (7, 24), (0, 18), (6, 26), (4, 16)


#: Counters of a listener: the metric, without `sockservice_` and `_total`, and what it counts.
LISTENERS: dict[str, tuple[str, str]] = {
    "connections": ("connections_accepted", "Connections made."),
    "cut": ("connections_cut", "Connections that ended before all replies were out."),
    "turnedAway": ("connections_turned_away", "Connections refused, by the limit that was met."),
    "timedOut": ("connections_timed_out", "Connections closed for a timeout."),
    "http": ("connections_http", "Connections refused for an HTTP request."),
    "mismatched": ("connections_mismatched", "Connections refused for TLS, or for none."),
    "overheld": ("connections_overheld", "Connections closed since all held too much."),
    "slowed": ("connections_slowed", "Pauses of connections whose lines came too fast."),
    "lines": ("lines_received", "Lines received, refused ones included."),
    "answered": ("lines_answered", "Lines whose answer is there."),
    "acknowledged": ("lines_acknowledged", "Lines answered with no refusal."),
    "refused": ("lines_refused", "Lines answered with a refusal, by its kind."),
    "silent": ("lines_silent", "Lines to which the protocol has no reply."),
    "sessionsOpened": ("sessions_opened", "Sessions opened."),
    "sessionsRefused": ("sessions_refused", "Hellos refused."),
    "sessionsTakenOver": ("sessions_taken_over", "Connections that lost their session."),
    "datagrams": ("datagrams_received", "Datagrams received."),
    "dropped": ("datagrams_dropped", "Datagrams that the system had no room for."),
    "datagramsRefused": ("datagrams_refused", "Datagrams answered with a refusal, by its kind."),
    "suspect": ("datagrams_suspect", "Datagrams not answered for where they came from."),
    "throttled": ("datagrams_throttled", "Datagrams not answered: too many of a source."),
    "unsendable": ("datagram_replies_unsendable", "Replies that the system would not send."),
    "lost": ("messages_lost", "Messages that could not be stored, nor be sent again."),
    "starved": ("memory_exhausted", "Times that the system gave no memory."),
}

#: Counters of the whole service.
SERVICE: dict[str, tuple[str, str]] = {
    "sessionsExpired": ("sessions_expired", "Sessions forgotten, unused for too long."),
    "unchanged": ("reloads_failed", "Times that SIGHUP left something as it was."),
    "unready": ("workers_unready", "Workers killed since they were not ready in time."),
    "unlogged": ("log_lines_missing", "Lines of the log that nobody took."),
    "statusRequests": ("status_requests", "Requests for the status page."),
    "statusRefused": ("status_requests_refused", "Requests refused, by their status code."),
    "statusTurnedAway": ("status_connections_turned_away", "Connections refused: too many."),
    "statusTimedOut": ("status_connections_timed_out", "Connections whose request was late."),
}

#: The reasons of those that have some; whatever else there is, is `other`.
REASONS: dict[str, tuple[str, ...]] = {
    "turnedAway": (
        "allow",
        "connection-rate",
        "max-connections",
        "max-connections-per-source",
        "memory",
        "proxy-header",
    ),
    "refused": (
        "framing",
        "internal",
        "line-limit",
        "memory",
        "protocol",
        "store",
        "unterminated",
    ),
    "datagramsRefused": ("internal", "memory", "protocol", "store"),
    "statusRefused": ("400", "404", "405", "413", "421", "431", "501", "503"),
}


class Metrics:
    """Gives the figures of `overview`, where prometheus_client is installed."""

    def __init__(self, overview: Overview, health: Health) -> None:
        self._overview = overview
        self._health = health
        self._started = overview.started
        try:
            # With --chroot it could not be found any more when the first one asks.
            from prometheus_client import CollectorRegistry, ProcessCollector, core, exposition
        except ImportError:
            self._registry = None
            return
        self._core: Any = core
        self._exposition: Any = exposition
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def scrape(self, accept: str) -> tuple[str, bytes] | None:
        """Return the media type and the text that `accept` asks for; None without the library."""
        if self._registry is None:
            return None
        encoder, kind = self._exposition.choose_encoder(accept)
        return kind, encoder(self._registry)

    def collect(self) -> Iterator[Any]:
        """Give all metrics but those of the process; called by prometheus_client."""
        yield from self._counters()
        yield from self._now()
        yield from self._limits()
        yield from self._measured()
        if self._overview.store is not None:
            yield from self._store()
        if self._overview.workers is not None:
            yield from self._workers()
        build = self._core.InfoMetricFamily("sockservice_build", "What runs.")
        build.add_metric(
            [],
            {
                "version": str(self._overview.version),
                "python": platform.python_version(),
                "twisted": version("twisted"),
                "implementation": sys.implementation.name,
            },
        )
        yield build

    def _gauge(self, name: str, text: str, value: float) -> Any:
        return self._core.GaugeMetricFamily(f"sockservice_{name}", text, value=value)

    def _counter(self, name: str, text: str, value: float) -> Any:
        return self._core.CounterMetricFamily(f"sockservice_{name}", text, value=value)

    def _counters(self) -> Iterator[Any]:
        """Give the counters, those of listeners by listener, and by reason where there is one."""
        counters = self._overview.counters
        at = ["listener", "protocol"]
        known = [(each["listener"], each["protocol"]) for each in self._overview.listeners()]
        for field, (name, text) in LISTENERS.items():
            reasons = REASONS.get(field)
            labels = at if reasons is None else [*at, "reason"]
            family = self._core.CounterMetricFamily(f"sockservice_{name}", text, labels=labels)
            for listener, protocol in known:
                of = counters[listener]
                if reasons is None:
                    family.add_metric([listener, protocol], getattr(of, field))
                    continue
                for why, count in _reasons(of, field, reasons):
                    family.add_metric([listener, protocol, why], count)
            yield family
        total = counters.total
        for field, (name, text) in SERVICE.items():
            reasons = REASONS.get(field)
            if reasons is None:
                yield self._counter(name, text, getattr(total, field))
                continue
            family = self._core.CounterMetricFamily(f"sockservice_{name}", text, labels=["reason"])
            for why, count in _reasons(total, field, reasons):
                family.add_metric([why], count)
            yield family

    def _now(self) -> Iterator[Any]:
        """Give what is there now."""
        overview = self._overview
        gauges = overview.gauges
        yield self._gauge("start_time_seconds", "When the service started.", self._started)
        live, ready = self._health.live(), self._health.ready()
        yield self._gauge("live", "Whether /health/live says 200.", live.well)
        yield self._gauge("ready", "Whether /health/ready says 200.", ready.well)
        yield self._gauge(
            "reactor_late_seconds",
            "How late the reactor was in ten seconds.",
            overview.late,
        )
        yield self._gauge("held_bytes", "Held for all connections together.", gauges["held"])
        open_ = self._core.GaugeMetricFamily(
            "sockservice_connections_open", "Connections now.", labels=["listener", "protocol"]
        )
        expiry = self._core.GaugeMetricFamily(
            "sockservice_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires.",
            labels=["listener", "protocol"],
        )
        for each in overview.listeners():
            labels = [each["listener"], each["protocol"]]
            open_.add_metric(labels, each["connections"])
            if each["expires"] is not None:
                expiry.add_metric(labels, each["expires"])
        yield open_
        yield expiry
        yield self._gauge(
            "descriptors_lacking", "Whether no connection could be accepted.", gauges["lacking"]
        )

    def _limits(self) -> Iterator[Any]:
        """Give the value of each limit; 0 is none."""
        inForce = self._overview.inForce
        limits = self._core.GaugeMetricFamily(
            "sockservice_limit",
            "The value of an option; 0 is no limit.",
            labels=["option"],
        )
        for each in SETTINGS:
            if each.protects and not each.repeated:
                limits.add_metric([each.name], inForce[each.name])
        yield limits
        yield self._gauge(
            "connections_limit", "--max-connections; 0 is no limit.", inForce["max-connections"]
        )
        yield self._gauge("held_limit_bytes", "--memory-limit; 0 is none.", inForce["memory-limit"])

    def _measured(self) -> Iterator[Any]:
        """Give the sizes of datagrams."""
        protocols = {each["listener"]: each["protocol"] for each in self._overview.listeners()}
        family = self._core.HistogramMetricFamily(
            "sockservice_datagram_size_bytes",
            "Sizes of datagrams received.",
            labels=["listener", "protocol"],
        )
        for listener, sizes in self._overview.measured.sizes.items():
            labels = [listener, protocols.get(listener, "")]
            family.add_metric(labels, _buckets(sizes, DATAGRAM), sizes.sum)
        yield family

    def _store(self) -> Iterator[Any]:
        """Give what the store does."""
        found = self._overview.stored()
        store = self._overview.store
        assert found is not None and store is not None, "there is one"
        writer = store.writer
        for name, text, value in (
            ("awaiting_lines", "Lines that wait to be durable.", found["awaiting"]),
            ("pending_bytes", "Bytes that wait to be durable.", found["pending"]),
            ("pending_limit_bytes", "Beyond it no line is read.", found["pendingLimit"]),
            ("oldest_wait_seconds", "How long the oldest line waits.", found["oldest"]),
            ("failing", "Whether the last commit failed.", found["failing"] is not None),
            ("file_bytes", "Size of the store's file.", found.get("file")),
            ("log_bytes", "Size of its write-ahead log.", found.get("log")),
            ("last_line_id", "The number of the last line.", found.get("last")),
            ("last_commit_timestamp_seconds", "When a commit succeeded.", found["lastCommit"]),
        ):
            if value is not None:
                yield self._gauge(f"store_{name}", text, value)
        if "nodes" in found:
            yield from self._nodes(found)
        yield self._counter("store_lines", "Lines made durable.", found["stored"])
        yield self._counter("store_commits_failed", "Commits that failed.", found["commitsFailed"])
        seconds = 1e-6
        for name, text, values, bounds, unit in (
            (
                "acknowledgement_seconds",
                "From the arrival of a line to its acknowledgement.",
                self._overview.measured.waits,
                DURATION,
                seconds,
            ),
            ("store_commit_seconds", "What commits take.", writer.durations, DURATION, seconds),
            ("store_commit_lines", "Lines of commits.", writer.lines, LINES, 1),
            ("store_commit_bytes", "Bytes of the lines of commits.", writer.bytes, BYTES, 1),
        ):
            yield self._core.HistogramMetricFamily(
                f"sockservice_{name}",
                text,
                buckets=_buckets(values, bounds, unit),
                sum_value=values.sum * unit,
            )

    def _nodes(self, found: Mapping[str, Any]) -> Iterator[Any]:
        """Give what is known of the nodes of a store that has several."""
        missing = found["majorityMissing"]
        yield self._gauge("store_majority_missing_seconds", "How long most are gone.", missing)
        yield self._counter("store_leader_changes", "Changes of leader.", found["leaderChanges"])
        lost = found["connectionsLost"]
        yield self._counter("store_connections_lost", "Connections to nodes lost.", lost)
        gauge, counter = self._core.GaugeMetricFamily, self._core.CounterMetricFamily
        for name, text, kind, value in (
            ("store_node_up", "Whether it is there.", gauge, lambda each: not each["gone"]),
            ("store_node_gone_seconds", "How long it is gone.", gauge, itemgetter("gone")),
            ("store_node_lag_messages", "What it lacks.", gauge, itemgetter("lag")),
            ("store_node_leads", "Whether it leads.", gauge, itemgetter("leads")),
            ("store_node_connected", "Whether we are there.", gauge, itemgetter("connected")),
            ("store_node_losses", "Times that it went.", counter, itemgetter("losses")),
            ("store_node_returns", "Times that it came again.", counter, itemgetter("returns")),
        ):
            family = kind(f"sockservice_{name}", text, labels=["node"])
            for each in found["nodes"]:
                family.add_metric([each["node"]], float(value(each)))
            yield family

    def _workers(self) -> Iterator[Any]:
        """Give what each worker does, by its number."""
        gauge = self._core.GaugeMetricFamily
        of = {
            "up": gauge("sockservice_worker_up", "Whether it serves.", labels=["worker"]),
            "connections": gauge(
                "sockservice_worker_connections_open", "Connections now.", labels=["worker"]
            ),
            "held": gauge("sockservice_worker_held_bytes", "Held.", labels=["worker"]),
            "resident": gauge(
                "sockservice_worker_resident_memory_bytes", "In memory.", labels=["worker"]
            ),
            "silent": gauge(
                "sockservice_worker_silent_seconds", "Since it told figures.", labels=["worker"]
            ),
            "cpu": self._core.CounterMetricFamily(
                "sockservice_worker_cpu_seconds", "Processor time.", labels=["worker"]
            ),
        }
        for each in self._overview.state()["workers"]:
            if each["retiring"]:
                continue
            for name, family in of.items():
                value = each["ready"] if name == "up" else each[name]
                if value is not None:
                    family.add_metric([str(each["worker"])], value)
        yield from of.values()


def _reasons(of: Counters, field: str, known: Iterable[str]) -> list[tuple[str, int]]:
    """Return how much of a counter each reason has, and the rest."""
    told = of.reasons.get(field, {})
    found = [(why, told.get(why, 0)) for why in dict.fromkeys([*known, *told])]
    return [*found, ("other", getattr(of, field) - sum(told.values()))]


def _buckets(
    values: Distribution, bounds: tuple[int, int], unit: float = 1
) -> list[tuple[str, float]]:
    """Return bounds and how many were at most that, as Prometheus wants them."""
    found = [(repr(bound * unit), float(count)) for bound, count in values.buckets(*bounds)]
    return [*found, ("+Inf", float(values.count))]
