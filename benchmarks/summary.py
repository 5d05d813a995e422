"""Medians of the measurements, and ratios against the baseline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.loader import Measurement
from benchmarks.rounds import Series
from benchmarks.works import TARGETS, WORKS, Target

# A core that is busier than this sets the pace.
SATURATED = 0.95


@dataclass(frozen=True)
class Ratio:
    """The median over the rounds of one contestant's figure by the baseline's, and the extremes."""

    middle: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Summary:
    """What is told of one series: medians, but of processor time the least, which is what is
    left when nobody else was in the way."""

    contestant: str
    baseline: str
    figure: float
    cpu_each: float | None
    p50: float | None
    p99: float | None
    p999: float | None
    lost: float
    server_busy: float | None
    loader_busy: float
    waited: float
    ratio: Ratio | None
    cpu_ratio: float | None
    is_lower_bound: bool


@dataclass(frozen=True)
class Verdict:
    """What became of a target; `reached` is None where it or its baseline failed or is absent.

    `by_cpu` is the same ratio of lines for each second of the server's processor time.
    """

    target: Target
    baseline: str
    reached: float | None
    by_cpu: float | None
    is_met: bool


def summarise(series: Series, everyone: Sequence[Series]) -> Summary | None:
    """Return the summary of one series, or None when it failed."""
    measurements = series.measurements
    if series.failure is not None or not measurements:
        return None

    def middle(figure: Callable[[Measurement], float]) -> float:
        return median(map(figure, measurements))

    def latency(name: str) -> float | None:
        values = [getattr(m, name) for m in measurements]
        return None if None in values else median(values)

    baseline = measured(series.work.name, series.contestant.baseline, everyone)
    server_busy = None
    if all(m.server_cpu is not None for m in measurements):
        server_busy = middle(lambda m: (m.server_cpu or 0.0) / m.seconds)
    loader_busy = middle(lambda m: m.loader_cpu / m.seconds)
    paced = bool(series.work.rate or series.work.less)
    return Summary(
        contestant=series.contestant.name,
        baseline=series.contestant.baseline,
        figure=middle(lambda m: m.figure),
        cpu_each=least_cpu(measurements),
        p50=latency("p50"),
        p99=latency("p99"),
        p999=latency("p999"),
        lost=middle(lambda m: m.lost_share),
        server_busy=server_busy,
        loader_busy=loader_busy,
        waited=middle(lambda m: m.waited),
        ratio=ratio(measurements, baseline, lambda m: m.figure),
        cpu_ratio=by_cpu(measurements, baseline),
        # The load, not the server, set the pace.
        is_lower_bound=not paced and loader_busy > SATURATED > (server_busy or 1.0),
    )


def measured(work: str, contestant: str, everyone: Sequence[Series]) -> Sequence[Measurement]:
    """Return the measurements to compare with, or none where they failed or did not take part."""
    for other in everyone:
        if other.work.name == work and other.contestant.name == contestant:
            return other.measurements if other.failure is None else []
    return []


def ratio(
    ours: Sequence[Measurement],
    theirs: Sequence[Measurement],
    figure: Callable[[Measurement], float],
) -> Ratio | None:
    # Round by round: what slows the machine down for a while slows both.
    ratios = [figure(a) / figure(b) for a, b in zip(ours, theirs, strict=False)]
    return Ratio(median(ratios), min(ratios), max(ratios)) if ratios else None


def least_cpu(measurements: Sequence[Measurement]) -> float | None:
    return min((m.cpu_each for m in measurements if m.cpu_each), default=None)


def by_cpu(ours: Sequence[Measurement], theirs: Sequence[Measurement]) -> float | None:
    """Return how many times as much we do in the same processor time."""
    mine, other = least_cpu(ours), least_cpu(theirs)
    return None if mine is None or other is None else other / mine


def verdicts(work: str, everyone: Sequence[Series]) -> list[Verdict]:
    """Hold the contestants that took part to the targets of one work."""
    return [
        verdict(target, one, everyone)
        for target in TARGETS
        for one in everyone
        if target.work == work == one.work.name and target.contestant == one.contestant.name
    ]


def verdict(target: Target, series: Series, everyone: Sequence[Series]) -> Verdict:
    baseline = target.baseline or series.contestant.baseline
    works = target.best_of or (target.work,)
    ours = [] if series.failure is not None else series.measurements
    # The least ratio is that to the best.
    candidates = [
        (found.middle, theirs)
        for theirs in (measured(work, baseline, everyone) for work in works)
        if (found := ratio(ours, theirs, lambda m: figure(target, m)))
    ]
    if not candidates:
        return Verdict(target, baseline, None, None, False)
    reached, theirs = min(candidates, key=lambda candidate: candidate[0])
    # Of a time to wait for, or of memory, processor time says nothing.
    cpu = None if target.at_most else by_cpu(ours, theirs)
    if target.at_most:
        spare = target.spare / median(figure(target, m) for m in theirs)
        return Verdict(target, baseline, reached, cpu, reached <= target.ratio + spare)
    return Verdict(target, baseline, reached, cpu, reached >= target.ratio)


def figure(target: Target, measurement: Measurement) -> float:
    value: float | None = getattr(measurement, target.figure)
    assert value is not None, f"{target.work} has no {target.figure}"
    return value


def unit(target: Target) -> str:
    return WORKS[target.work].unit if target.figure == "figure" else "us"
