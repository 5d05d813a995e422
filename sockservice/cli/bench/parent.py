"""Start the processes that load a server, and add up what they count."""

import errno
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
from sockservice.cli.signals import quitting, rearm
from sockservice.cli.status import NOT_ALL, NOT_CONNECTED, SIGNALS, signalled
from sockservice.measure.tally import Tally
from sockservice.wire.plurals import grouped


class Benching:
    """The processes that load a server, seen from their parent."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pids: list[int] = []
        #: The signal that ended it, or 0.
        self.number = 0
        self._answered: dict[int, int] = {}
        self._begun = perf_counter()
        self._bar = Bar()

    def run(self) -> Unmeasured | tuple[Tally, float]:
        """Load the server; return the counts, and the seconds measured."""
        caught = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
        # A signal in between would find some processes begun, others not.
        signal.pthread_sigmask(signal.SIG_BLOCK, (*SIGNALS, signal.SIGQUIT))
        before = {each: signal.signal(each, self._interrupt) for each in caught}
        ours: list[Connection] = []
        processes: list[Any] = []
        try:
            why = self._begin(ours, processes)
            with quitting(self._said):
                signal.pthread_sigmask(signal.SIG_UNBLOCK, (*SIGNALS, signal.SIGQUIT))
                if why:
                    self._end()
                    return Unmeasured(NOT_CONNECTED, why)
                return self._gather(ours)
        finally:
            for each in ours:
                each.close()
            for process in processes:
                process.join()
            for number, way in before.items():
                signal.signal(number, way)

    def _begin(self, ours: list[Connection], processes: list[Any]) -> str:
        """Start the processes; return why there are not all of them, or ""."""
        # Each process begins as this one is now: with no reactor yet.
        context = get_context("fork")
        try:
            for place in range(self._settings.processes):
                here, there = context.Pipe()
                ours.append(here)
                settings = self._settings.part(place)
                process = context.Process(target=work, args=(settings, there, list(ours)))
                process.start()
                there.close()
                processes.append(process)
                self._pids.append(process.pid or 0)
        except OSError as problem:
            limit = "n" if problem.errno == errno.EMFILE else "u"
            return f"not even begun: {problem.strerror} (see ulimit -{limit})"
        return ""

    def _interrupt(self, number: int, frame: object) -> None:
        rearm()
        self.number = number
        if number == signal.SIGINT:
            self._bar.interrupted()
        self._end()

    def _end(self) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _said(self) -> str:
        """Return in words how far it is."""
        answered = sum(self._answered.values())
        lines = grouped(answered, "line")
        return f"answered {lines} in {perf_counter() - self._begun:.1f} s"

    def _gather(self, ours: list[Connection]) -> Unmeasured | tuple[Tally, float]:
        for each in ours:
            message = received(each)
            if message is not True:
                when = f" before there was a connection to {self._settings.target}"
                return self._ended(when) if self.number or not message else message
        for each in ours:
            each.send(True)
        tally, elapsed = Tally(), 0.0
        bar, begun = self._bar, perf_counter()
        self._begun = begun
        seconds = self._settings.warmup + self._settings.duration
        answered = self._answered
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
        if self.number:
            status, word = signalled(self.number)
            return Unmeasured(status, f"{word}{when}")
        return Unmeasured(NOT_ALL, "a process that loads has failed")
