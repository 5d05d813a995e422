"""Compare the service here with another commit of it: which differences exceed the noise."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.contestants import Contestant
from benchmarks.failure import Failure
from benchmarks.report import aligned, number
from benchmarks.rounds import Series, plan
from benchmarks.server import ROOT
from benchmarks.spread import CERTAINTY, WORTH, Gain, gain
from benchmarks.summary import limited_by_load
from benchmarks.works import Work

#: Those that run this package, and are not another of them with something besides.
OURS = ("sockservice", "subclass", "tls", "store", "sessions", "workers", "send", "ship")
#: What of a commit is run; the loads, the peers and the contestants' commands are those here.
PACKAGE = ("sockservice", "twisted")
LEGEND = f"""\
now, then: medians of the rounds; x: how many times as good it is now, the median over the rounds
of the ratio within a round, and the range that holds the true one with {CERTAINTY:.0%} certainty;
x by cpu: the same of the processor time for one answer; better, worse: that range is on one side
of 1, and the median at least {WORTH:.0%} off; ~: the load set the pace, only `by cpu` counts."""


def export(revision: str, folder: Path) -> Path:
    """Write the package of a commit into `folder`."""
    tree = folder / "then"
    tree.mkdir()
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "--end-of-options", revision, *PACKAGE],
        capture_output=True,
    )
    if archive.returncode:
        said = archive.stderr.decode(errors="replace").strip().splitlines()
        raise Failure(f"{revision}: {said[0] if said else 'git has nothing to say'}")
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
    return tree


def both(
    works: Sequence[Work],
    contestants: Sequence[Contestant],
    revision: str,
    tree: Path,
    *,
    judged: bool,
) -> list[Series]:
    """Plan them as they are now, each followed by itself as it was then."""
    series = plan(works, [one for one in contestants if one.name in OURS], judged=judged)
    if not series:
        raise Failure(f"none of these contestants is compared; these are: {', '.join(OURS)}")
    pairs = []
    for now in series:
        name = now.contestant.name
        then = replace(now.contestant, name=f"{name}@{revision}", baseline=name, tree=tree)
        pairs += [now, Series(now.work, then, failure=now.failure)]
    return pairs


@dataclass(frozen=True)
class Comparison:
    """What has become of one contestant in one work."""

    now: Series
    then: Series
    is_limited: bool
    figure: Gain | None
    cpu: Gain | None

    @property
    def verdicts(self) -> list[str]:
        """`better` or `worse`, for each of the two that is."""
        found = [("", None if self.is_limited else self.figure), (" by cpu", self.cpu)]
        return [f"{one.verdict}{what}" for what, one in found if one and one.verdict]

    @property
    def is_worse(self) -> bool:
        """Whether any of the two is worse than it was, beyond the noise."""
        return any(verdict.startswith("worse") for verdict in self.verdicts)


def compared(series: Sequence[Series]) -> list[Comparison]:
    """Compare each of those that `both` has planned with the one behind it."""
    return [
        comparison(now, then)
        for now, then in zip(series[::2], series[1::2], strict=True)
        if not now.is_beyond
    ]


def comparison(now: Series, then: Series) -> Comparison:
    ours = [] if now.failure else now.measurements
    theirs = [] if then.failure else then.measurements
    work = now.work
    limited = limited_by_load(work, ours) or limited_by_load(work, theirs)
    figure = gain([m.figure for m in ours], [m.figure for m in theirs], less=work.less)
    cpu = None
    # A server that does nothing but stand there has next to no processor time.
    if work.kind not in ("idle", "burst"):
        each = [m.cpu_each or 0.0 for m in ours], [m.cpu_each or 0.0 for m in theirs]
        cpu = gain(*each, less=True) if all(map(all, each)) else None
    return Comparison(now, then, limited, figure, cpu)


def comparisons_table(comparisons: Sequence[Comparison], revision: str) -> str:
    titles = ["work", "contestant", "", "now", "then", "x", "x by cpu", "beyond the noise"]
    rows = [cells(one) for one in comparisons]
    told = sum(bool(one.verdicts) for one in comparisons)
    end = f"{told} of {len(comparisons)} differ from {revision} beyond the noise"
    return "\n".join([*aligned([titles, *rows]), "", LEGEND, "", end])


def cells(one: Comparison) -> list[str]:
    row = [one.now.work.name, one.now.contestant.name, one.now.work.unit]
    for series in (one.now, one.then):
        figures = sorted(measurement.figure for measurement in series.measurements)
        row.append("FAILED" if series.failure else number(figures[len(figures) // 2]))
    row.append(("~" if one.is_limited else "") + gain_cell(one.figure))
    return [*row, gain_cell(one.cpu), ", ".join(one.verdicts)]


def gain_cell(found: Gain | None) -> str:
    if found is None:
        return "-"
    return f"{found.middle:.3f} ({found.low:.3f}-{found.high:.3f})"
