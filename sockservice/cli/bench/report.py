"""Format the results of `sockservice bench`: JSON, table, histogram."""

import math
from typing import Any

from sockservice.cli.bench.settings import Settings
from sockservice.cli.text import printable
from sockservice.measure.schedule import SECOND
from sockservice.measure.tally import FAULTS, Tally

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
    found["reason"] = tally.reason
    found["latency"] = None
    if tally.latencies.total:
        found["latency"] = {
            name: tally.latencies.quantile(part) / SECOND for name, part in QUANTILES.items()
        }
    return found


def table(settings: Settings, tally: Tally, elapsed: float, bars: bool) -> list[str]:
    """Return the results as lines for a person to read, with a histogram if `bars` is true."""
    perSecond = tally.inTime / elapsed if elapsed else 0.0
    faults = ((name, getattr(tally, name)) for name in FAULTS)
    lines = [
        f"bench {settings.target}: {settings.connections} connections, {settings.pipeline} in "
        f"flight on each, {settings.size} bytes",
        f"answered  {tally.answered:,} in {elapsed:.1f} s: {perSecond:,.0f} a second, "
        f"{perSecond * settings.size / 1e6:,.1f} MB/s",
        "faults    " + (", ".join(f"{name} {n:,}" for name, n in faults if n) or "none"),
    ]
    if tally.reason:
        lines.append(f"reason    {printable(tally.reason.encode()).decode()}")
    if tally.latencies.total:
        found = {name: tally.latencies.quantile(part) for name, part in QUANTILES.items()}
        lines.append(
            "latency   " + ", ".join(f"{name} {_ms(value)}" for name, value in found.items())
        )
        if bars:
            lines += histogram(tally)
    return lines


def histogram(tally: Tally) -> list[str]:
    """Return the histogram of the latencies: the upper bound of each bar, its share, the bar."""
    bars = list(tally.latencies.bars(BARS))
    most = max(count for _, count in bars)
    total = tally.latencies.total
    return [
        f"{_ms(value):>13} {count / total:7.2%} {'#' * math.ceil(count * WIDTH / most)}"
        for value, count in bars
    ]


def _ms(value: int) -> str:
    return f"{value / 1e6:,.3f} ms"
