"""The status page of real services: with workers, to the end, and out of descriptors."""

import json
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from time import monotonic, sleep
from typing import Any

from tests.conftest import PATIENCE, Children, Service

STATUS = ("--status", "tcp:0:interface=127.0.0.1")


def until(come: Callable[[], object]) -> None:
    deadline = monotonic() + 2 * PATIENCE
    while not come():
        assert monotonic() < deadline, "it did not come"
        sleep(0.005)  # for those who are to make it come


class Asked:
    """The status page of a service."""

    def __init__(self, service: Service) -> None:
        self._port = int(service.until(rb"status page listening on tcp:127\.0\.0\.1:(\d+)")[1])

    def get(self, path: str) -> tuple[int, bytes]:
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)) as client:
            client.request("GET", path)
            response = client.getresponse()
            return response.status, response.read()

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/status.json")[1])
        return found

    def why(self, which: str = "ready") -> tuple[int, list[str]]:
        status, body = self.get(f"/health/{which}")
        return status, json.loads(body)["why"]


def ask(peer: socket.socket, lines: int) -> None:
    peer.sendall(b"x\n" * lines)
    with peer.makefile("rb") as file:
        assert [file.readline() for _ in range(lines)] == [b"ok\n"] * lines


def test_the_parent_sums_up_what_workers_do_those_that_have_died_included(
    children: Children,
) -> None:
    service = children.serve(
        *STATUS, "--workers", "2", "--store", "sqlite:lines.db", "--lame-duck", "1"
    )
    page = Asked(service)
    assert page.get("/health/live")[0] == 200
    service.until(rb"2 workers are ready")
    until(lambda: page.why() == (200, []))
    with ExitStack() as opened:
        peers = [opened.enter_context(closing(service.connected())) for _ in range(20)]
        for peer in peers:
            ask(peer, 5)
        until(lambda: page.state["counters"]["lines"] == 100)
        until(lambda: page.state["connections"] == 20)
        rows = page.state["workers"]
        assert [row["worker"] for row in rows] == [1, 2]
        assert sum(row["connections"] for row in rows) == 20
        assert page.state["store"]["stored"] == 100
        metrics = page.get("/metrics")[1].decode()
        assert 'sockservice_worker_up{worker="2"} 1.0' in metrics
        assert "sockservice_acknowledgement_seconds_count 100.0" in metrics
        os.kill(rows[0]["pid"], signal.SIGKILL)
        service.until(rb"worker 1 died of SIGKILL")
        until(lambda: [row["ready"] for row in page.state["workers"]] == [True, True])
    assert page.state["counters"]["lines"] == 100
    with closing(service.connected()) as peer:
        ask(peer, 5)
    until(lambda: page.state["counters"]["acknowledged"] == 105)
    until(lambda: b"sockservice_acknowledgement_seconds_count 105.0" in page.get("/metrics")[1])
    until(lambda: page.why() == (200, []))
    stopped = page.state["workers"][1]["pid"]
    os.kill(stopped, signal.SIGSTOP)
    until(lambda: page.why()[0] == 503)
    assert "worker 2 has told nothing for" in page.why()[1][0]
    os.kill(stopped, signal.SIGCONT)
    until(lambda: "told nothing" not in str(page.why()))
    service.process.terminate()
    until(lambda: "draining" in page.why()[1])
    assert "draining" not in page.why("live")[1]
    with closing(service.connected()) as peer:
        ask(peer, 1)
    service.ended()
    assert b" 106 lines, 106 acknowledged" in service.output


def test_the_page_is_there_when_connections_have_taken_all_descriptors(children: Children) -> None:
    process = children.start(
        *("twistd", "-n", "--pidfile=", "sockservice", "--port", "0", *STATUS),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )
    service = Service(process).listening()
    page = Asked(service)
    with ExitStack() as opened:
        for _ in range(80):
            opened.enter_context(closing(service.connected()))
        service.until(rb"cannot accept connections: Too many open files")
        until(lambda: page.why() == (503, ["no file descriptors left"]))
        assert page.get("/")[0] == 200
    until(lambda: page.why() == (200, []))
    service.stop()
