"""Whether the service is ready is told before its listeners close."""

import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Children, Service
from tests.process.test_workers import ask, until


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_serves_on_for_a_while_when_it_is_not_ready_any_more(
    children: Children, tmp_path: Path, workers: str
) -> None:
    options = ("--lame-duck", "2", "--ready-file", "ready", "--workers", workers)
    service = children.serve(*options)
    until((tmp_path / "ready").exists)
    with closing(service.connected()) as before:
        service.process.terminate()
        until(lambda: not (tmp_path / "ready").exists())
        with closing(service.connected()) as peer:
            ask(peer, 1)
            ask(before, 1)
            service.until(rb"SIGTERM: not ready any more, serving for 2 seconds")
            ask(peer, 1)
    service.ended()


def test_a_second_signal_does_not_wait_for_that(children: Children) -> None:
    service = children.serve("--lame-duck", "600")
    service.process.terminate()
    service.until(rb"serving for 600 seconds")
    service.process.terminate()
    assert service.process.wait(PATIENCE) == -15


def test_systemd_is_told(children: Children, tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        process = children.start(
            *("twistd", "-n", "--pidfile=", "sockservice", "--port", "0"),
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")},
        )
        assert systemd.recv(100) == b"READY=1"
        service = Service(process).listening()
        with closing(service.connected()) as peer:
            ask(peer, 1)
        service.stop()
        assert systemd.recv(100) == b"STOPPING=1"


def test_a_file_that_cannot_be_made_is_told(children: Children) -> None:
    service = children.serve("--ready-file", "nowhere/at/all")
    service.until(rb"--ready-file \S+/nowhere/at/all: No such file or directory")
    service.stop()
