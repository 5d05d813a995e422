"""Files that options name, in the real process: where they are found, and that none blocks it."""

import os
import re
import shutil
import signal
import socket
from contextlib import closing
from pathlib import Path

import pytest

from tests.certificates import Identity
from tests.conftest import PATIENCE, Children, Service
from tests.process.test_workers import ask, until, workers

LIST = "127.0.0.2\n"
REFUSED = b"error not allowed: 127.0.0.2\n"


def said(service: Service) -> bytes:
    """Give what 127.0.0.2 is told."""
    source = ("127.0.0.2", 0)
    with closing(socket.create_connection(service.address, PATIENCE, source)) as peer:
        peer.sendall(b"a\n")
        return peer.recv(100)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_relative_files_are_found_where_it_runs(
    children: Children, server: Identity, tmp_path: Path, workers: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(server.privateKey, run / "key")
    shutil.copy(server.certKey, run / "certificate")
    (run / "denied").write_text(LIST)
    (run / "most").write_text("9")
    (tmp_path / "denied").write_text("nonsense\n")
    service = children.serve(
        *("--deny", "@denied", "--max-connections=@most", "--workers", workers),
        *("--store", "sqlite:lines.db", "--ready-file", "ready", "--listen", "unix:s"),
        *("--listen", "ssl:0:interface=127.0.0.1:privateKey=key:certKey=certificate"),
        before=("-n", "--pidfile=", "--rundir", "run"),
    )
    if workers == "2":
        service.until(rb"2 workers are ready")
    until((run / "ready").exists)
    assert {"lines.db", "s"} <= set(os.listdir(run))
    assert said(service) == REFUSED
    (run / "denied").write_text("none\n")
    service.process.send_signal(signal.SIGHUP)
    service.until(rb"(SIGHUP: limits[^\n]*\n(?s:.*)){%d}" % (int(workers) + (workers != "1")))
    assert said(service) == b"ok\n"
    service.stop()
    assert set(os.listdir(tmp_path)) == {"run", "denied"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can change the root")
@pytest.mark.usefixtures("elsewhere")
def test_files_are_found_below_another_root(children: Children, tmp_path: Path) -> None:
    run = tmp_path / "root" / "run"
    run.mkdir(parents=True)
    (run / "denied").write_text(LIST)
    (run / "most").write_text("9")
    service = children.serve(
        *("--deny", "@denied", "--max-connections", "@/run/most", "--ready-file", "ready"),
        before=("-n", "--pidfile=", "--chroot", "root", "--rundir", "/run"),
    )
    assert said(service) == REFUSED
    until((run / "ready").exists)
    (run / "denied").write_text("none\n")
    service.process.send_signal(signal.SIGHUP)
    service.until(rb"SIGHUP: limits")
    assert said(service) == b"ok\n"
    service.stop()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_file_that_would_block_stops_nobody(
    children: Children, authority: Identity, tmp_path: Path, workers: str
) -> None:
    """Nobody is at the other end of the pipes: who opened one would wait for ever."""
    server = Identity(tmp_path, "server", authority)
    (tmp_path / "denied").write_text(LIST)
    service = children.serve(
        *("--deny", "@denied", "--workers", workers, "--listen"),
        f"ssl:0:interface=127.0.0.1:{server.said}:caCerts={authority.certKey}",
    )
    if workers == "2":
        service.until(rb"2 workers are ready")
    with closing(service.connected()) as peer:
        for path in (tmp_path / "denied", server.privateKey, server.certKey):
            path.unlink()
            os.mkfifo(path)
            service.process.send_signal(signal.SIGHUP)
            service.until(
                rb"SIGHUP: [^\n]*%b: it is a pipe; a regular file is wanted; what was there"
                % re.escape(str(path).encode())
            )
            ask(peer, 1)
            assert said(service) == REFUSED
    service.stop()


def test_a_pipe_is_refused_at_the_start(children: Children) -> None:
    done = children.run(
        *("twistd", "-n", "--pidfile=", "sockservice", "--port", "0", "--workers", "2"),
        *("--deny", "@/dev/stdin"),
        input=b"127.0.0.0/8\n",
    )
    why = b"it is a pipe; a regular file is wanted"
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"sockservice: --deny @/dev/stdin: " + why + b"\n"


def twice(service: Service) -> set[bytes]:
    """Give what 127.0.0.2 is told, often enough to meet both workers."""
    return {said(service) for _ in range(30)}


@pytest.mark.parametrize("later", ["none\n", "nonsense\n", None], ids=["none", "wrong", "gone"])
def test_a_worker_that_starts_later_goes_by_what_is_in_force(
    children: Children, tmp_path: Path, later: str | None
) -> None:
    """Nobody has asked for what stands in the file by now."""
    denied = tmp_path / "denied"
    denied.write_text(LIST)
    service = children.serve("--deny", "@denied", "--workers", "2")
    service.until(rb"2 workers are ready")
    denied.unlink()
    if later is not None:
        denied.write_text(later)
    killed = set(workers(service))
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len({*workers(service)} - killed) == 2)
    assert twice(service) == {REFUSED}
    service.process.send_signal(signal.SIGHUP)
    seen = service.until(rb"worker 1, [^\n]* SIGHUP: |SIGHUP: --deny").end()
    if later == "none\n":
        service.until(rb"(?s:SIGHUP: limits.*SIGHUP: limits.*SIGHUP: limits)")
        assert twice(service) == {b"ok\n"}
    else:
        assert twice(service) == {REFUSED}
        assert b"SIGHUP: limits" not in service.output[seen:]
    service.stop()


def test_all_workers_go_by_one_reading_though_one_was_stopped(
    children: Children, tmp_path: Path
) -> None:
    denied = tmp_path / "denied"
    denied.write_text("none\n")
    service = children.serve("--deny", "@denied", "--workers", "2")
    service.until(rb"2 workers are ready")
    stopped, _ = workers(service)
    os.kill(stopped, signal.SIGSTOP)
    denied.write_text(LIST)
    service.process.send_signal(signal.SIGHUP)
    service.until(rb"worker \d, [^\n]* SIGHUP: limits")
    denied.write_text("none\n")
    os.kill(stopped, signal.SIGCONT)
    service.until(rb"worker \d, [^\n]* SIGHUP: limits(?s:.*)worker \d, [^\n]* SIGHUP: limits")
    assert twice(service) == {REFUSED}
    service.stop()
