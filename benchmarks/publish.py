"""Puts an outcome into the documentation: pictures, and tables between marks in its pages."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.failure import Failure
from benchmarks.pictures import COLOURS, Bar, Points, bars, lines
from benchmarks.report import UNCLEAR, number
from benchmarks.works import CURVES, WORKS

#: What stands between these two is replaced.
MARKED = re.compile(r"(<!-- measured: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
PICTURES = "pictures"
IN_BARS = ("pipelined-32", "pingpong-50", "pingpong-1000", "udp-32", "udp-60000", "connect")
IN_RATIOS = (
    "sockservice",
    "subclass",
    "tls",
    "asyncio-streams",
    "asyncio-protocol",
    "uvloop-protocol",
    "socketserver",
    "socat",
    "ncat",
    "c",
)
IN_VALUES = ("sockservice", "stock", "asyncio-streams", "asyncio-protocol", "uvloop-protocol", "c")
BOUNDS = {"": "", ">=": "\u2265 ", "<=": "\u2264 ", "~": "~ "}
IN_DURABLE = ("sockservice", "store", "pruned", "fdatasync", "relp")

Outcome = Mapping[str, Any]


def publish(text: str, docs: Path, curve: bool = False) -> None:
    """Write the pictures of an outcome (JSON), and renew the tables in the pages of `docs`.

    Those of a curve are pictures alone.
    """
    try:
        outcome = json.loads(text)
        drawn = pictures(outcome)
        tables = {} if curve else {name: make(outcome) for name, make in TABLES.items()}
    except (ValueError, LookupError, TypeError) as problem:
        raise Failure(f"that is no outcome of a run: {problem!r}") from None
    folder = docs / PICTURES
    try:
        folder.mkdir(exist_ok=True)
        for name, picture in drawn.items():
            (folder / f"{name}.svg").write_text(picture)
        for page in sorted(docs.glob("*.md")):
            before = page.read_text()
            after = renewed(before, tables)
            if after != before:
                page.write_text(after)
    except OSError as problem:
        raise Failure(f"{problem.filename}: {problem.strerror}") from None


def renewed(page: str, tables: Mapping[str, str]) -> str:
    """Return the page with the tables that the run had figures for in their places."""

    def fill(found: re.Match[str]) -> str:
        table = tables.get(found[2])
        return f"{found[1]}\n{table}\n{found[3]}" if table else found[0]

    return MARKED.sub(fill, page)


def pictures(outcome: Outcome) -> dict[str, str]:
    drawn = {}
    if panels := ratio_panels(outcome):
        title = "Throughput as a multiple of stock Twisted's"
        drawn["ratios"] = bars(title, panels, mark=1.0)
    for name, curve in CURVES.items():
        series, unit = grown(outcome, name)
        if series:
            drawn[f"growth-{name}"] = lines(curve.title, curve.grows, unit, series)
    return drawn


def ratio_panels(outcome: Outcome) -> dict[str, list[Bar]]:
    panels = {}
    for work in IN_BARS:
        found = medians(outcome, work)
        if "stock" not in found:
            continue
        base = found["stock"]["figure"]
        # The subclass's answers are longer than `ok`: it is compared in the table.
        panels[work] = [
            Bar(name, m["figure"] / base, f"{number(m['figure'] / base)} x", name == "sockservice")
            for name, m in sorted(found.items(), key=lambda item: -item[1]["figure"])
            if name in COLOURS and name != "subclass"
        ]
    return panels


def grown(outcome: Outcome, curve: str) -> tuple[dict[str, Points], str]:
    """Return the series of one curve, those with two points at least, and the unit."""
    works = [
        work for work in WORKS.values() if work.curve == curve and work.name in outcome["works"]
    ]
    series: dict[str, list[tuple[float, float]]] = {}
    for work in sorted(works, key=lambda work: work.at):
        for name, m in medians(outcome, work.name).items():
            if name in COLOURS and name != "subclass" and m["figure"] > 0:
                series.setdefault(name, []).append((work.at, m["figure"]))
    unit = works[0].unit if works else ""
    return {name: points for name, points in series.items() if len(points) > 1}, unit


def medians(outcome: Outcome, work: str) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = outcome["works"].get(work, {}).get("medians", {})
    return found


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    full = [list(row) for row in rows]
    # A column in which nobody has said anything is left out.
    kept = [at for at in range(len(heads)) if at == 0 or any(row[at] != "\u2013" for row in full)]
    if not full:
        return ""
    made = [[heads[at] for at in kept], ["---", *["---:"] * (len(kept) - 1)]]
    made += [[row[at] for at in kept] for row in full]
    return "".join(f"| {' | '.join(row)} |\n" for row in made)


def cell(value: float | None) -> str:
    return "\u2013" if value is None else number(value)


def run(outcome: Outcome) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in outcome["versions"].items())
    return (
        f"{outcome['rounds']} rounds, {outcome['seconds']:g} s for each measurement, "
        f"{outcome['cores']} cores, {versions}.\n"
    )


def targets(outcome: Outcome) -> str:
    rows = [
        [
            f"`{name}`",
            target["target"],
            spread_cell(target["reached"], target["bound"]),
            spread_cell(target["by_cpu"]),
            ("met" if target["met"] else "**missed**") + ("" if target["clear"] else UNCLEAR),
        ]
        for name, work in outcome["works"].items()
        for target in work["targets"]
        if target["reached"] is not None
    ]
    return markdown(["work", "target", "reached", "by cpu", ""], rows)


def ratios(outcome: Outcome) -> str:
    """Give throughput as a multiple of the baseline's, and the same by processor time."""
    rows = []
    for name in outcome["works"]:
        work = WORKS[name]
        if work.less or work.rate or work.side not in ("stream", "datagram"):
            continue
        found = medians(outcome, name)
        rows.append([f"`{name}`", *(ratio_cell(found.get(who)) for who in IN_RATIOS)])
    return markdown(["work", *(f"`{who}`" for who in IN_RATIOS)], rows)


def ratio_cell(m: Mapping[str, Any] | None) -> str:
    if m is None or m["ratio"] is None:
        return "\u2013"
    text = spread_cell(m["ratio"], m["bound"])
    return text + (f", {number(m['cpu_ratio']['middle'])} by cpu" if m["cpu_ratio"] else "")


def spread_cell(ratio: Mapping[str, float] | None, bound: str = "") -> str:
    if ratio is None:
        return "\u2013"
    middle, lower, upper = (number(ratio[name]) for name in ("middle", "lower", "upper"))
    return f"{BOUNDS[bound]}{middle} ({lower}\u2013{upper})"


def figures(outcome: Outcome) -> str:
    """Give the service's own figures."""
    rows = []
    for name in outcome["works"]:
        m = medians(outcome, name).get("sockservice")
        if m is None or WORKS[name].less or WORKS[name].rate or WORKS[name].side == "durable":
            continue
        latencies = (cell(m[which]) for which in ("p50", "p99", "p999"))
        rows.append([f"`{name}`", cell(m["figure"]), cell(m["cpu_each"]), *latencies])
    return markdown(["work", "each second", "cpu \u00b5s each", "p50", "p99", "p99.9"], rows)


def values(outcome: Outcome) -> str:
    """Give memory and times."""
    rows = []
    for name in outcome["works"]:
        work = WORKS[name]
        if work.less and work.kind != "startup":
            found = medians(outcome, name)
            rows.append(
                [
                    f"`{name}`, {work.unit}",
                    *(cell(found[who]["figure"] if who in found else None) for who in IN_VALUES),
                ]
            )
    return markdown(["work", *(f"`{who}`" for who in IN_VALUES)], rows)


def startup(outcome: Outcome) -> str:
    found = medians(outcome, "startup")
    rows = [[f"`{who}`", cell(m["figure"]), cell(m["cpu_each"] / 1e3)] for who, m in found.items()]
    return markdown(["", "ms", "of processor time"], rows)


def loss(outcome: Outcome) -> str:
    """Give what came back of the datagrams at each rate, and what share was lost."""
    rows = []
    for name in outcome["works"]:
        if WORKS[name].rate:
            found = medians(outcome, name)
            rows.append([f"`{name}`", *(loss_cell(found.get(who)) for who in IN_VALUES)])
    return markdown(["work", *(f"`{who}`" for who in IN_VALUES)], rows)


def loss_cell(m: Mapping[str, Any] | None) -> str:
    if m is None:
        return "\u2013"
    return number(m["figure"]) + (f", {m['lost']:.1%} lost" if m["lost"] >= 0.0005 else "")


def durable(outcome: Outcome) -> str:
    rows = []
    for name in outcome["works"]:
        if WORKS[name].side == "durable":
            found = medians(outcome, name)
            rows.append(
                [
                    f"`{name}`",
                    *(cell(found[who]["figure"] if who in found else None) for who in IN_DURABLE),
                ]
            )
    return markdown(["lines/s", *(f"`{who}`" for who in IN_DURABLE)], rows)


TABLES: Mapping[str, Callable[[Outcome], str]] = {
    "run": run,
    "targets": targets,
    "ratios": ratios,
    "figures": figures,
    "values": values,
    "startup": startup,
    "loss": loss,
    "durable": durable,
}
