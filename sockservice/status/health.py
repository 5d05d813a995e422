"""Whether the service is alive, and ready for peers; and why not."""

from collections.abc import Callable
from typing import Any, NamedTuple

from sockservice.status.overview import Overview

#: Seconds by which a reactor may be late: beyond, peers wait for it.
LATE = 2.0
#: Seconds for which a store's nodes may be without a majority: they elect a leader.
MAJORITY_MISSING = 15.0
#: Seconds in which a worker has to tell its figures, which it does each second.
SILENT = 3.0

#: What is told of the stages of the service, but for the one in which it serves.
STAGES = {"starting": "starting", "draining": "draining"}


class Verdict(NamedTuple):
    """Whether all is well, and why not."""

    well: bool
    why: list[str]

    @property
    def status(self) -> int:
        """The status code of HTTP that says the same."""
        return 200 if self.well else 503


class Health:
    """Judges by `overview`, and by the stage of the service: starting, ready or draining."""

    def __init__(self, overview: Overview, stage: Callable[[], str]) -> None:
        self._overview = overview
        self._stage = stage

    def live(self) -> Verdict:
        """Whether the process does what it is there for; if not, only a restart helps."""
        why = []
        problem = None if self._overview.store is None else self._overview.store.problem
        if problem is not None and not problem.retry:
            why.append(f"the store has failed: {problem.reason}")
        return _verdict(why + self._late())

    def ready(self) -> Verdict:
        """Whether peers should come."""
        overview = self._overview
        why = [STAGES[stage]] if (stage := self._stage()) in STAGES else []
        problem = None if overview.store is None else overview.store.problem
        if problem is not None:
            why.append(f"the store refuses lines: {problem.reason}")
        elif overview.majorityMissing > MAJORITY_MISSING:
            why.append(f"the store's stream has no majority for {overview.majorityMissing:.0f} s")
        if overview.gauges["lacking"]:
            why.append("no file descriptors left")
        why += self._late()
        workers = overview.workers
        if workers is not None:
            for each in workers:
                if each.silent > SILENT and each.ready:
                    why.append(f"worker {each.number} has told nothing for {each.silent:.0f} s")
            if stage != "starting" and not any(each.ready for each in workers):
                why.append("no worker serves")
        return _verdict(why)

    def _late(self) -> list[str]:
        late = self._overview.late
        found = [f"the reactor was late by {late:.1f} s"] if late > LATE else []
        for each in self._overview.workers or ():
            worst = each.figures.get("late", 0.0)
            if worst > LATE:
                found.append(f"the reactor of worker {each.number} was late by {worst:.1f} s")
        return found

    def state(self) -> dict[str, Any]:
        """Return both, fit for JSON."""
        live, ready = self.live(), self.ready()
        return {"live": live.well, "ready": ready.well, "why": ready.why}


def _verdict(why: list[str]) -> Verdict:
    return Verdict(not why, why)
