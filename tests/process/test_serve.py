"""`sockservice serve` is twistd in the foreground; and what twistd itself would fail at."""

import os
import shutil
import signal
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import Child, Children, Service
from tests.process.test_early import ENGINE
from tests.process.test_workers import ask


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_serves_without_twistd_on_path(children: Children, workers: str) -> None:
    process = children.start("sockservice", "serve", "--port", "0", "--workers", workers)
    service = Service(process).listening()
    with closing(service.connected()) as peer:
        ask(peer, 1)
    service.stop()
    assert os.listdir(children.folder) == []


def test_it_has_the_same_options(children: Children) -> None:
    usages = {
        ("sockservice", "serve"): b"Usage: sockservice serve [options]\n",
        ("twistd", "sockservice"): b"Usage: twistd [options] sockservice [options]\n",
    }
    helped = []
    for command, usage in usages.items():
        said, _, options = children.run(*command, "--help").stdout.partition(b"Options:")
        assert said == usage
        helped.append(options)
    assert helped[0] == helped[1]
    assert b"--drain-timeout" in helped[0]
    done = children.run("sockservice", "serve", "--port", "abc")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"sockservice: --port abc: not a port number")


def test_told_to_end_before_it_is_ready_it_says_so(children: Children) -> None:
    (children.folder / "slow.py").write_text(ENGINE)
    os.mkfifo(children.folder / "go")
    process = children.start("sockservice", "serve", "--port", "0", "--store", "slow.Found:here")
    child = Child(process)
    child.until(rb"waiting to be found")
    process.send_signal(signal.SIGTERM)
    assert child.end() == (0, b"sockservice: SIGTERM before it was ready; ended\n")


def test_a_pidfile_that_cannot_be_written_is_one_line(children: Children) -> None:
    done = children.run("twistd", "-n", "--pidfile=nowhere/at.pid", "sockservice", "--port", "0")
    said = b"--pidfile nowhere/at.pid: there is no such folder; --pidfile= writes none\n"
    assert (done.returncode, done.stderr) == (1, b"sockservice: " + said)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can change the root")
@pytest.mark.usefixtures("elsewhere")
def test_it_serves_in_another_root(children: Children, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("hosts", "nsswitch.conf"):
        if Path("/etc", name).exists():
            (root / "etc").mkdir(exist_ok=True)
            shutil.copy(Path("/etc", name), root / "etc")
    service = children.serve(before=("-n", "--pidfile=", "--chroot", str(root)))
    with closing(service.connected()) as peer:
        ask(peer, 1)
    service.stop()
