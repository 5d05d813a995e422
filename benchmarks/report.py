"""The outcome as a plain table for people and as JSON for programs."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

from benchmarks.rounds import Series
from benchmarks.summary import Ratio, Summary, Verdict, summarise, verdicts
from benchmarks.works import Work

PACKAGES = ("Twisted", "uvloop")
LEGEND = """\
x: times the baseline, the median over the rounds (lowest-highest); x cpu: the same for the
processor time of one answer, less is better; latency in microseconds, seen by the client;
busy: share of its core that server and loader used; waited: share of the time in which one
of them was ready but its core was taken; >=: the load set the pace, a lower bound."""


def works_of(series: Sequence[Series]) -> list[Work]:
    return list({one.work.name: one.work for one in series}.values())


def table(series: Sequence[Series]) -> str:
    parts = [work_table(work, series) for work in works_of(series)]
    return "\n\n".join([*parts, LEGEND])


def work_table(work: Work, series: Sequence[Series]) -> str:
    mine = [one for one in series if one.work is work]
    summaries = [summarise(one, series) for one in mine]
    titles = ["", f"{work.unit}/s", "cpu us each", "x baseline", "x cpu"]
    titles += ["p50", "p99", "p99.9", "server busy", "loader busy", "waited", "lost"]
    rows = [titles]
    for one, summary in zip(mine, summaries, strict=True):
        rows.append(cells(summary) if summary else [one.contestant.name, "FAILED"])
    lines = [f"{work.name}: {work.description}", *aligned(rows)]
    return "\n".join(lines + [verdict_line(v) for v in verdicts(work.name, series)])


def cells(summary: Summary) -> list[str]:
    return [
        summary.contestant,
        (">=" if summary.is_lower_bound else "") + f"{summary.rate:,.0f}",
        f"{summary.cpu_each:.3g}",
        ratio_cell(summary.rate_ratio),
        f"{summary.cpu_ratio.middle:.2f}" if summary.cpu_ratio else "-",
        *(f"{p:,.0f}" if p is not None else "-" for p in (summary.p50, summary.p99, summary.p999)),
        f"{summary.server_busy:.0%}",
        f"{summary.loader_busy:.0%}",
        f"{summary.waited:.1%}",
        f"{summary.lost:,}",
    ]


def ratio_cell(ratio: Ratio | None) -> str:
    if ratio is None:
        return "-"
    return f"{ratio.middle:.2f} ({ratio.lowest:.2f}-{ratio.highest:.2f})"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Names to the left, figures to the right; columns with nothing to say are left out."""
    full = [[*row, *[""] * (len(rows[0]) - len(row))] for row in rows]
    columns = [c for c in zip(*full, strict=True) if not set(c[1:]) <= {"-", "", "0"}]
    widths = [max(map(len, column)) for column in columns]
    return [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in zip(*columns, strict=True)
    ]


def verdict_line(verdict: Verdict) -> str:
    target = f"target: {verdict.target.contestant} {verdict.target.ratio}x {verdict.baseline}"
    if verdict.target.best_of:
        target += " at its best"
    if verdict.reached is None:
        return f"{target}; not measured"
    return f"{target}; reached {verdict.reached:.2f}x: {'met' if verdict.is_met else 'MISSED'}"


def as_json(series: Sequence[Series], rounds: int, seconds: float) -> str:
    works = {}
    for work in works_of(series):
        mine = [one for one in series if one.work is work]
        summaries = [summary for one in mine if (summary := summarise(one, series))]
        works[work.name] = {
            "work": asdict(work),
            "medians": {s.contestant: asdict(s) for s in summaries},
            "rounds": {
                one.contestant.name: [asdict(measurement) for measurement in one.measurements]
                for one in mine
            },
            "failures": {one.contestant.name: one.failure for one in mine if one.failure},
            "targets": [
                {**asdict(v.target), "baseline": v.baseline, "reached": v.reached, "met": v.is_met}
                for v in verdicts(work.name, series)
            ],
        }
    document = {
        "rounds": rounds,
        "seconds": seconds,
        "versions": versions(),
        "works": works,
    }
    return json.dumps(document, indent=2) + "\n"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "kernel": platform.release()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
