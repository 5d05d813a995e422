"""The benchmarks run, compare and draw. What they measure is no matter here."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import astuple, replace
from itertools import pairwise
from math import log
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.against import Comparison, both, comparison, export
from benchmarks.contestants import CONTESTANTS
from benchmarks.cores import Cores
from benchmarks.disk import DATABASE, filled, stored_lines
from benchmarks.loader import Measurement
from benchmarks.pictures import Bar, apart, bars, lines, ticks
from benchmarks.publish import TABLES, renewed
from benchmarks.rounds import Series
from benchmarks.sending import send
from benchmarks.server import environment
from benchmarks.spread import LEAST_ROUNDS, Spread, gain, interval, spread
from benchmarks.summary import Verdict, summarise, verdicts
from benchmarks.works import CURVES, TARGETS, WORKS, is_judged
from sockservice.store.engine import Batch
from sockservice.store.sqlite import SQLite

ROOT = Path(__file__).parent.parent
# The next where no reply came, since others had both cores.
SECONDS = (0.3, 1.0, 3.0)
SMOKE = ("pingpong-50", "udp-32-at-25000", "idle-1000")


def benchmarks(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("who", ["send", "ship"])
def test_senders(tmp_path: Path, who: str) -> None:
    sender = CONTESTANTS[who].sender
    assert sender is not None
    core = min(os.sched_getaffinity(0))
    measured = send(sender, 30_000, 64, Cores(core, core), tmp_path)
    assert 0 < measured.answered < measured.answered_in_all == 30_000
    assert measured.seconds > 0 and measured.server_cpu and measured.loader_cpu > 0


def series(work: str, who: str, *measurements: Measurement) -> Series:
    return Series(WORKS[work], CONTESTANTS[who], list(measurements))


#: A second in which a thousand lines were answered, in half of the processor's time.
PLAIN = Measurement(1000, 1000, 0, 1.0, 0.5, 0.5, 0.0, 0.0, p50=10.0, p99=20.0, p999=30.0)


def told(work: str, who: str, baseline: str, *everyone: Series) -> Verdict:
    (found,) = (
        v
        for v in verdicts(work, everyone)
        if v.target.contestant == who and v.baseline == baseline and v.target.figure == "figure"
    )
    return found


def verdict(work: str, who: str, baseline: str, *everyone: Series) -> tuple[float | None, bool]:
    found = told(work, who, baseline, *everyone)
    return None if found.reached is None else found.reached.middle, found.is_met


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
    files = ["--json", str(outcome), "--publish", str(docs)]
    for seconds in SECONDS:
        how = ["--rounds", "1", "--seconds", str(seconds)]
        run = benchmarks(*only, *how, *files)
        if "not one reply came" not in run.stderr:
            break
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
    # Of a curve there are pictures alone.
    page.write_text(stale := before.replace("pingpong-50", "pingpong-49"))
    (docs / "pictures" / "ratios.svg").unlink()
    again = benchmarks("--read", str(outcome), "--curve", "--publish", str(docs))
    assert (again.returncode, page.read_text()) == (0, stale)
    ElementTree.parse(docs / "pictures" / "ratios.svg")


def test_a_store_that_is_filled_beforehand_counts_what_comes_behind(tmp_path: Path) -> None:
    own = tmp_path / "own"
    for times in range(2):
        own.mkdir()
        with filled(tmp_path, own, 1) as before:
            assert before == 1000 + times
            engine = SQLite(str(own / DATABASE))
            engine.open()
            engine.commit([Batch(0, "p", "l", [b"one more"])])
            engine.close()
            assert stored_lines(own, before) == 1
        own.rmdir()


def test_only_what_stores_is_given_a_store(tmp_path: Path) -> None:
    assert WORKS["stored-1"].program(CONTESTANTS["store"])
    assert WORKS["stored-1"].program(CONTESTANTS["sockservice"]) is None


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--work", "nonsense"], 1, "error: no work 'nonsense'; --list names them"),
        (["--read", "/nonexistent", "--publish", "docs"], 1, "error: /nonexistent: No such file"),
        (["--rounds", "0"], 2, "a number from 1 to 100 is expected: 0"),
        (["--against", "HEAD", "--rounds", "7"], 2, "--against needs 8 rounds to tell"),
        (["--curve", "--all"], 2, "--curve has works of its own"),
        (["--against", "HEAD", "--publish", "docs"], 2, "--against has nothing to --publish"),
        (["--against", "no-such", "--work", "udp-32"], 1, "error: no-such: fatal: "),
        (["--against", "HEAD", "--only", "stock"], 1, "error: none of these contestants is comp"),
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
    # 8, 1 and 4; the middle half of three goes to the middle between them.
    assert found.ratio == Spread(4, 2.5, 6)


def test_processor_time_is_the_least_of_the_rounds() -> None:
    stock = series("pipelined-32", "stock", PLAIN, replace(PLAIN, server_cpu=0.4))
    ours = series("pipelined-32", "sockservice", PLAIN, replace(PLAIN, server_cpu=0.1))
    found = summarise(ours, [stock, ours])
    assert found is not None
    assert found.cpu_each == pytest.approx(100)
    # 1 and 4: the ratio is formed within a round.
    assert found.cpu_ratio is not None
    assert astuple(found.cpu_ratio) == pytest.approx((2.5, 1.75, 3.25))


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


def test_a_target_within_the_spread_is_said_to_be() -> None:
    stock = series("pipelined-32", "stock", *[PLAIN] * 4)
    rates = 9_000, 9_500, 11_000, 12_000
    ours = series("pipelined-32", "sockservice", *(replace(PLAIN, answered=rate) for rate in rates))
    found = told("pipelined-32", "sockservice", "stock", stock, ours)
    assert found.is_met and not found.is_clear
    more = series("pipelined-32", "sockservice", *[replace(PLAIN, answered=10_000)] * 4)
    assert told("pipelined-32", "sockservice", "stock", stock, more).is_clear


def test_a_figure_that_the_load_limited_is_marked() -> None:
    # The load was ready all the time: it ran for 0.6 s, and waited for its core for 0.39 s.
    limited = replace(PLAIN, loader_cpu=0.6, loader_wait=0.39)
    stock = series("pipelined-32", "stock", PLAIN)
    ours = series("pipelined-32", "sockservice", limited)
    found = summarise(ours, [stock, ours])
    assert found is not None and (found.is_lower_bound, found.bound) == (True, ">=")
    against = summarise(stock, [stock, ours])
    assert against is not None and against.bound == ""
    theirs = series("pipelined-32", "stock", limited)
    plain = series("pipelined-32", "sockservice", PLAIN)
    for one, bound in ((plain, "<="), (ours, "~")):
        found = summarise(one, [theirs, one])
        assert found is not None and found.bound == bound
        assert told("pipelined-32", "sockservice", "stock", theirs, one).bound == bound
    # Both were: then it was the server, too.
    both_busy = replace(limited, server_cpu=0.6, server_wait=0.38)
    busy = summarise(series("pipelined-32", "sockservice", both_busy), [stock])
    assert busy is not None and not busy.is_lower_bound
    # A rate is what the load is told to set.
    at = summarise(series("udp-32-at-25000", "sockservice", limited), [])
    assert at is not None and at.bound == ""


def test_spread_is_the_middle_half() -> None:
    assert spread([]) is None
    assert spread([3.0]) == Spread(3, 3, 3)
    assert spread([5.0, 1.0, 2.0, 100.0, 3.0]) == Spread(3, 2, 5)


def test_interval_needs_rounds_enough() -> None:
    assert interval(range(LEAST_ROUNDS - 1)) is None
    assert interval(range(LEAST_ROUNDS)) == (0, LEAST_ROUNDS - 1)
    # Of twelve the outermost on either side do not count.
    assert interval([*range(12)]) == (1, 10)


def test_interval_holds_the_median_as_often_as_it_says() -> None:
    chance = random.Random(1)
    # As noise is: never quicker than undisturbed, and sometimes much slower.
    rounds = ([chance.expovariate(1) for _ in range(12)] for _ in range(4000))
    held = [found for each in rounds if (found := interval(each))]
    outside = sum(not low <= log(2) <= high for low, high in held)
    assert len(held) == 4000 and 0 < outside < 0.01 * 4000


def test_what_differs_beyond_the_noise() -> None:
    noise = [0.9, 0.95, 1.0, 1.0, 1.0, 1.05, 1.1, 1.2, 0.8, 1.0, 1.0, 1.0]
    plain = [1.0] * 12

    def told(factor: float) -> str:
        found = gain([each * factor for each in noise], plain)
        assert found is not None
        return found.verdict

    assert [told(factor) for factor in (0.95, 1.0, 1.05)] == ["", "", ""]
    assert (told(0.8), told(1.3)) == ("worse", "better")
    slight = gain([1.01] * 12, plain)
    assert slight is not None and slight.low > 1 and slight.verdict == ""
    less = gain([1.3] * 12, plain, less=True)
    assert less is not None and less.verdict == "worse"
    assert gain(plain[:7], plain[:7]) is None


def compare(work: str, now: Measurement, then: Measurement, failure: str = "") -> Comparison:
    ours = series(work, "sockservice", *[now] * 12)
    theirs = series(work, "sockservice", *[then] * 12)
    theirs.failure = failure or None
    return comparison(ours, theirs)


def test_two_commits_are_compared() -> None:
    slow = replace(PLAIN, answered=500)
    assert compare("pipelined-32", PLAIN, slow).verdicts == ["better", "better by cpu"]
    worse = compare("pipelined-32", slow, PLAIN)
    assert worse.verdicts == ["worse", "worse by cpu"] and worse.is_worse
    assert not compare("pipelined-32", PLAIN, PLAIN).is_worse
    # More memory is worse, and its processor time says nothing.
    little, much = replace(PLAIN, value=1000), replace(PLAIN, value=1300)
    assert compare("idle-10000", much, little).verdicts == ["worse"]
    # With the load at its limit, only processor time is told of.
    limited = replace(PLAIN, loader_cpu=0.99)
    assert compare("pipelined-32", limited, slow).verdicts == ["better by cpu"]
    # What it could not do then is no difference.
    assert compare("pipelined-32", slow, PLAIN, "no such option").verdicts == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a clone")
def test_another_commit_is_what_runs(tmp_path: Path) -> None:
    tree = export("HEAD", tmp_path)
    planned = both([WORKS["pingpong-50"]], [*CONTESTANTS.values()], "HEAD", tree, judged=True)
    now, then = planned
    assert (now.contestant.name, then.contestant.name) == ("sockservice", "sockservice@HEAD")
    for one, root in ((now, ROOT), (then, tree)):
        code = "import sockservice as s, benchmarks as b; print(s.__file__, b.__file__, sep='\\n')"
        found = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment(one.contestant.tree),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        assert found == [f"{root}/sockservice/__init__.py", f"{ROOT}/benchmarks/__init__.py"]


def test_what_no_target_compares_is_left_out() -> None:
    stock, c, store = (CONTESTANTS[name] for name in ("stock", "c", "store"))
    assert is_judged(WORKS["pingpong-50"], stock) and is_judged(WORKS["pingpong-50"], c)
    assert not is_judged(WORKS["udp-32"], c)
    assert not is_judged(WORKS["pingpong-1"], stock)
    # The best of two works may be in either.
    assert is_judged(WORKS["durable-pipelined"], CONTESTANTS["relp"])
    assert is_judged(WORKS["durable-pingpong-1"], store)


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
