"""The parent of workers, with its time and its processes in the test's hands."""

import json
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import Any

import pytest
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.daemon.logqueue import LogQueue
from sockservice.daemon.workers.main import Reports
from sockservice.daemon.workers.process import (
    DRAIN,
    LINES,
    LONGEST,
    PIPES,
    RELIEVE,
    REPORTS,
    SOCKETS,
    STORED,
    TOLD,
)
from sockservice.daemon.workers.rereading import RELOADING
from sockservice.daemon.workers.supervisor import (
    GRACE,
    RESTART_ALONE,
    RESTART_FIRST,
    RESTART_MOST,
    STARTS,
    Workers,
)
from sockservice.limits.counters import Counters, CounterSet
from sockservice.limits.settings import START_TIMEOUT
from sockservice.net.bind.reuseport import Sharing
from sockservice.store.engine import Batch
from sockservice.store.groupcommit import Store
from sockservice.store.memory import Memory
from sockservice.store.pipe import framed, packed
from tests.conftest import HandReactor, Log


class Process:
    """A process in name only: what it is told, and how it ends."""

    def __init__(self, protocol: Any, words: list[str], descriptors: dict[int, Any]) -> None:
        self.protocol = protocol
        self.words = words
        self.descriptors = descriptors
        self.signals: list[str | int] = []
        self.written: list[tuple[int, bytes]] = []
        self.closed: list[int] = []
        self.exited = False
        protocol.makeConnection(self)

    def signalProcess(self, name: str | int) -> None:
        if self.exited:
            raise ProcessExitedAlready
        self.signals.append(name)

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        assert descriptor not in self.closed
        self.written.append((descriptor, data))

    @property
    def told(self) -> list[Any]:
        """What it is to go by, each time that it was told."""
        return [json.loads(data) for descriptor, data in self.written if descriptor == TOLD]

    def close(self, descriptor: int) -> None:
        """Have the other end of one of its pipes closed, as by a death not yet told of."""
        self.closed.append(descriptor)
        self.protocol.childConnectionLost(descriptor)

    def loseConnection(self) -> None:
        self.end()

    def report(self, line: str) -> None:
        self.protocol.childDataReceived(REPORTS, f"{line}\n".encode())

    def exit(self, status: int | None = None, signal: int | None = None) -> None:
        """End, while others may still hold its pipes."""
        self.exited = True
        kind = ProcessTerminated(status, signal) if status or signal else ProcessDone(0)
        self._reason = Failure(kind)
        self.protocol.processExited(self._reason)

    def end(self) -> None:
        self.protocol.childConnectionLost(2)
        self.protocol.processEnded(self._reason)

    def die(self, status: int | None = None, signal: int | None = None) -> None:
        self.exit(status, signal)
        self.end()


class Processes(Clock):
    """The time, and all processes that were ever started."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Process] = []
        self.problem: OSError | None = None

    def spawnProcess(
        self, protocol: Any, executable: str, args: list[str], *, env: Any, childFDs: Any
    ) -> None:
        if self.problem is not None:
            raise self.problem
        self.started.append(Process(protocol, args, childFDs))


@pytest.fixture
def reactor() -> Processes:  # type: ignore[override, unused-ignore]
    return Processes()


class Supervised:
    """Two workers and their parent."""

    def __init__(
        self,
        reactor: Processes,
        store: Store | None = None,
        starting: float = START_TIMEOUT,
        watchdog: float = 0,
    ) -> None:
        self.reactor = reactor
        self.counters = CounterSet()
        self.failures: list[str] = []
        self.telling: dict[str, Any] = {}
        self.workers = Workers(
            reactor,
            2,
            ["--port", "0"],
            Sharing(2),
            self.counters,
            self.failures.append,
            store=store,
            starting=starting,
            watchdog=watchdog,
            telling=lambda: self.telling,
        )
        self.workers.drainTimeout = 10.0
        self.workers.privilegedStartService()
        self.workers.startService()

    def ready(self) -> "Supervised":
        for each in self.reactor.started:
            each.report("ready")
        return self


@pytest.fixture
def supervised(reactor: Processes) -> Supervised:
    return Supervised(reactor)


def test_workers_get_the_options_their_number_and_pipes(
    reactor: Processes, supervised: Supervised
) -> None:
    for number, process in enumerate(reactor.started, 1):
        assert process.words[1:4] == ["-P", "-m", "sockservice.daemon.workers.main"]
        settings = json.loads(process.words[4])
        assert (settings["number"], settings["workers"]) == (number, 2)
        assert process.words[5:] == ["--port", "0"]
        assert sorted(process.descriptors) == list(range(SOCKETS))
    assert len(reactor.started) == 2


def test_all_ready_is_told_once(reactor: Processes, supervised: Supervised, log: Log) -> None:
    said = "2 workers are ready"
    reactor.started[0].report("ready")
    assert said not in log.texts
    reactor.started[1].report("ready")
    assert log.texts.count(said) == 1
    reactor.started[1].die(signal=9)
    reactor.advance(RESTART_FIRST)
    reactor.started[2].report("ready")
    assert log.texts.count(said) == 1


def test_a_worker_that_does_not_become_ready_ends_the_service(
    reactor: Processes, supervised: Supervised, log: Log
) -> None:
    reactor.advance(START_TIMEOUT - 0.1)
    assert supervised.failures == []
    reactor.advance(0.2)
    assert supervised.failures == ["worker 1 was not ready within 30 seconds (--start-timeout)"]
    assert supervised.counters.total.unready == 2
    assert [process.signals for process in reactor.started] == [["KILL"], ["KILL"]]
    for process in reactor.started:
        process.die(signal=9)
    reactor.advance(RESTART_MOST)
    assert len(reactor.started) == 2


def test_workers_that_become_ready_one_by_one_have_their_time(
    reactor: Processes, supervised: Supervised, log: Log
) -> None:
    reactor.advance(START_TIMEOUT - 1)
    reactor.started[0].report("ready")
    reactor.advance(START_TIMEOUT - 1)
    reactor.started[1].report("ready")
    reactor.advance(2 * START_TIMEOUT)
    assert supervised.failures == []
    assert [process.signals for process in reactor.started] == [[], []]


def test_without_a_limit_workers_have_all_time(reactor: Processes) -> None:
    supervised = Supervised(reactor, starting=0)
    reactor.advance(10 * START_TIMEOUT)
    assert supervised.failures == []
    assert [process.signals for process in reactor.started] == [[], []]


def test_one_that_takes_a_place_and_does_not_become_ready_is_replaced(
    reactor: Processes, supervised: Supervised, log: Log
) -> None:
    supervised.ready()
    reactor.started[0].die(signal=9)
    reactor.advance(RESTART_FIRST)
    reactor.advance(START_TIMEOUT)
    assert "worker 1 was not ready within 30 seconds (--start-timeout) and is killed" in log.texts
    assert reactor.started[2].signals == ["KILL"]
    reactor.started[2].die(signal=9)
    reactor.advance(RESTART_MOST)
    reactor.started[3].report("ready")
    reactor.advance(2 * START_TIMEOUT)
    assert supervised.failures == []
    assert reactor.started[3].signals == []


def test_another_takes_the_place_of_one_that_died_later_each_time(
    reactor: Processes, supervised: Supervised, log: Log
) -> None:
    supervised.ready()
    pauses = []
    for _ in range(12):
        reactor.started[-1].report("ready")
        reactor.started[-1].die(signal=9)
        started, begun = len(reactor.started), reactor.seconds()
        while len(reactor.started) == started:
            [call] = reactor.getDelayedCalls()
            reactor.advance(call.getTime() - reactor.seconds())
        pauses.append(round(reactor.seconds() - begun, 6))
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-2:] == [RESTART_MOST, RESTART_MOST]
    assert json.loads(reactor.started[-1].words[4])["number"] == 2
    assert log.texts[1] == ("worker 2 died of SIGKILL; another takes its place in 0.1 seconds")
    # One that has lived is no reason to wait.
    reactor.advance(RESTART_MOST)
    reactor.started[-1].die(status=3)
    reactor.advance(RESTART_FIRST)
    assert len(reactor.started) == 15
    assert "worker 2 ended with status 3; another" in log.texts[-1]
    assert supervised.failures == []


def test_workers_that_never_are_ready_are_given_up(
    reactor: Processes, supervised: Supervised
) -> None:
    reactor.started[0].report("ready")
    for attempt in range(STARTS):
        assert supervised.failures == []
        process = reactor.started[-1]
        process.protocol.childDataReceived(2, b"Traceback\nsockservice: no \x1bkey\n")
        process.die(status=1)
        reactor.advance(RESTART_MOST if attempt < STARTS - 1 else 0)
    assert supervised.failures == ["worker 2 ended with status 1: no \\x1bkey"]
    reactor.started[0].die(signal=9)
    reactor.advance(RESTART_MOST)
    assert len(reactor.started) == STARTS + 1


def test_what_cannot_be_started_is_given_up_as_well(reactor: Processes) -> None:
    reactor.problem = PermissionError(13, "Permission denied")
    supervised = Supervised(reactor)
    reactor.pump([RESTART_MOST] * STARTS)
    [said] = supervised.failures
    assert said.startswith("worker 1 could not be started: ")
    assert said.endswith(": Permission denied")


def test_counters_are_the_sums_of_all_the_dead_included(
    reactor: Processes, supervised: Supervised
) -> None:
    one, other = reactor.started
    supervised.ready()
    one.report(f"counters {json.dumps({'': asdict(Counters(lines=5, answered=4))})}")
    other.report(f"counters {json.dumps({'': asdict(Counters(lines=10, answered=10))})}")
    one.report(f"counters {json.dumps({'': asdict(Counters(lines=7, answered=6))})}")
    assert supervised.counters.total == Counters(lines=17, answered=16)
    one.die(signal=11)
    reactor.advance(RESTART_FIRST)
    reactor.started[2].report(f"counters {json.dumps({'': asdict(Counters(lines=1, cut=1))})}")
    assert supervised.counters.total == Counters(lines=18, answered=16, cut=1)


def test_a_reload_reaches_workers_when_they_can_hear_it(
    reactor: Processes, supervised: Supervised
) -> None:
    """Of what came while one did not listen, it is told the last."""
    one, other = reactor.started
    one.report("ready")
    for turn in (1, 2, 3):
        supervised.telling["turn"] = turn
        supervised.workers.reload()
    reloaded = supervised.workers.reloaded()
    assert (one.told, other.told) == ([{}, {"turn": 1}], [{}])
    other.report("ready")
    one.report("reloaded")
    assert one.told == [{}, {"turn": 1}, {"turn": 3}]
    assert other.told == [{}, {"turn": 3}]
    for each in (one, other):
        assert not reloaded.called
        each.report("reloaded")
    assert reloaded.called
    assert one.signals == other.signals == []


def test_a_reload_is_done_when_all_who_live_have_read(
    reactor: Processes, supervised: Supervised
) -> None:
    assert supervised.workers.reloaded().called
    one, other = supervised.ready().reactor.started
    supervised.workers.reload()
    reloaded = supervised.workers.reloaded()
    one.report("reloaded")
    assert not reloaded.called
    other.die(signal=9)
    assert reloaded.called


def test_a_reload_waits_for_one_that_starts_but_not_for_ever(
    reactor: Processes, supervised: Supervised, log: Log
) -> None:
    one, other = reactor.started
    one.report("ready")
    supervised.workers.reload()
    reloaded = supervised.workers.reloaded()
    one.report("reloaded")
    other.report("ready")
    reactor.advance(RELOADING - 0.1)
    assert not reloaded.called
    reactor.advance(0.2)
    assert reloaded.called
    assert "worker 2 has not read its files again within 30 seconds" in log.texts
    other.report("reloaded")


def test_a_reload_is_over_when_all_stop(reactor: Processes, supervised: Supervised) -> None:
    one, other = supervised.ready().reactor.started
    supervised.workers.reload()
    reloaded = supervised.workers.reloaded()
    supervised.workers.stopService()
    assert reloaded.called
    one.die()
    other.die()
    assert reactor.getDelayedCalls() == []


def test_a_worker_that_does_not_turn_is_killed_where_a_watchdog_asks_for_it(
    reactor: Processes, log: Log
) -> None:
    supervised = Supervised(reactor, watchdog=4)
    one, other = reactor.started
    assert json.loads(one.words[4])["watchdog"] == 4
    # They have their time to start.
    reactor.pump([2, 2, 2])
    supervised.ready()
    for _ in range(3):
        one.report("alive")
        reactor.advance(2)
    assert (one.signals, other.signals) == ([], ["KILL"])
    assert "worker 2 has not answered for 6 seconds and is killed" in log.texts
    other.die(signal=9)
    one.report("alive")
    reactor.advance(RESTART_FIRST)
    assert len(reactor.started) == 3
    # Who was stopped itself has heard nothing, and blames nobody.
    reactor.advance(100)
    assert one.signals == []
    stopped = supervised.workers.stopService()
    for each in reactor.started:
        if not each.exited:
            each.die()
    assert stopped.called
    assert reactor.getDelayedCalls() == []


def test_a_stop_has_all_drain_and_waits_for_them(
    reactor: Processes, supervised: Supervised, log: Log
) -> None:
    one, other = supervised.ready().reactor.started
    stopped = supervised.workers.stopService()
    assert (one.signals, other.signals) == ([DRAIN], [DRAIN])
    one.die()
    assert not stopped.called
    other.die(signal=15)
    assert stopped.called
    assert reactor.getDelayedCalls() == []
    assert len(reactor.started) == 2
    assert not [text for text in log.texts if "another" in text]


def test_who_does_not_end_is_killed(reactor: Processes, supervised: Supervised, log: Log) -> None:
    one, other = supervised.ready().reactor.started
    stopped = supervised.workers.stopService()
    one.die()
    reactor.advance(10 + GRACE - 0.1)
    assert other.signals == [DRAIN]
    reactor.advance(0.2)
    assert other.signals == [DRAIN, "KILL"]
    assert log.texts[-1] == "worker 2 did not end in time and is killed"
    other.die(signal=9)
    assert stopped.called


def test_nobody_is_started_any_more_when_it_stops(
    reactor: Processes, supervised: Supervised
) -> None:
    one, other = supervised.ready().reactor.started
    one.die(signal=9)
    stopped = supervised.workers.stopService()
    other.die()
    assert stopped.called
    assert reactor.getDelayedCalls() == []


def test_a_stop_has_nobody_to_wait_for_when_all_have_died(
    reactor: Processes, supervised: Supervised
) -> None:
    for each in supervised.ready().reactor.started:
        each.die(signal=9)
    assert supervised.workers.stopService().called
    assert reactor.getDelayedCalls() == []


def test_a_dead_workers_pipes_are_not_waited_for_long(
    reactor: Processes, supervised: Supervised
) -> None:
    """A process that it started may hold them open."""
    one, _ = supervised.ready().reactor.started
    one.exit(signal=9)
    reactor.advance(PIPES - 0.1)
    assert len(reactor.started) == 2
    reactor.advance(0.2)
    reactor.advance(RESTART_FIRST)
    assert len(reactor.started) == 3


def test_what_a_worker_writes_is_logged_escaped_whole_lines_at_a_time(
    reactor: Processes, supervised: Supervised, log: Log
) -> None:
    receive = reactor.started[1].protocol.childDataReceived
    receive(1, b"pri")
    receive(2, b"a\x1b[2J")
    receive(1, b"nted\nno")
    assert log.texts == ["worker 2 wrote: printed"]
    reactor.started[1].die(status=1)
    assert log.texts[1] == "worker 2 wrote: a\\x1b[2J"
    receive = reactor.started[0].protocol.childDataReceived
    for _ in range(LONGEST // 1000 + 1):
        receive(1, b"x" * 1000)
    assert len(log.texts[-1]) > LONGEST


Told = Callable[[Process], Any]


@pytest.fixture
def told(opened: ExitStack) -> Told:
    """Make what takes log events in a worker and has the parent told."""

    def made(process: Process) -> Any:
        there, here = os.pipe()
        opened.callback(os.close, there)
        opened.callback(os.close, here)
        os.set_blocking(there, False)
        reports = Reports(here, LogQueue())

        @implementer(ILogObserver)
        def observer(event: LogEvent) -> None:
            reports(event)
            with suppress(BlockingIOError):
                while True:
                    process.protocol.childDataReceived(REPORTS, os.read(there, 100))

        return observer

    return made


def test_log_events_stay_what_they_are(
    reactor: Processes, supervised: Supervised, log: Log, told: Told
) -> None:
    line = b"\x1b\n" * 100
    logger = Logger("sockservice.server.line", observer=told(reactor.started[1]))
    logger.info("{peer} line {line!r}", peer="192.0.2.1:7", line=line)
    [event] = log.events
    assert log.texts == [f"192.0.2.1:7 line {line!r}"]
    assert event["worker"] == 2
    assert event["peer"] == "192.0.2.1:7"
    assert event["log_level"] is LogLevel.info
    assert event["log_system"] == "worker 2, sockservice.server.line#info"


def test_numbers_are_rounded_as_they_were(
    reactor: Processes, supervised: Supervised, log: Log, told: Told
) -> None:
    logger = Logger("mine", observer=told(reactor.started[0]))
    logger.info(
        "{a:.1f} {a} {a:.1f} {b!r:>5} {c:g} {nothing()}",
        **{"a": 1.0123456, "b": "b", "c": 10.0, "nothing": lambda: "x"},
    )
    [event] = log.events
    assert log.texts[0] == "1.0 1.0123456 1.0   'b' 10 x"
    assert (event["a"], event["c"]) == (1.0123456, 10.0)


def test_what_can_not_be_formatted_is_told_as_elsewhere(
    reactor: Processes, supervised: Supervised, log: Log, told: Told
) -> None:
    logger = Logger("mine", observer=told(reactor.started[0]))
    for each in ("{d:.1f}", "{absent:g}", "{absent}"):
        logger.info(each, d="no number")
        assert log.texts[-1].startswith("Unable to format event {'d': 'no number'")


def test_failures_arrive_with_their_tracebacks(
    reactor: Processes, supervised: Supervised, log: Log, told: Told
) -> None:
    logger = Logger("mine", observer=told(reactor.started[0]))
    logger.failure("it failed", Failure(ZeroDivisionError("by 0")))
    [text] = log.texts
    assert text.startswith("it failed\nTraceback")
    assert "ZeroDivisionError: by 0" in text
    log.events.clear()  # it was asked for


@pytest.mark.parametrize(
    "die", [lambda process: process.die(signal=9), lambda process: process.close(STORED)]
)
def test_a_dead_worker_is_not_told_what_became_of_its_lines(
    die: Callable[[Process], None], log: Log
) -> None:
    """They are stored all the same."""
    hand = HandReactor()
    hand.startRunning(installSignalHandlers=False)
    store = Store(hand, Memory())
    store.start()
    processes = Processes()
    Supervised(processes, store)
    frame = framed(packed([Batch(1, "peer", "listener", [b"a"])]))
    one, other = processes.started
    for process in (one, other):
        process.protocol.childDataReceived(LINES, frame)
    die(one)
    hand.until(lambda: store.stored == 2)
    stored = [[data for to, data in each.written if to == STORED] for each in (one, other)]
    assert stored == [[], [framed(b"S")]]
    hand.result(store.stop())
    hand.dispose()


def test_one_place_always_comes_back_within_a_second(
    reactor: Processes, supervised: Supervised, log: Log
) -> None:
    """However often workers have died: where nobody serves, the next is not waited for long."""
    supervised.ready()
    for _ in range(10):
        reactor.started[-1].report("ready")
        reactor.started[-1].die(signal=9)
        reactor.advance(RESTART_MOST - 1)
    one = reactor.started[0]
    began = len(reactor.started)
    reactor.started[-1].die(signal=9)
    one.die(signal=9)
    assert log.texts[-1] == "nobody serves: connections wait until a worker does"
    reactor.advance(RESTART_ALONE)
    assert len(reactor.started) > began
    reactor.advance(0.3)
    reactor.started[-1].report("ready")
    assert log.texts[-1].endswith(f"serves; nobody did for {RESTART_ALONE + 0.3:.1f} seconds")


def test_one_that_is_told_to_end_is_relieved_when_another_serves(
    reactor: Processes, supervised: Supervised, log: Log
) -> None:
    one, _ = supervised.ready().reactor.started
    one.report("retiring")
    another = reactor.started[2]
    assert json.loads(another.words[4])["number"] == 1
    assert one.signals == []
    another.report("ready")
    assert one.signals == [RELIEVE]
    supervised.workers.reload()
    assert (len(one.told), len(another.told)) == (2, 2)
    one.die()
    assert log.texts[-1] == "retired worker 1 ended with status 0"
    reactor.advance(RESTART_MOST)
    assert len(reactor.started) == 3


def test_a_stop_waits_for_those_that_retire_as_well(
    reactor: Processes, supervised: Supervised
) -> None:
    one, other = supervised.ready().reactor.started
    one.report("retiring")
    stopped = supervised.workers.stopService()
    assert [each.signals for each in reactor.started] == [[DRAIN]] * 3
    other.report("retiring")  # too late to matter
    for each in (other, reactor.started[2]):
        each.die()
    assert not stopped.called
    one.die()
    assert stopped.called
    assert len(reactor.started) == 3
