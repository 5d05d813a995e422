"""The command line: which contestants, which works, how often and how long."""

import argparse
import math
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from fnmatch import filter as matching
from pathlib import Path
from typing import NoReturn, TypeVar

from benchmarks.against import both, compared, comparisons_table, export
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.cores import choose_available
from benchmarks.disk import memory
from benchmarks.failure import Failure
from benchmarks.pictures import COLOURS
from benchmarks.publish import publish
from benchmarks.report import as_json, table
from benchmarks.rounds import Series, count, plan, run
from benchmarks.spread import LEAST_ROUNDS
from benchmarks.works import WORKS, Work

MOST_ROUNDS = 100
MOST_SECONDS = 60.0
# So many that the middle half of them means something, in ten minutes for what has targets.
ROUNDS, SECONDS = 7, 0.5
# So many that one round which was disturbed, on either side, is outside the interval.
ROUNDS_AGAINST = 12
# Ten thousand connections, and what a process has open besides.
OPEN_FILES = 11_000
# A curve shows by its neighbours what a point of it is worth.
ROUNDS_CURVE = 3
# What starting and stopping a server adds to each measurement, roughly.
OVERHEAD_SECONDS = 0.8

Entry = TypeVar("Entry")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the server against its peers, interleaved, on this machine.",
    )
    parser.add_argument(
        "--all", action="store_true", help="what has no target, too: an hour and a half"
    )
    parser.add_argument(
        "--curve",
        action="store_true",
        help="how figures grow, up to a store of 20 GB: takes 40 GB of disk for half an hour",
    )
    parser.add_argument("--quick", action="store_true", help="one round: a minute and a half")
    parser.add_argument(
        "--against",
        metavar="REV",
        help="compare with another commit of this repository; exit with 1 if anything is worse",
    )
    parser.add_argument(
        "--rounds", type=whole, help=f"default: {ROUNDS}, with --against {ROUNDS_AGAINST}"
    )
    parser.add_argument(
        "--seconds",
        type=duration,
        default=SECONDS,
        help=f"of a measurement; default: {SECONDS:g}",
    )
    parser.add_argument(
        "--only", metavar="CONTESTANT,...", help="see --list; default: those that targets compare"
    )
    parser.add_argument(
        "--work",
        metavar="WORK,...",
        help="names from --list, with * in them; default: those with targets",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the outcome there too")
    parser.add_argument(
        "--read", metavar="FILE", type=Path, help="measure nothing; publish what --json wrote"
    )
    parser.add_argument(
        "--publish", metavar="DOCS", type=Path, help="put pictures and tables into these pages"
    )
    parser.add_argument("--list", action="store_true", help="list contestants and works, and end")
    options = parser.parse_args(arguments)
    if options.rounds is None:
        options.rounds = ROUNDS_CURVE if options.curve else ROUNDS
        if options.against:
            options.rounds = ROUNDS_AGAINST
    if options.quick and not options.against:
        options.rounds = 1
    if options.against and options.rounds < LEAST_ROUNDS:
        parser.error(f"--against needs {LEAST_ROUNDS} rounds to tell a difference from noise")
    if options.curve and (options.work or options.all):
        parser.error("--curve has works of its own")
    if options.against and options.publish:
        parser.error("--against has nothing to --publish")
    if options.read and not options.publish:
        parser.error("--read needs --publish")
    return options


def whole(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= MOST_ROUNDS):
        raise argparse.ArgumentTypeError(f"a number from 1 to {MOST_ROUNDS} is expected: {text}")
    return int(text)


def duration(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"0.1 to {MOST_SECONDS:g} seconds are expected: {text}")
    return seconds


def choose(names: str | None, known: Mapping[str, Entry], what: str) -> list[Entry]:
    """Return the named entries in the order of the list they come from; `*` stands for any name."""
    if names is None:
        return list(known.values())
    found = {name: matching(known, name) for name in names.split(",")}
    if unknown := sorted(name for name, matches in found.items() if not matches):
        raise Failure(f"no {what} {', '.join(map(repr, unknown))}; --list names them")
    wanted = {match for matches in found.values() for match in matches}
    return [entry for name, entry in known.items() if name in wanted]


def present(contestants: Sequence[Contestant]) -> list[Contestant]:
    for contestant in contestants:
        if missing := contestant.missing():
            say(f"{contestant.name}: skipped, {missing} is not installed")
    return [contestant for contestant in contestants if not contestant.missing()]


def on_disk(works: Sequence[Work], folder: Path) -> list[Work]:
    kind = memory(folder)
    for work in works:
        if kind and work.side == "durable":
            say(f"{work.name}: skipped, {folder} is no disk but {kind}; TMPDIR names another")
    return [work for work in works if not (kind and work.side == "durable")]


def print_list() -> None:
    for title, entries in (("contestants", CONTESTANTS), ("works", WORKS)):
        print(f"{title}:")
        for name, entry in entries.items():
            print(f"  {name:<21} {entry.description}")


def read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as problem:
        raise Failure(f"{path}: {getattr(problem, 'strerror', None) or 'no text'}") from None


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def raise_open_files() -> None:
    """Allow as many open files as the widest work needs; the servers inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def end(number: int, frame: object) -> NoReturn:
    # As an exception it lets every server on the way out be stopped.
    raise SystemExit(128 + number)


def measure(options: argparse.Namespace) -> int:
    works = choose(options.work, WORKS, "work")
    if not options.work:
        works = [work for work in works if (work.curve if options.curve else not work.stored)]
    works = on_disk(works, Path(tempfile.gettempdir()))
    drawn = ",".join(COLOURS) if options.curve else None
    contestants = present(choose(options.only or drawn, CONTESTANTS, "contestant"))
    judged = not (options.all or options.curve or options.work or options.only)
    if options.json and not options.json.absolute().parent.is_dir():
        raise Failure(f"no folder to write {options.json} to")
    if options.publish and not options.publish.is_dir():
        raise Failure(f"no folder {options.publish}")
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
        folder = Path(name)
        if options.against:
            tree = export(options.against, folder)
            series = both(works, contestants, options.against, tree, judged=judged)
        else:
            series = plan(works, contestants, judged=judged)
        if not series:
            raise Failure("none of these contestants does any of these works")
        go_round(series, options, folder)
    return tell(series, options)


def go_round(series: Sequence[Series], options: argparse.Namespace, folder: Path) -> None:
    cores = choose_available()
    # So that nothing here is in the way of a server that starts.
    os.sched_setaffinity(0, {cores.loader})
    raise_open_files()
    number = count(series, options.rounds)
    expected = number * (options.seconds + OVERHEAD_SECONDS)
    say(
        f"{number} measurements, about {expected / 60:.1f} minutes; "
        f"servers on core {cores.server}, load on core {cores.loader}"
    )
    run(series, options.rounds, options.seconds, cores, folder, say)


def tell(series: Sequence[Series], options: argparse.Namespace) -> int:
    """Print the outcome, write it where it is to be, and return the exit status."""
    if options.against:
        comparisons, ours = compared(series), series[::2]
        print(comparisons_table(comparisons, options.against))
    else:
        comparisons, ours = [], series
        print(table(series))
    outcome = as_json(series, options.rounds, options.seconds)
    if options.json:
        options.json.write_text(outcome)
    if options.publish:
        publish(outcome, options.publish, options.curve)
    for one in series:
        if one.failure is not None and not one.is_beyond:
            say(f"FAILED: {one.work.name}, {one.contestant.name}: {one.failure}")
    failed = any(one.failure is not None and not one.is_beyond for one in ours)
    return 1 if failed or any(one.is_worse for one in comparisons) else 0


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    if options.list:
        print_list()
        return 0
    signal.signal(signal.SIGTERM, end)
    try:
        if options.read:
            publish(read(options.read), options.publish, options.curve)
            return 0
        return measure(options)
    except Failure as failure:
        say(f"error: {failure}")
    except KeyboardInterrupt:
        say("interrupted")
        return 128 + signal.SIGINT
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
