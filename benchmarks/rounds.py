"""The order of the measurements: every contestant once a round, each time on a fresh server."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.contestants import Contestant, Loop, Sender
from benchmarks.cores import Cores
from benchmarks.disk import filled, fresh
from benchmarks.failure import Failure
from benchmarks.loader import Measurement, compile_loader, load
from benchmarks.sending import send
from benchmarks.server import Server, running
from benchmarks.startup import start
from benchmarks.works import Work, is_judged

# Above this share of waiting a measurement says more about the machine than about the server.
CALM = 0.05
ATTEMPTS = 2


@dataclass
class Series:
    """The measurements of one contestant in one work, one a round, or why there are none.

    It may be that it can't, which is no failure."""

    work: Work
    contestant: Contestant
    measurements: list[Measurement] = field(default_factory=list)
    failure: str | None = None

    @property
    def is_beyond(self) -> bool:
        return self.work.beyond(self.contestant) is not None


def plan(
    works: Sequence[Work],
    contestants: Sequence[Contestant],
    *,
    judged: bool = False,
) -> list[Series]:
    """Plan what can be measured; if `judged`, only what targets compare."""
    return [
        Series(work, contestant, failure=work.beyond(contestant))
        for work in works
        for contestant in contestants
        if work.program(contestant) and (is_judged(work, contestant) or not judged)
    ]


def in_order(series: Sequence[Series], number: int) -> Iterator[Series]:
    """Go through one round, every second time backwards, so that no one is always first."""
    return iter(series) if number % 2 == 0 else reversed(series)


def count(series: Sequence[Series], rounds: int) -> int:
    """Return how many measurements there are to make."""
    return rounds * sum(1 for one in series if not one.is_beyond)


def run(
    series: Sequence[Series],
    rounds: int,
    seconds: float,
    cores: Cores,
    folder: Path,
    report: Callable[[str], None],
) -> None:
    """Fill in the series; one that fails is left out of the rounds that follow."""
    program = compile_loader(folder)
    for number in range(rounds):
        for one in in_order(series, number):
            if one.failure is not None:
                continue
            label = f"round {number + 1}/{rounds}  {one.work.name}  {one.contestant.name}"
            try:
                measurement = calmest(program, one, seconds, cores, folder)
            except Failure as failure:
                one.failure = str(failure)
                report(f"{label}: FAILED: {failure}")
            else:
                one.measurements.append(measurement)
                report(f"{label}: {measurement.figure:,.4g} {one.work.unit}")


def calmest(
    program: Path, series: Series, seconds: float, cores: Cores, folder: Path
) -> Measurement:
    """Measure again when others had the cores, and return the least disturbed measurement."""
    best = measure(program, series, seconds, cores, folder)
    for _ in range(ATTEMPTS - 1):
        if best.waited <= CALM:
            break
        again = measure(program, series, seconds, cores, folder)
        best = min(best, again, key=lambda measurement: measurement.waited)
    return best


def measure(
    program: Path, series: Series, seconds: float, cores: Cores, folder: Path
) -> Measurement:
    work, contestant = series.work, series.contestant
    server = work.program(contestant)
    assert server is not None
    with fresh(folder, synced=work.side == "durable") as own:
        if isinstance(server, Sender):
            return send(server, work.window, work.size, cores, own, contestant.tree)
        if isinstance(server, Loop):
            nobody = Server(0, 0, own)
            return load(program, server.load, nobody, work, contestant, seconds, cores.server)
        if work.kind == "startup":
            command = server.command(folder)
            return start(command, server.ready, cores.server, own, contestant.tree)
        own_cores = {cores.server, cores.loader} if server.everywhere else {cores.server}
        command = server.command(folder)
        kind = server.load or work.kind
        with filled(folder, own, work.stored) if work.stored else nullcontext(0) as before:
            with running(command, server.ready, own_cores, own, contestant.tree) as process:
                measurement = load(program, kind, process, work, contestant, seconds, cores.loader)
            stored = server.stored(own, before) if server.stored else None
        if stored is not None and stored < measurement.answered_in_all:
            lost = measurement.answered_in_all - stored
            raise Failure(f"{lost} of {measurement.answered_in_all} acknowledged lines are lost")
        return replace(measurement, server_cpu=None) if server.forks else measurement
