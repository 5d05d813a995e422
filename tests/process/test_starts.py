"""What keeps the service from starting: one line that names it, status 1, nothing left behind."""

import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from twisted.python.usage import UsageError

from sockservice.daemon.options import Options
from sockservice.daemon.rundir import usable
from tests.certificates import Identity
from tests.conftest import SCRIPTS, Children, Running, unprivileged
from tests.process.test_workers import ask

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

HERE = "interface=127.0.0.1"

PROTOCOLS = """\
from sockservice import LineServer


class Raising(LineServer):
    def __init__(self):
        raise RuntimeError("two\\nlines")


class Other:
    pass
"""

#: The options, and all that is said; {folder} is where it is started, {port} one that is taken.
WRONG = [
    ("--port 99999", "--port 99999: not a port number, a whole number from 0 to 65535"),
    ("--port", "option --port requires argument"),
    ("--port {port}", "cannot listen on tcp:127.0.0.1:{port}: the port is taken; *"),
    ("--port @absent", "--port @{folder}/absent: No such file or directory"),
    ("--prot 1", "option --prot not recognized"),
    ("word", "word: no option; options begin with --"),
    ("--workers 0", "--workers 0: not a number of processes, a whole number from 1 to 1024"),
    ("--line-limit 0", "--line-limit 0: not a number of bytes, a whole number from 1 to *"),
    ("--memory-limit 5X", "--memory-limit 5X: not a number with a unit, as 500M"),
    ("--host 192.0.2.77 --port 0", "cannot listen on tcp:192.0.2.77:0: this host has no such *"),
    ("--host 224.0.0.1", "host '224.0.0.1': 224.0.0.1 is no address of one host; choose another"),
    ("--host nosuch.invalid", "host 'nosuch.invalid': *"),
    ("--deny @empty", "--deny @{folder}/empty: it holds no network; *"),
    ("--deny @pipe", "--deny @{folder}/pipe: it is a pipe; a regular file is wanted"),
    ("--deny @.", "--deny @{folder}: it is a folder; a regular file is wanted"),
    ("--allow 10.0.0.1/8", "--allow 10.0.0.1/8: 10.0.0.1/8 has host bits set"),
    ("--socket-option NO=1", "--socket-option NO=1: 'NO' is no socket option *"),
    ("--retain-age 1d", "--retain-age and --retain-size need a --store"),
    ("--store sqlite:", "--store sqlite:: sqlite:: no path"),
    (
        "--store other:x",
        "--store other:x: no store called 'other'; there is sqlite:PATH, nats://HOST/STREAM",
    ),
    ("--port 0 --store sqlite:.", "store .: it is no file, but a folder or a device"),
    ("--port 0 --store sqlite:pipe", "store pipe: it is no file, but a folder or a device"),
    ("--port 0 --store sqlite:text", "store text: the file is no database"),
    ("--port 0 --store sqlite:no/x", "store no/x: No such file or directory"),
    ("--ready-file no/x", "--ready-file no/x: there is no such folder"),
    ("--ready-file pipe", "--ready-file pipe: it is no regular file"),
    ("--listen nosuch@tcp:0", "--listen nosuch@tcp:0: no such protocol: nosuch; *"),
    ("--listen no.Such@tcp:0", "--listen no.Such@tcp:0: no such module: no"),
    ("--listen wrong.No@tcp:0", "--listen wrong.No@tcp:0: module wrong has no class No"),
    ("--listen wrong.Other@tcp:0", "--listen wrong.Other@tcp:0: wrong.Other is neither a Line*"),
    (
        "--listen wrong.Raising@tcp:0",
        r"--listen wrong.Raising@tcp:0: wrong.Raising cannot be made: RuntimeError: two\nlines",
    ),
    ("--listen torn.X@tcp:0", "--listen torn.X@tcp:0: importing torn failed: SyntaxError: *"),
    ("--listen udp:0 --listen unix:s --listen tcp:x", "bad endpoint tcp:x: 'x' is not a port *"),
    ("--listen unix:text", "cannot listen on text: there is a file of that name, and it is no *"),
    ("--listen unix:s --listen unix:s", "cannot listen on s: another program or listener has it"),
    ("--listen ack@", "bad endpoint '': it begins with no scheme"),
    ("--listen unix:/proc/s", "cannot listen on /proc/s: No such file or directory"),
    ("--listen unix:no/s", "cannot listen on no/s: there is no folder no"),
    ("--listen haproxy:udp:0", "haproxy:udp:0: a PROXY header can only stand before a stream"),
    ("--listen raw:nosuch0", "raw:nosuch0: No such device"),
    ("--listen ssl:0", "ssl: server.pem: No such file or directory"),
    ("--listen ssl:0:privateKey=pipe", "ssl: pipe: it is a pipe; a regular file is wanted"),
    ("--listen ssl:0:privateKey=text", "ssl: text holds no certificate in PEM"),
    ("--listen ssl:0:privateKey=other.key:certKey=server.crt", "ssl: the private key in other.*"),
    ("--listen ssl:0:privateKey=locked.key:certKey=server.crt", "ssl: the private key in locked*"),
    ("--listen ssl:0:privateKey=", "ssl: an option names no file"),
    ("--listen ssl:0:privateKey=server.key:certKey=server.crt:sslmethod=X", "ssl: there is no m*"),
    ("--listen ssl:0:privateKey=server.key:certKey=server.crt:caCerts=server.key", "ssl: server.*"),
    ("--listen haproxy:", "bad endpoint haproxy:: it names no endpoint behind the proxy"),
    ("--listen haproxy:ssl:0", "ssl: server.pem: No such file or directory"),
    ("--listen nosuch:5", "bad endpoint nosuch:5: Unknown endpoint type: 'nosuch'"),
    ("--listen session@tcp:0", "--listen session@tcp:0: session stores lines: it needs --store"),
    ("--listen session@udp:0 --store sqlite:x", "--listen session@udp:0: session is no protocol *"),
    ("--listen ack@raw:lo", "--listen ack@raw:lo: ack is no protocol for raw frames"),
    ("--listen unix:", "cannot listen on unix:: a socket's path has 1 to 107 bytes, this one 0"),
    ("--listen unix:s:mode=999", "cannot listen on s: mode=999 is no octal number"),
    ("--listen tcp:0:backlog=-1", "tcp:0:backlog=-1: backlog=-1 is not a number of connections"),
    ("--start-timeout x", "--start-timeout x: not a number of seconds, a whole number from 0 *"),
    ("--reload-timeout 0", "--reload-timeout 0: not a number of seconds, a whole number from 1 *"),
    ("--log-queue 0", "--log-queue 0: not a number with a unit, as 64M"),
    ("--listen systemd:", "systemd: no socket was passed to this process *"),
]

#: twistd's own options, and what is said.
ELSEWHERE = [
    ("--pidfile=no/x", "--pidfile no/x: there is no such folder; --pidfile= writes none"),
    ("--pidfile=pipe", "--pidfile pipe: it is no regular file; --pidfile= writes none"),
    ("--pidfile= --logfile=no/x", "--logfile no/x: there is no such folder"),
    ("--pidfile= --rundir=no", "--rundir no: there is no such folder"),
    ("--pidfile= --rundir=text", "--rundir text: there is no such folder"),
    ("--pidfile= --uid=99999999999", "--uid 99999999999: there is no such number"),
    ("--pidfile= --uid=64999", "--uid 64999: there is no such user"),
    ("--pidfile= --chroot=no", "--chroot no: there is no such folder"),
]


@pytest.fixture
def port() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as held:
        yield held.getsockname()[1]


@pytest.fixture
def folder(tmp_path: Path, server: Identity, authority: Identity) -> Path:
    (tmp_path / "wrong.py").write_text(PROTOCOLS)
    (tmp_path / "torn.py").write_text("def (")
    (tmp_path / "text").write_text("text\n")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    Identity(tmp_path, "server", authority).lock()
    Identity(tmp_path, "other", authority)
    return tmp_path


def told(children: Children, *command: str) -> str:
    """Run what cannot start; give the one line that it says."""
    before = set(os.listdir(children.folder))
    done = children.run(*command, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 1, done
    assert b"listening on" not in done.stdout
    assert set(os.listdir(children.folder)) == before
    [said] = done.stderr.decode().splitlines()
    assert said.startswith("sockservice: ")
    return said.removeprefix("sockservice: ")


def meets(said: str, wanted: str) -> bool:
    """Whether what was said is what is wanted, which may end with `*` for the rest."""
    return said.startswith(wanted[:-1]) if wanted.endswith("*") else said == wanted


@pytest.mark.parametrize(("options", "wanted"), WRONG)
def test_what_is_wrong_is_one_line(
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    folder: Path,
    port: int,
    options: str,
    wanted: str,
) -> None:
    """As twistd has it: the options, then the service."""
    if "raw:" in options and os.geteuid() != 0:
        pytest.skip("only root has packet sockets")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(Options, "parent", {}, raising=False)
    before = set(os.listdir())
    with pytest.raises(SystemExit) as ended:
        running.start(*options.format(port=port).split())
    assert ended.value.code == 1
    assert running.addresses == []
    assert set(os.listdir()) == before
    [said] = capfd.readouterr().err.splitlines()
    assert meets(said, "sockservice: " + wanted.format(port=port, folder=folder)), said


@pytest.mark.parametrize(("options", "wanted"), ELSEWHERE)
def test_what_twistd_would_fail_at_is_one_line(
    children: Children, folder: Path, options: str, wanted: str
) -> None:
    said = told(children, "twistd", "-n", *options.split(), "sockservice", "--port", "0")
    assert said == wanted


@pytest.mark.parametrize("option", ["uid", "gid"])
def test_only_root_may_become_another(option: str) -> None:
    with unprivileged(), pytest.raises(UsageError) as refused:
        usable({option: os.geteuid() + 1})
    assert str(refused.value).endswith(": only root may do that")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve_says_the_same(children: Children, folder: Path, port: int, workers: str) -> None:
    words = ("--port", "0", "--listen", f"tcp:{port}:{HERE}", "--workers", workers)
    said = told(children, "sockservice", "serve", *words)
    assert said.startswith(f"cannot listen on tcp:127.0.0.1:{port}: the port is taken; ")


def test_more_listeners_than_files_may_be_open(children: Children) -> None:
    words = [word for number in range(100) for word in ("--listen", f"unix:s{number}")]
    script = 'ulimit -n 64; exec "$0" -n --pidfile= sockservice "$@"'
    done = children.run("/bin/bash", "-c", script, str(SCRIPTS / "twistd"), *words)
    assert done.returncode == 1
    [said] = done.stderr.decode().splitlines()
    assert said.endswith(": too many open files; 64 are allowed (ulimit -n, LimitNOFILE=)")
    assert os.listdir(children.folder) == []


def test_as_many_files_are_opened_as_the_hard_limit_allows(children: Children) -> None:
    words = [word for number in range(100) for word in ("--listen", f"unix:s{number}")]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        service = children.serve(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with closing(service.connected()) as peer:
        ask(peer, 1)
    service.stop()
