"""Medians of the measurements, and ratios against the baseline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.loader import Measurement
from benchmarks.rounds import Series
from benchmarks.works import TARGETS, Target

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
    contestant: str
    baseline: str
    rate: float
    cpu_each: float
    p50: float | None
    p99: float | None
    p999: float | None
    lost: int
    server_busy: float
    loader_busy: float
    waited: float
    rate_ratio: Ratio | None
    cpu_ratio: Ratio | None

    @property
    def is_lower_bound(self) -> bool:
        """Whether the load, not the server, set the pace."""
        return self.loader_busy > SATURATED > self.server_busy


@dataclass(frozen=True)
class Verdict:
    """What became of a target; `reached` is None where it or its baseline failed or is absent."""

    target: Target
    baseline: str
    reached: float | None

    @property
    def is_met(self) -> bool:
        return self.reached is not None and self.reached >= self.target.ratio


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
    return Summary(
        contestant=series.contestant.name,
        baseline=series.contestant.baseline,
        rate=middle(lambda m: m.rate),
        cpu_each=middle(lambda m: m.cpu_each),
        p50=latency("p50"),
        p99=latency("p99"),
        p999=latency("p999"),
        lost=sum(m.lost for m in measurements),
        server_busy=middle(lambda m: m.server_cpu / m.seconds),
        loader_busy=middle(lambda m: m.loader_cpu / m.seconds),
        waited=middle(lambda m: m.waited),
        rate_ratio=ratio(measurements, baseline, lambda m: m.rate),
        cpu_ratio=ratio(measurements, baseline, lambda m: m.cpu_each),
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


def verdicts(work: str, everyone: Sequence[Series]) -> list[Verdict]:
    """Hold the contestants that took part to the targets of one work."""
    return [
        Verdict(target, target.baseline or one.contestant.baseline, reached(target, one, everyone))
        for target in TARGETS
        for one in everyone
        if target.work == work == one.work.name and target.contestant == one.contestant.name
    ]


def reached(target: Target, series: Series, everyone: Sequence[Series]) -> float | None:
    if series.failure is not None:
        return None
    baseline = target.baseline or series.contestant.baseline
    compared = (
        ratio(series.measurements, measured(work, baseline, everyone), lambda m: m.rate)
        for work in target.best_of or (series.work.name,)
    )
    # The least ratio is that to the best.
    return min((found.middle for found in compared if found), default=None)
