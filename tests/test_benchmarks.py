"""The benchmarks run, compare and draw. What they measure is no matter here."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.contestants import CONTESTANTS
from benchmarks.loader import Measurement
from benchmarks.pictures import Bar, apart, bars, lines, ticks
from benchmarks.publish import TABLES, renewed
from benchmarks.rounds import Series
from benchmarks.summary import summarise, verdicts
from benchmarks.works import CURVES, TARGETS, WORKS

ROOT = Path(__file__).parent.parent
# Long enough for a reply to come even where others have both cores.
SECONDS = 0.3
SMOKE = ("pingpong-50", "udp-32-at-25000", "idle-1000")


def benchmarks(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def series(work: str, who: str, *measurements: Measurement) -> Series:
    return Series(WORKS[work], CONTESTANTS[who], list(measurements))


#: A second in which a thousand lines were answered, in half of the processor's time.
PLAIN = Measurement(1000, 1000, 0, 1.0, 0.5, 0.5, 0.0, 0.0, p50=10.0, p99=20.0, p999=30.0)


def verdict(work: str, who: str, baseline: str, *everyone: Series) -> tuple[float | None, bool]:
    (found,) = (
        v
        for v in verdicts(work, everyone)
        if v.target.contestant == who and v.baseline == baseline and v.target.figure == "figure"
    )
    return found.reached, found.is_met


@pytest.mark.skipif(
    shutil.which("cc") is None or len(os.sched_getaffinity(0)) < 2,
    reason="needs a C compiler and two cores",
)
def test_smoke(tmp_path: Path) -> None:
    """One short round goes from the servers through JSON to the pages."""
    outcome, docs = tmp_path / "outcome.json", tmp_path / "docs"
    docs.mkdir()
    page = docs / "page.md"
    page.write_text("# Before\n<!-- measured: figures -->\nold\n<!-- end -->\nAfter\n")
    only = ["--only", "sockservice,stock", "--work", ",".join(SMOKE)]
    how = ["--rounds", "1", "--seconds", str(SECONDS)]
    files = ["--json", str(outcome), "--publish", str(docs)]
    run = benchmarks(*only, *how, *files)
    assert run.returncode == 0, run.stderr
    works = json.loads(outcome.read_text())["works"]
    assert set(works) == set(SMOKE)
    for work in works.values():
        assert set(work["medians"]) == {"sockservice", "stock"}
    assert all(m["figure"] > 0 for m in works["idle-1000"]["medians"].values())
    text = page.read_text()
    assert re.search(r"\| `pingpong-50` \| [\d,.]+ \|", text) and "old" not in text
    assert text.startswith("# Before\n") and text.endswith("<!-- end -->\nAfter\n")
    ElementTree.parse(docs / "pictures" / "ratios.svg")
    before = page.read_text()
    again = benchmarks("--read", str(outcome), "--publish", str(docs))
    assert (again.returncode, page.read_text()) == (0, before)


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--work", "nonsense"], 1, "error: no work 'nonsense'; --list names them"),
        (["--read", "/nonexistent", "--publish", "docs"], 1, "error: /nonexistent: No such file"),
        (["--rounds", "0"], 2, "a number from 1 to 100 is expected: 0"),
    ],
)
def test_errors_are_one_line(arguments: list[str], status: int, text: str) -> None:
    run = benchmarks(*arguments)
    assert run.returncode == status
    assert text in run.stderr and "Traceback" not in run.stderr


def test_targets_and_curves_name_works_there_are() -> None:
    for target in TARGETS:
        assert target.contestant in CONTESTANTS
        assert target.baseline is None or target.baseline in CONTESTANTS
        assert {target.work, *target.best_of} <= set(WORKS)
    assert {work.curve for work in WORKS.values()} - {""} == set(CURVES)


def test_ratio_is_formed_within_a_round() -> None:
    slow, fast = replace(PLAIN, answered=500), replace(PLAIN, answered=4000)
    stock = series("pipelined-32", "stock", slow, PLAIN, PLAIN)
    ours = series("pipelined-32", "sockservice", fast, PLAIN, fast)
    found = summarise(ours, [stock, ours])
    assert found is not None and found.ratio is not None
    assert (found.ratio.lowest, found.ratio.middle, found.ratio.highest) == (1, 4, 8)


def test_processor_time_is_the_least_of_the_rounds() -> None:
    stock = series("pipelined-32", "stock", PLAIN, replace(PLAIN, server_cpu=0.4))
    ours = series("pipelined-32", "sockservice", PLAIN, replace(PLAIN, server_cpu=0.1))
    found = summarise(ours, [stock, ours])
    assert found is not None
    assert (found.cpu_each, found.cpu_ratio) == pytest.approx((100, 4))


def test_more_is_better() -> None:
    stock = series("pipelined-32", "stock", PLAIN)
    ours = series("pipelined-32", "sockservice", replace(PLAIN, answered=10_000))
    less = series("pipelined-32", "sockservice", replace(PLAIN, answered=9_999))
    assert verdict("pipelined-32", "sockservice", "stock", stock, ours) == (10, True)
    assert verdict("pipelined-32", "sockservice", "stock", stock, less) == (9.999, False)


def test_less_is_better() -> None:
    theirs = series("idle-10000", "stock", replace(PLAIN, value=1000))
    ours = series("idle-10000", "sockservice", replace(PLAIN, value=1300))
    more = series("idle-10000", "sockservice", replace(PLAIN, value=1301))
    assert verdict("idle-10000", "sockservice", "stock", theirs, ours) == (1.3, True)
    assert verdict("idle-10000", "sockservice", "stock", theirs, more) == (1.301, False)


def test_a_target_can_have_something_to_spare() -> None:
    c = series("burst-1000", "c", replace(PLAIN, value=100))
    ours = series("burst-1000", "sockservice", replace(PLAIN, value=350))
    late = series("burst-1000", "sockservice", replace(PLAIN, value=351))
    assert verdict("burst-1000", "sockservice", "c", c, ours) == (3.5, True)
    assert verdict("burst-1000", "sockservice", "c", c, late) == (3.51, False)


def test_a_target_without_its_baseline_is_not_met() -> None:
    ours = series("pipelined-32", "sockservice", PLAIN)
    assert verdict("pipelined-32", "sockservice", "stock", ours) == (None, False)


def test_what_a_contestant_cannot_do_is_told() -> None:
    told = WORKS["pingpong-10000"].beyond(CONTESTANTS["socketserver"])
    assert told == "can't, at most 1,000 connections: a thread for each"
    assert WORKS["pingpong-50"].beyond(CONTESTANTS["socketserver"]) is None


def test_a_table_without_figures_leaves_the_page_alone() -> None:
    page = "<!-- measured: durable -->\nkept\n<!-- end -->\n"
    assert renewed(page, {"durable": ""}) == page


def test_pages_name_tables_there_are() -> None:
    pages = "".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))
    assert set(re.findall(r"<!-- measured: ([\w-]+) -->", pages)) == set(TABLES)


def test_pictures_that_pages_show_are_there() -> None:
    for page in sorted((ROOT / "docs").glob("*.md")):
        for name in re.findall(r"\(pictures/([\w-]+\.svg)\)", page.read_text()):
            ElementTree.parse(ROOT / "docs" / "pictures" / name)


def test_text_in_pictures_is_escaped() -> None:
    drawn = bars("<a & b>", {"<x>": [Bar("<y>", 1.0, "1 < 2")]}, mark=0.5)
    texts = [element.text for element in ElementTree.fromstring(drawn).iter()]
    assert {"<a & b>", "<x>", "<y>", "1 < 2"} <= set(texts)
    curve = lines("<t>", "x", "y", {"<a>": [(1, 10), (10, 100)], "b": [(1, 10), (5, 20)]})
    assert "<a>" in [element.text for element in ElementTree.fromstring(curve).iter()]


def test_names_stand_apart_in_their_order() -> None:
    places = apart({"a": 100.0, "b": 101.0, "c": 99.0, "d": 300.0}, 14)
    assert sorted(places, key=lambda name: places[name]) == ["c", "a", "b", "d"]
    values = sorted(places.values())
    assert all(b - a >= 14 for a, b in pairwise(values))


def test_ticks_hold_all_values() -> None:
    assert ticks(30, 140) == [20, 50, 100, 200]
    assert ticks(30, 14_000) == [10, 100, 1000, 10_000, 100_000]
    assert ticks(10, 10) == [10, 20]
