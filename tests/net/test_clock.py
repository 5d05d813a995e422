"""A wall clock that is set, forward or back, changes nothing but when lines were received."""

import json
import os
import re
import signal
import socket
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from time import monotonic

import pytest
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock

from sockservice.net.clock import steady
from tests.clock import WallClock
from tests.conftest import Children, HandReactor, Service
from tests.process.test_workers import ask, until, workers

#: Seconds by which the clock is set: more than any limit below, either way.
STEPS = [600.0, -600.0]


@pytest.fixture
def wall(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path / "wall")


def serve(children: Children, wall: WallClock, *options: str) -> Service:
    process = children.start(
        *("twistd", "-n", "--pidfile=", "sockservice", "--port", "0", *options),
        env=wall.environment,
    )
    return Service(process).listening()


def rest(peer: socket.socket) -> bytes:
    with closing(peer), peer.makefile("rb") as file:
        return file.read()


@pytest.mark.parametrize("step", STEPS)
def test_idle_limits_are_kept(children: Children, wall: WallClock, step: float) -> None:
    service = serve(children, wall, "--idle-timeout", "2")
    peer = service.connected()
    began = monotonic()
    ask(peer, 1)
    wall.step(step)
    assert rest(peer) == b"error idle for 2 seconds\n"
    assert monotonic() - began > 1
    service.stop()


@pytest.mark.parametrize("step", STEPS)
def test_line_limits_are_kept(children: Children, wall: WallClock, step: float) -> None:
    service = serve(children, wall, "--line-timeout", "2")
    peer = service.connected()
    began = monotonic()
    peer.sendall(b"torn")
    service.until(rb" connected")
    wall.step(step)
    assert rest(peer) == b"error unfinished line for 2 seconds\n"
    assert monotonic() - began > 1
    service.stop()


@pytest.mark.parametrize("step", STEPS)
def test_the_drain_is_bounded(children: Children, wall: WallClock, step: float) -> None:
    service = serve(children, wall, "--drain-timeout", "2")
    with closing(service.connected(receiving=4096)) as deaf:
        deaf.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                deaf.send(b"\n" * 65536)
        service.until(rb" connected")
        began = monotonic()
        service.process.terminate()
        service.until(rb"SIGTERM: answering")
        wall.step(step)
        service.ended()
        assert monotonic() - began > 1.9
    assert re.search(rb"ended: 1 connection, 1 of them cut", service.output)


@pytest.mark.parametrize("step", STEPS)
def test_a_rate_is_kept(children: Children, wall: WallClock, step: float) -> None:
    service = serve(children, wall, "--line-rate", "10")
    with closing(service.connected()) as peer:
        began = monotonic()
        peer.sendall(b"x\n" * 30)
        with peer.makefile("rb") as file:
            assert [file.readline() for _ in range(10)] == [b"ok\n"] * 10
            wall.step(step)
            assert [file.readline() for _ in range(20)] == [b"ok\n"] * 20
        assert monotonic() - began > 1.8
    service.stop()


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_that_dies_is_replaced(children: Children, wall: WallClock, step: float) -> None:
    service = serve(children, wall, "--workers", "2")
    service.until(rb"2 workers are ready")
    before = workers(service)
    os.kill(before[0], signal.SIGKILL)
    service.until(rb"another takes its place in 0.1 seconds")
    wall.step(step)
    until(lambda: len(set(workers(service)) - set(before)) == 1)
    for _ in range(20):
        with closing(service.connected()) as peer:
            ask(peer, 1)
    service.stop()


FAILING = """
from pathlib import Path

from sockservice import StoreError
from sockservice.store.memory import Memory


class Full(Memory):
    def __init__(self, place, retention):
        super().__init__()
        self._full = Path(place)

    def commit(self, batches):
        if self._full.exists():
            raise StoreError("no space", retry=True)
        super().commit(batches)
"""


@pytest.mark.parametrize("step", STEPS)
def test_a_store_that_has_space_again_stores_again(
    children: Children, wall: WallClock, step: float, tmp_path: Path
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    service = serve(children, wall, "--store", "failing.Full:full")
    with closing(service.connected()) as peer, peer.makefile("rb") as file:
        (tmp_path / "full").touch()
        peer.sendall(b"x\n")
        assert file.readline() == b"error not stored: no space\n"
        wall.step(step)
        (tmp_path / "full").unlink()
        began = monotonic()
        peer.sendall(b"x\n")
        while file.readline() != b"ok\n":
            assert monotonic() - began < 2
            peer.sendall(b"x\n")
    service.stop()


@pytest.mark.parametrize("step", STEPS)
def test_what_is_stored_says_when_by_the_wall_clock(
    children: Children, wall: WallClock, step: float, tmp_path: Path
) -> None:
    service = serve(children, wall, "--store", "sqlite:lines.db")
    with closing(service.connected()) as peer:
        ask(peer, 1)
        wall.step(step)
        ask(peer, 1)
    service.stop()
    done = children.run("sockservice", "lines", "lines.db", "--json")
    first, second = (
        datetime.fromisoformat(json.loads(line)["received"])
        for line in done.stdout.splitlines()[:-1]
    )
    assert (second - first).total_seconds() == pytest.approx(step, abs=5)


# The reactor itself


class Wall(SelectReactor):  # type: ignore[misc, unused-ignore]
    """A reactor that is made and never run."""


def test_a_reactor_goes_by_the_monotonic_clock() -> None:
    reactor = Wall()
    called: list[int] = []
    soon = reactor.callLater(0, called.append, 1)
    late = reactor.callLater(1000, called.append, 2)
    steady(reactor)
    assert reactor.seconds() <= time.monotonic() < time.time() / 2
    assert late.getTime() - reactor.seconds() == pytest.approx(1000, abs=5)
    reactor.runUntilCurrent()
    assert called == [1] and not soon.active()
    clock = reactor.seconds
    steady(reactor)
    assert reactor.seconds is clock
    late.cancel()
    reactor.waker.connectionLost(None)


def test_a_reactor_with_a_time_of_its_own_keeps_it(reactor: HandReactor) -> None:
    steady(reactor)
    assert reactor.seconds() == reactor.now == 0
    clock = Clock()
    steady(clock)
    assert clock.seconds() == 0
