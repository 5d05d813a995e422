"""What systemd is told, with its end of the socket in the test's hands, and the time as well."""

import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from threading import Event

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from sockservice.daemon.reload import PAUSE, Reloads
from sockservice.daemon.report import figures
from sockservice.daemon.systemd import AGAIN, FIGURES, Systemd
from sockservice.errors import StoreError
from sockservice.limits.counters import Counters
from sockservice.store.engine import Batch
from sockservice.store.groupcommit import Store
from sockservice.store.memory import Memory
from tests.conftest import HandReactor, Log


class Manager:
    """The other end: a datagram socket, and what has come to it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(address.replace("@", "\0", 1))

    def told(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with closing(Manager(str(tmp_path / "notify"))) as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def made(manager: Manager, clock: Clock, opened: ExitStack) -> Callable[..., Systemd]:
    def make(
        ping: Callable[[Callable[[], None]], object] = lambda answered: answered(),
        shown: Callable[[], str] = lambda: "so far, so good",
        **environment: str,
    ) -> Systemd:
        given = {"NOTIFY_SOCKET": manager.address, **environment}
        return opened.enter_context(closing(Systemd(clock, given, shown, ping, lambda: 4711)))

    return make


def test_ready_reloading_and_stopping_are_told_in_order(
    manager: Manager, made: Callable[..., Systemd]
) -> None:
    systemd = made()
    systemd.ready()
    systemd.reloading()
    systemd.reloaded()
    systemd.stopping()
    assert manager.told() == [
        "READY=1",
        "RELOADING=1\nMONOTONIC_USEC=4711",
        "READY=1",
        "STOPPING=1",
    ]


def test_a_reload_makes_nothing_ready_that_is_not(
    manager: Manager, made: Callable[..., Systemd]
) -> None:
    systemd = made()
    systemd.reloading()
    systemd.reloaded()
    systemd.ready()
    systemd.reloading()
    systemd.stopping()
    # It was waited for, and comes too late.
    systemd.reloaded()
    assert [each.partition("\n")[0] for each in manager.told()] == [
        "READY=1",
        "RELOADING=1",
        "STOPPING=1",
    ]


def test_an_abstract_name_is_as_good_as_a_path(clock: Clock) -> None:
    with closing(Manager(f"@sockservice-{os.getpid()}")) as manager:
        with closing(Systemd(clock, {"NOTIFY_SOCKET": manager.address})) as systemd:
            systemd.ready()
        assert manager.told() == ["READY=1"]


def test_processes_that_are_started_inherit_nothing(clock: Clock, manager: Manager) -> None:
    environment = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/root",
    }
    with closing(Systemd(clock, environment)) as systemd:
        assert systemd.watchdog == 1.0
    assert environment == {"HOME": "/root"}


@pytest.mark.parametrize("said", ["notify", "vsock:2:1234", "0"])
def test_what_is_no_address_is_told_once(clock: Clock, log: Log, said: str) -> None:
    systemd = Systemd(clock, {"NOTIFY_SOCKET": said, "WATCHDOG_USEC": "1000000"})
    assert systemd.watchdog == 0
    systemd.start()
    systemd.ready()
    assert clock.getDelayedCalls() == []
    assert log.texts == [
        f"NOTIFY_SOCKET={said!a} is neither a path nor an abstract name; systemd is not told "
        "how the service is"
    ]


def test_without_systemd_nothing_is_done(clock: Clock, log: Log) -> None:
    systemd = Systemd(clock, {"WATCHDOG_USEC": "1000000"})
    systemd.start()
    systemd.ready()
    systemd.close()
    assert (systemd.watchdog, clock.getDelayedCalls(), log.texts) == (0, [], [])


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "much"}, 0.0),
        ({"WATCHDOG_USEC": "0"}, 0.0),
        ({"WATCHDOG_USEC": "-5"}, 0.0),
        ({"WATCHDOG_USEC": str(2**64 - 1)}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_watchdog_is_for_the_process_that_it_names(
    made: Callable[..., Systemd], environment: dict[str, str], seconds: float
) -> None:
    assert made(**environment).watchdog == seconds


def test_the_watchdog_is_told_at_half_of_its_time(
    manager: Manager, made: Callable[..., Systemd], clock: Clock
) -> None:
    systemd = made(WATCHDOG_USEC="3000000")
    systemd.start()
    manager.told()
    clock.advance(1.4)
    assert manager.told() == []
    clock.advance(0.2)
    assert manager.told() == ["WATCHDOG=1"]
    clock.advance(1.5)
    assert manager.told() == ["WATCHDOG=1"]


def test_the_watchdog_is_not_told_before_all_has_answered(
    manager: Manager, made: Callable[..., Systemd], clock: Clock, log: Log
) -> None:
    asked: list[Callable[[], None]] = []
    systemd = made(ping=asked.append, WATCHDOG_USEC="2000000")
    systemd.start()
    clock.pump([1, 1, 1])
    assert "WATCHDOG=1" not in manager.told()
    [answered] = asked
    assert log.texts == [
        "the store has not answered for 1 second; the watchdog is not told that the service "
        "is alive until it does"
    ]
    answered()
    assert manager.told() == ["WATCHDOG=1"]
    assert log.texts[1:] == ["the store answers again"]
    clock.advance(1)
    assert len(asked) == 2


def test_figures_are_told_when_they_have_changed(
    manager: Manager, made: Callable[..., Systemd], clock: Clock
) -> None:
    shown = ["one"]
    made(shown=lambda: shown[0]).start()
    assert manager.told() == ["STATUS=one"]
    clock.advance(FIGURES)
    assert manager.told() == []
    shown[0] = "two\nREADY=1 \x1b"
    clock.advance(FIGURES)
    assert manager.told() == ["STATUS=two\\nREADY=1 \\x1b"]


def test_a_full_socket_blocks_nothing_and_gets_the_latest_of_each_kind(
    manager: Manager, made: Callable[..., Systemd], clock: Clock, log: Log
) -> None:
    systemd = made(WATCHDOG_USEC="2000000", shown=lambda: str(clock.seconds()))
    systemd.start()
    # Nobody reads: net.unix.max_dgram_qlen messages fit.
    most = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 10
    clock.pump([1] * most)
    systemd.ready()
    systemd.reloading()
    systemd.reloaded()
    systemd.stopping()
    assert len(manager.told()) < most
    clock.advance(AGAIN)
    last = manager.told()
    assert "WATCHDOG=1" in last and len(last) == 5
    assert [each.partition("\n")[0] for each in last[-3:]] == [
        "RELOADING=1",
        "READY=1",
        "STOPPING=1",
    ]
    assert log.texts == []


def test_one_who_comes_back_with_another_socket_is_told_again(
    manager: Manager, made: Callable[..., Systemd], log: Log
) -> None:
    systemd = made()
    systemd.ready()
    manager.close()
    os.unlink(manager.address)
    systemd.reloading()
    systemd.reloaded()
    assert log.texts == [
        "NOTIFY_SOCKET: No such file or directory; systemd is not told how the service is"
    ]
    with closing(Manager(manager.address)) as other:
        systemd.stopping()
        assert other.told() == ["STOPPING=1"]


def test_want_of_descriptors_is_told_and_gets_over(
    manager: Manager, made: Callable[..., Systemd], log: Log
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        systemd = made()
        systemd.ready()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert log.texts == [
        "NOTIFY_SOCKET: Too many open files; systemd is not told how the service is"
    ]
    systemd.stopping()
    assert manager.told() == ["STOPPING=1"]


def test_what_waits_is_forgotten_at_the_end(
    manager: Manager, made: Callable[..., Systemd], clock: Clock
) -> None:
    systemd = made(WATCHDOG_USEC="2000000")
    systemd.start()
    clock.pump([1] * 2000)
    assert len(clock.getDelayedCalls()) == 3
    systemd.close()
    systemd.stopping()
    assert clock.getDelayedCalls() == []
    assert "STOPPING=1" not in manager.told()


class Stuck(Memory):
    """An engine whose commits wait."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.goOn = Event(), Event()

    def commit(self, batches: object) -> None:
        self.begun.set()
        self.goOn.wait()


def test_a_store_answers_between_two_commits(reactor: HandReactor) -> None:
    engine = Stuck()
    store = Store(reactor, engine)
    store.start()
    answered: list[str] = []
    store.ping(lambda: answered.append("idle"))
    reactor.until(lambda: answered)
    appended = store.append(Batch(0, "peer", "listener", [b"x"]))
    reactor.until(engine.begun.is_set)
    store.ping(lambda: answered.append("busy"))
    for _ in range(3):
        reactor.iterate(0)
    assert answered == ["idle"]
    engine.goOn.set()
    reactor.until(lambda: answered[1:])
    reactor.result(appended)
    stopped = store.stop()
    store.ping(lambda: answered.append("stopping"))
    assert answered == ["idle", "busy", "stopping"]
    reactor.result(stopped)


def test_the_figures_say_whether_lines_are_refused(reactor: HandReactor) -> None:
    engine = Memory()
    store = Store(reactor, engine)
    counters = Counters(connections=7, lines=5, answered=5, refused=1, datagrams=2)
    assert figures(counters, 3, store) == (
        "connections: 3 now, 7 so far; 5 lines, 4 acknowledged, 1 refused; 2 datagrams"
    )
    store.start()
    engine.problem = StoreError("disk full", retry=True)
    reactor.failure(store.append(Batch(0, "peer", "listener", [b"x"])))
    assert figures(counters, None, store) == (
        "connections: 7 so far; 5 lines, 4 acknowledged, 1 refused; 2 datagrams; lines are "
        "refused, for they cannot be stored: disk full"
    )
    reactor.result(store.stop())


def test_one_reload_waits_until_another_has_ended(reactor: HandReactor) -> None:
    told: list[str] = []
    ended: list[Deferred[None]] = []

    def end() -> Deferred[None]:
        ended.append(Deferred())
        return ended[-1]

    reloads = Reloads(reactor, lambda: partial(told.append, "read"), 5, told.append)
    reloads.begun = lambda: told.append("begun")  # type: ignore[method-assign]
    reloads.ended = end  # type: ignore[method-assign]
    reloads.ask()
    reactor.until(lambda: ended)
    for _ in range(3):
        reloads.ask()
    reactor.advance(10 * PAUSE)
    assert told == ["begun", "read"]
    ended[0].callback(None)
    reactor.until(lambda: ended[1:], passing=PAUSE)
    assert told == ["begun", "read"] * 2
    reloads.ask()
    reloads.close()
    ended[1].callback(None)
    reactor.advance(10 * PAUSE)
    assert told == ["begun", "read"] * 2


def test_a_reload_that_takes_too_long_has_ended_all_the_same(reactor: HandReactor) -> None:
    told: list[str] = []
    goOn = Event()

    def read() -> Callable[[], object]:
        goOn.wait()
        return partial(told.append, "read")

    reloads = Reloads(reactor, read, 5, lambda _: told.append("late"))
    reloads.begun = lambda: told.append("begun")  # type: ignore[method-assign]
    reloads.ended = lambda: told.append("ended")  # type: ignore[method-assign]
    reloads.ask()
    reactor.advance(6)
    assert told == ["begun", "late", "ended"]
    reloads.ask()
    assert told == ["begun", "late", "ended"] * 2
    goOn.set()
    reactor.until(lambda: told[6:], passing=PAUSE)
    reactor.until(lambda: told[8:])
    assert told[6:] == ["begun", "read", "ended"]
