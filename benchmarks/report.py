"""The outcome as a plain table for people and as JSON for programs."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

from benchmarks.rounds import Series
from benchmarks.spread import Spread
from benchmarks.summary import Summary, Verdict, summarise, unit, verdicts
from benchmarks.works import Work

PACKAGES = ("Twisted", "uvloop")
LEGEND = """\
x: times the baseline, the median over the rounds (the middle half of them); cpu: the server's
processor time for one answer, the least of the rounds; x by cpu: how many times as much is done
in the same processor time; latency in microseconds, seen by the client; busy: share of its core
that server and loader used; waited: share of the time in which one of them was ready but its
core was taken; >=: the load set the pace, a lower bound; <=: that of the baseline; ~: of both."""


# Half of the rounds say so, half of them the opposite.
UNCLEAR = ", within the spread"


def works_of(series: Sequence[Series]) -> list[Work]:
    return list({one.work.name: one.work for one in series}.values())


def table(series: Sequence[Series]) -> str:
    parts = [work_table(work, series) for work in works_of(series)]
    return "\n\n".join([*parts, LEGEND])


def work_table(work: Work, series: Sequence[Series]) -> str:
    mine = [one for one in series if one.work is work]
    summaries = [summarise(one, series) for one in mine]
    titles = ["", work.unit, "cpu us each", "x baseline", "x by cpu"]
    titles += ["p50", "p99", "p99.9", "server busy", "loader busy", "waited", "lost"]
    rows = [titles]
    for one, summary in zip(mine, summaries, strict=True):
        if summary:
            rows.append(cells(summary))
        elif not one.is_beyond:
            rows.append([one.contestant.name, "FAILED"])
    lines = [f"{work.name}: {work.description}", *aligned(rows)]
    lines += [f"{one.contestant.name}: {one.failure}" for one in mine if one.is_beyond]
    return "\n".join(lines + [verdict_line(v) for v in verdicts(work.name, series)])


def cells(summary: Summary) -> list[str]:
    return [
        summary.contestant,
        (">=" if summary.is_lower_bound else "") + number(summary.figure),
        number(summary.cpu_each),
        ratio_cell(summary.ratio, summary.bound),
        ratio_cell(summary.cpu_ratio),
        *(f"{p:,.0f}" if p is not None else "-" for p in (summary.p50, summary.p99, summary.p999)),
        "-" if summary.server_busy is None else f"{summary.server_busy:.0%}",
        f"{summary.loader_busy:.0%}",
        f"{summary.waited:.1%}",
        f"{summary.lost:.1%}" if summary.lost else "-",
    ]


def number(value: float | None) -> str:
    """Three digits at least, and all of a whole number."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio_cell(ratio: Spread | None, bound: str = "") -> str:
    if ratio is None:
        return "-"
    return f"{bound}{number(ratio.middle)} ({number(ratio.lower)}-{number(ratio.upper)})"


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
    line = f"target: {asked(verdict)}"
    if verdict.reached is None:
        return f"{line}; not measured"
    line += f"; reached {ratio_cell(verdict.reached, verdict.bound)}"
    if verdict.by_cpu is not None:
        line += f", by cpu {ratio_cell(verdict.by_cpu)}"
    return f"{line}: {'met' if verdict.is_met else 'MISSED'}{'' if verdict.is_clear else UNCLEAR}"


def asked(verdict: Verdict) -> str:
    """What a target asks for, as `sockservice >= 10 x stock`."""
    target = verdict.target
    text = f"{target.contestant} {'<=' if target.at_most else '>='} {target.ratio:g} x "
    text += verdict.baseline + (" at its best" if target.best_of else "")
    if target.spare:
        text += f" + {target.spare:g} {unit(target)}"
    return text if target.figure == "figure" else f"{text} in {target.figure}"


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
            "failures": {
                one.contestant.name: one.failure
                for one in mine
                if one.failure and not one.is_beyond
            },
            "beyond": {one.contestant.name: one.failure for one in mine if one.is_beyond},
            "targets": [
                {
                    "target": asked(v),
                    "reached": v.reached and asdict(v.reached),
                    "by_cpu": v.by_cpu and asdict(v.by_cpu),
                    "met": v.is_met,
                    "clear": v.is_clear,
                    "bound": v.bound,
                }
                for v in verdicts(work.name, series)
            ],
        }
    document = {
        "rounds": rounds,
        "seconds": seconds,
        "cores": os.cpu_count(),
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
