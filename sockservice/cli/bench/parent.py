"""Start the processes that load a server, and add up what they count."""

import os
import signal
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from time import perf_counter
from typing import Any

from sockservice.cli.bench.child import work
from sockservice.cli.bench.settings import Settings, Unmeasured, received
from sockservice.cli.progress import Bar, timed
from sockservice.cli.status import INTERRUPTED, NOT_ALL
from sockservice.measure.tally import Tally

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Benching:
    """The processes that load a server, seen from their parent."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pids: list[int] = []
        self.interrupted = False

    def run(self) -> Unmeasured | tuple[Tally, float]:
        """Load the server; return the counts, and the seconds measured."""
        before = {each: signal.signal(each, self._interrupt) for each in SIGNALS}
        # Each process begins as this one is now: with no reactor yet.
        context = get_context("fork")
        ours: list[Connection] = []
        processes = []
        for place in range(self._settings.processes):
            here, there = context.Pipe()
            ours.append(here)
            settings = self._settings.part(place)
            process = context.Process(target=work, args=(settings, there, list(ours)))
            process.start()
            there.close()
            processes.append(process)
            self._pids.append(process.pid or 0)
        try:
            return self._gather(ours)
        finally:
            for each in ours:
                each.close()
            for process in processes:
                process.join()
            for number, way in before.items():
                signal.signal(number, way)

    def _interrupt(self, number: int, frame: object) -> None:
        self.interrupted = True
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _gather(self, ours: list[Connection]) -> Unmeasured | tuple[Tally, float]:
        for each in ours:
            message = received(each)
            if message is not True:
                when = f" before there was a connection to {self._settings.target}"
                return message or self._ended(when)
        for each in ours:
            each.send(True)
        tally, elapsed = Tally(), 0.0
        bar, begun = Bar(), perf_counter()
        seconds = self._settings.warmup + self._settings.duration
        answered: dict[int, int] = {}
        while ours:
            ready: Any = wait(ours)
            for each in ready:
                message = received(each)
                if isinstance(message, int):
                    answered[each.fileno()] = message
                    gone = perf_counter() - begun
                    bar.show(timed(sum(answered.values()), gone, seconds, bar.width))
                    continue
                ours.remove(each)
                each.close()
                if isinstance(message, tuple) and not isinstance(message, Unmeasured):
                    tally.add(message[0])
                    elapsed = max(elapsed, message[1])
                else:
                    bar.clear()
                    return message or self._ended()
        bar.clear()
        return tally, elapsed

    def _ended(self, when: str = "") -> Unmeasured:
        """Return why a process ended without sending anything."""
        if self.interrupted:
            return Unmeasured(INTERRUPTED, f"interrupted{when}")
        return Unmeasured(NOT_ALL, "a process that loads has failed")
