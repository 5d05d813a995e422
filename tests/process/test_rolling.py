"""SIGTERM to one worker after the other: no connection is broken and no answer lost."""

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from sockservice.daemon.workers.supervisor import RESTART_ALONE, RESTART_FIRST
from tests.conftest import PATIENCE, Children, Service
from tests.process.test_workers import SUMS, ask, gone, serve, until, workers


class Senders:
    """Peers that connect, send three lines, one after the reply to the other, and go."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ended = threading.Event()
        self.broken: list[str] = []
        self.connections = 0

    def send(self) -> None:
        while not self._ended.is_set():
            try:
                with closing(self._service.connected()) as peer, peer.makefile("rb") as file:
                    for _ in range(3):
                        peer.sendall(b"x\n")
                        reply = file.readline()
                        assert reply == b"ok\n", reply
            except (AssertionError, OSError) as problem:
                self.broken.append(repr(problem))
            self.connections += 1

    @contextmanager
    def sending(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.send) for _ in range(4)]
        for each in threads:
            each.start()
        try:
            yield
        finally:
            self._ended.set()
            for each in threads:
                each.join(PATIENCE)


def test_workers_are_restarted_one_after_the_other_under_load(
    children: Children, tmp_path: Path
) -> None:
    service = serve(children, "--store", "sqlite:lines.db", "--log-limit", "5")
    senders = Senders(service)
    before = workers(service)
    with ExitStack() as opened, senders.sending():
        staying = [opened.enter_context(closing(service.connected())) for _ in range(20)]
        for peer in staying:
            ask(peer, 1)
        for pid in before:
            os.kill(pid, signal.SIGTERM)
            service.until(rb"SIGTERM: another takes this place")
            until(lambda: len(workers(service)) == 3)
            # Whoever is there already is served as before.
            for peer in staying:
                ask(peer, 10)
            if pid == before[0]:
                while staying:
                    staying.pop().close()
            until(lambda pid=pid: gone(pid))  # type: ignore[misc]
    assert senders.broken == []
    assert senders.connections > 20
    until(lambda: not set(before) & set(workers(service)))
    service.stop()
    found = SUMS.search(service.output)
    assert found is not None
    connections, cut, lines, acknowledged = map(int, found.groups())
    assert (connections, cut) == (senders.connections + 20, 0)
    assert lines == acknowledged == senders.connections * 3 + 20 * 11


def retiring(children: Children, opened: ExitStack, *options: str) -> tuple[Service, int]:
    """Have a worker retire that has connections."""
    service = serve(children, *options)
    for _ in range(20):
        ask(opened.enter_context(closing(service.connected())), 1)
    service.until(rb"worker 1, .* connected")
    pid = workers(service)[0]
    os.kill(pid, signal.SIGTERM)
    until(lambda: len(workers(service)) == 3)
    return service, pid


def test_a_second_one_drains_at_once(children: Children, opened: ExitStack) -> None:
    service, pid = retiring(children, opened)
    os.kill(pid, signal.SIGTERM)
    until(lambda: gone(pid))
    service.stop()
    assert b" 0 of them cut" in service.output


def test_how_long_they_are_served_can_be_limited(children: Children, opened: ExitStack) -> None:
    service, pid = retiring(children, opened, "--retire-timeout", "1")
    until(lambda: gone(pid))
    service.stop()


def test_a_stop_does_not_wait_for_what_retires(children: Children, opened: ExitStack) -> None:
    service, pid = retiring(children, opened)
    service.stop()
    assert gone(pid)


def test_workers_that_are_killed_one_after_the_other_come_back_at_once(
    children: Children,
) -> None:
    service = serve(children)
    rounds = 4
    for _ in range(rounds):
        for pid in workers(service):
            os.kill(pid, signal.SIGKILL)
        with closing(service.connected()) as peer:
            ask(peer, 1)
    service.until(rb"nobody serves: connections wait until a worker does")
    service.until(rb"serves; nobody did for [\d.]+ seconds?")
    service.stop()
    # How long a worker takes to start is up to the machine; when it is started is not.
    pause = rb"another takes its place in ([\d.]+) seconds?\n"
    pauses = list(map(float, re.findall(pause, service.output)))
    assert max(pauses) <= RESTART_FIRST * 2 ** (rounds - 1)
    alone = list(map(float, re.findall(pause + rb".* nobody serves: ", service.output)))
    assert alone
    assert max(alone) <= RESTART_ALONE
