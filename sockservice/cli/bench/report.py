"""Format the results of `sockservice bench`: JSON, table, histogram."""

import math
from typing import Any

from sockservice.cli.bench.settings import Settings
from sockservice.cli.columns import folded, labelled
from sockservice.cli.text import printable
from sockservice.measure.histogram import Histogram
from sockservice.measure.schedule import SECOND
from sockservice.measure.tally import FAULTS, Tally
from sockservice.wire.plurals import counted

#: Quantiles of the latency that are printed.
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
BARS = 16
WIDTH = 40


def summary(settings: Settings, tally: Tally, elapsed: float) -> dict[str, Any]:
    """Return all results as a JSON object, in seconds and bytes."""
    found: dict[str, Any] = {
        "target": settings.target,
        "connections": settings.connections,
        "pipeline": settings.pipeline,
        "size": settings.size,
        "rate": settings.rate,
        "seconds": round(elapsed, 3),
        "answered": tally.answered,
        "perSecond": round(tally.inTime / elapsed, 3) if elapsed else 0.0,
    }
    found |= {name: getattr(tally, name) for name in FAULTS}
    found["reason"] = tally.reason or None
    found["latency"] = None
    if tally.latencies.total:
        found["latency"] = {
            name: value / SECOND for name, value in _figures(tally.latencies).items()
        }
    return found


def _figures(latencies: Histogram) -> dict[str, float]:
    """Return quantiles and moments, in nanoseconds."""
    return {
        "min": latencies.least,
        "mean": latencies.mean,
        "deviation": latencies.deviation,
        **{name: latencies.quantile(part) for name, part in QUANTILES.items()},
    }


def faulty(tally: Tally) -> str:
    """Return in words what went wrong, or ""."""
    if not tally.answered:
        return tally.reason or "nothing was answered"
    said = ", ".join(f"{number:,} {name}" for name, number in tally.faults.items())
    return f"{said}: {tally.reason}" if said and tally.reason else said


def table(settings: Settings, tally: Tally, elapsed: float, columns: int, drawn: bool) -> list[str]:
    """Return the results as lines of at most `columns` columns, `drawn` with a histogram."""
    perSecond = tally.inTime / elapsed if elapsed else 0.0
    asked = "" if settings.rate is None else f" of {settings.rate:,.6g} asked for"
    connections = counted(settings.connections, "connection")
    size = counted(settings.size, "byte")
    head = f"bench {settings.target}: {connections}, {settings.pipeline} in flight on each, {size}"
    answered = (
        f"{tally.answered:,} in {elapsed:.1f} s: {perSecond:,.0f} a second{asked}, "
        f"{perSecond * settings.size / 1e6:,.1f} MB/s"
    )
    faults = ", ".join(f"{name} {n:,}" for name, n in tally.faults.items()) or "none"
    lines = folded(printable(head.encode()).decode(), columns)
    lines += labelled("answered  ", [answered], columns)
    lines += labelled("faults    ", [faults], columns)
    if tally.reason:
        lines += labelled("reason    ", [printable(tally.reason.encode()).decode()], columns)
    if tally.latencies.total:
        said = [f"{name} {_ms(value)}" for name, value in _figures(tally.latencies).items()]
        rows = [", ".join(said[at : at + 3]) for at in (0, 3, 6)]
        lines += labelled("latency   ", rows, columns)
        if drawn:
            lines += histogram(tally, columns)
    return lines


def histogram(tally: Tally, columns: int) -> list[str]:
    """Return the histogram of the latencies: the upper bound of each bar, its share, the bar.

    It is as wide as `columns` allow; what there is no room for is left out.
    """
    bars = list(tally.latencies.bars(BARS))
    most = max(count for _, count in bars)
    total = tally.latencies.total
    before = [f"{_ms(value):>13} {count / total:7.2%} " for value, count in bars]
    # The last column is left free: some terminals wrap there.
    width = columns - 1 - max(map(len, before))
    if width < 5:
        before = [f"{_ms(value):>12} " for value, _ in bars]
        width = columns - 1 - max(map(len, before))
    width = min(WIDTH, max(0, width))
    return [
        f"{start}{'#' * math.ceil(count * width / most)}"[: max(1, columns - 1)].rstrip()
        for start, (_, count) in zip(before, bars, strict=True)
    ]


def _ms(value: float) -> str:
    return f"{value / 1e6:,.3f} ms"
