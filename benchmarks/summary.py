"""Medians of the measurements, and ratios against the baseline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.loader import Measurement
from benchmarks.rounds import Series
from benchmarks.spread import Spread, spread
from benchmarks.works import TARGETS, WORKS, Target, Work

# A core that is wanted for more of the time than this sets the pace.
SATURATED = 0.95


@dataclass(frozen=True)
class Summary:
    """What is told of one series: medians, but of processor time the least, which is what is
    left when nobody else was in the way.

    `bound` is `>=` if the load set the pace of the contestant: the figure and the ratio are then
    lower bounds. It is `<=` if that was so with the baseline, and `~` with both.
    """

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
    ratio: Spread | None
    cpu_ratio: Spread | None
    is_lower_bound: bool
    bound: str


@dataclass(frozen=True)
class Verdict:
    """What became of a target; `reached` is None where it or its baseline failed or is absent.

    `by_cpu` is the same ratio of lines for each second of the server's processor time. It is
    not clear whether a target is met that is within the spread of the ratio.
    """

    target: Target
    baseline: str
    reached: Spread | None
    by_cpu: Spread | None
    is_met: bool
    is_clear: bool = True
    bound: str = ""


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
    limited = limited_by_load(series.work, measurements)
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
        loader_busy=middle(lambda m: m.loader_cpu / m.seconds),
        waited=middle(lambda m: m.waited),
        ratio=ratio(measurements, baseline, lambda m: m.figure),
        cpu_ratio=by_cpu(measurements, baseline),
        is_lower_bound=limited,
        bound=bound(limited, limited_by_load(series.work, baseline)),
    )


def limited_by_load(work: Work, measurements: Sequence[Measurement]) -> bool:
    """Whether the load, not the server, set the pace."""
    if work.rate or work.less or not measurements:
        return False
    server = [m.server_share for m in measurements if m.server_share is not None]
    load = median(m.loader_share for m in measurements)
    return load > SATURATED > (median(server) if server else 0.0)


def bound(ours: bool, theirs: bool) -> str:
    """Say what a ratio is of two figures, of which the load may have limited some."""
    return {(True, False): ">=", (False, True): "<=", (True, True): "~"}.get((ours, theirs), "")


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
) -> Spread | None:
    # Round by round: what slows the machine down for a while slows both.
    return spread([figure(a) / figure(b) for a, b in zip(ours, theirs, strict=False)])


def least_cpu(measurements: Sequence[Measurement]) -> float | None:
    return min((m.cpu_each for m in measurements if m.cpu_each), default=None)


def by_cpu(ours: Sequence[Measurement], theirs: Sequence[Measurement]) -> Spread | None:
    """Return how many times as much we do in the same processor time."""
    pairs = [(a.cpu_each, b.cpu_each) for a, b in zip(ours, theirs, strict=False)]
    return spread([theirs / ours for ours, theirs in pairs if ours and theirs])


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
        (found, theirs, WORKS[work])
        for work, theirs in ((work, measured(work, baseline, everyone)) for work in works)
        if (found := ratio(ours, theirs, lambda m: figure(target, m)))
    ]
    if not candidates:
        return Verdict(target, baseline, None, None, False)
    reached, theirs, work = min(candidates, key=lambda candidate: candidate[0].middle)
    is_clear = not reached.lower < asked_of(target, theirs) < reached.upper
    if target.at_most:
        # Of a time to wait for, or of memory, processor time says nothing, nor who set the pace.
        is_met = reached.middle <= asked_of(target, theirs)
        return Verdict(target, baseline, reached, None, is_met, is_clear)
    is_met = reached.middle >= target.ratio
    limits = bound(limited_by_load(series.work, ours), limited_by_load(work, theirs))
    return Verdict(target, baseline, reached, by_cpu(ours, theirs), is_met, is_clear, limits)


def asked_of(target: Target, theirs: Sequence[Measurement]) -> float:
    """Return the ratio to be reached, with what the target has to spare."""
    if not target.spare:
        return target.ratio
    return target.ratio + target.spare / median(figure(target, m) for m in theirs)


def figure(target: Target, measurement: Measurement) -> float:
    value: float | None = getattr(measurement, target.figure)
    assert value is not None, f"{target.work} has no {target.figure}"
    return value


def unit(target: Target) -> str:
    return WORKS[target.work].unit if target.figure == "figure" else "us"
