"""`--check`: what would be served, in words, and nothing is bound or changed by that."""

import os
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sockservice.daemon.checking import Checked
from sockservice.store.engine import Retention
from tests.certificates import Identity
from tests.conftest import Children
from tests.process.test_starts import HERE, PROTOCOLS, WRONG, folder, meets
from tests.process.test_workers import ask

__all__ = ["folder"]

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

#: What only binding tells, or opening the store.
UNKNOWN = ("{port}", "192.0.2.77", "systemd:", "unix:s --listen unix:s", "unix:/proc/")

Check = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def check(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Check:
    """Check options in a folder as twistd has it; give the status, stdout and stderr."""

    def checked(*words: str, **twistd: str) -> tuple[int, list[str], list[str]]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
        monkeypatch.setattr(Checked, "parent", twistd, raising=False)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as ended:
            Checked().parseOptions(["--check", *words])
        assert sorted(tmp_path.rglob("*")) == before
        said = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out.splitlines(), said.err.splitlines()

    return checked


def test_all_that_would_be_served_is_told(check: Check, tmp_path: Path) -> None:
    (tmp_path / "shouts.py").write_text(
        "from sockservice import LineServer\n\n\nclass Shouts(LineServer):\n    datagrams = True\n"
        "    def answer(self, line):\n        return line\n"
    )
    (tmp_path / "deny").write_text("192.0.2.0/24\n198.51.100.0/24\n")
    status, said, errors = check(
        *("--port", "5", "--listen", "shouts.Shouts@unix:s", "--listen", "shouts.Shouts@udp:6"),
        *("--listen", f"haproxy:tcp:7:{HERE}", "--store", "sqlite:x", "--deny", "@deny"),
        *("--line-limit", "7", "--verbose", "--socket-option", "SO_KEEPALIVE=1"),
    )
    assert (status, errors) == (0, [])
    assert said == [
        "ack would listen on tcp:127.0.0.1:5",
        "echo would listen on udp:127.0.0.1:5",
        "shouts.Shouts would listen on unix:s",
        "shouts.Shouts would listen on udp:0.0.0.0:6",
        "ack would listen on haproxy:tcp:127.0.0.1:7",
        "store sqlite:x: to be created",
        "--socket-option SO_KEEPALIVE=1, not off",
        "--deny 2 networks, not off",
        "--line-limit 7 bytes, not 65536 bytes",
        "--verbose",
    ]


def test_the_defaults_are_told_by_what_they_serve(check: Check) -> None:
    said = ["ack would listen on tcp:127.0.0.1:555", "echo would listen on udp:127.0.0.1:555"]
    assert check() == (0, said, [])


@pytest.mark.parametrize(
    ("options", "wanted"),
    [each for each in WRONG if not any(word in each[0] for word in UNKNOWN)],
)
@pytest.mark.usefixtures("folder")
def test_what_would_keep_it_from_starting_is_told_in_the_same_words(
    check: Check, tmp_path: Path, options: str, wanted: str
) -> None:
    status, said, errors = check(*options.split())
    assert (status, said) == (1, [])
    [error] = errors
    assert meets(error, "sockservice: " + wanted.format(folder=tmp_path)), error


def test_each_error_is_one_line(check: Check, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(PROTOCOLS)
    status, said, errors = check(
        *("--listen", "nosuch@tcp:0", "--listen", "wrong.Raising@tcp:0", "--listen", "ssl:0"),
        *("--listen", "tcp:0", "--listen", "udp:5", "--listen", "udp:5", "--store", "sqlite:no/x"),
    )
    assert (status, said) == (1, [])
    assert [each.partition(": no such")[0] for each in errors] == [
        "sockservice: --listen nosuch@tcp:0",
        "sockservice: --listen wrong.Raising@tcp:0: wrong.Raising cannot be made: RuntimeError: "
        r"two\nlines",
        "sockservice: ssl: server.pem: No such file or directory",
        "sockservice: cannot listen on udp:0.0.0.0:5: another listener has it",
        "sockservice: store no/x: No such file or directory",
    ]


def test_each_error_of_a_file_is_one_line(check: Check, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('line-limt = 5\nport = "x"\nverbose = 1\nbacklog = 0\n')
    status, said, errors = check("--config", "s.toml")
    assert (status, said) == (1, [])
    start = f"sockservice: --config {tmp_path}/s.toml: "
    assert [each.removeprefix(start).partition(":")[0] for each in errors] == [
        "unknown key line-limt; did you mean line-limit?",
        "verbose = 1",
        'port = "x"',
        "backlog = 0",
    ]


def test_sockets_from_systemd_are_not_missed(check: Check, tmp_path: Path) -> None:
    (tmp_path / "beeps.py").write_text(
        "from sockservice import DatagramServer\n\n\nclass Beeps(DatagramServer):\n    pass\n"
    )
    words = ("--listen", "systemd:index=2", "--listen", "beeps.Beeps@systemd:name=b")
    assert check(*words) == (
        0,
        [
            "ack would listen on systemd:index=2, as soon as it is passed",
            "beeps.Beeps would listen on systemd:name=b, as soon as it is passed",
        ],
        [],
    )
    status, _, errors = check("--listen", "nosuch@systemd:")
    assert status == 1 and errors[0].startswith("sockservice: --listen nosuch@systemd:: no such")


def test_what_workers_cannot_share_is_an_error(check: Check) -> None:
    status, _, errors = check("--workers", "2", "--listen", "stdio:")
    assert (status, errors) == (
        1,
        ["sockservice: --listen stdio:: stdio: this endpoint can't be shared by workers"],
    )
    assert check("--listen", "stdio:")[:2] == (0, ["ack would listen on stdio"])


def test_it_looks_where_twistd_would_run(check: Check, tmp_path: Path, server: Identity) -> None:
    (tmp_path / "run").mkdir()
    for each in (server.privateKey, server.certKey):
        (tmp_path / "run" / each.name).write_bytes(each.read_bytes())
    listen = "ssl:0:privateKey=server.key:certKey=server.crt"
    status, said, errors = check("--listen", listen, rundir=str(tmp_path / "run"))
    assert (status, said, errors) == (0, ["ack would listen on ssl:0.0.0.0:0"], [])
    assert check("--listen", listen)[0] == 1


class Looked:
    """An engine of one's own that can be looked at."""

    def __init__(self, place: str, retention: Retention) -> None:
        self.place = place

    def check(self) -> str:
        return f"{self.place} is there"


class Closed(Looked):
    """One that cannot."""

    check = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("engine", "said"), [("Looked", "here is there"), ("Closed", "not looked at")]
)
def test_an_engine_of_ones_own_is_asked_if_it_can(check: Check, engine: str, said: str) -> None:
    store = f"{__name__}.{engine}:here"
    assert check("--port", "0", "--store", store)[1][2:] == [f"store {store}: {said}"]


def changed(folder: Path) -> dict[Path, int]:
    """When each file was changed last; the store's own bookkeeping aside."""
    found = (each for each in folder.rglob("*") if each.name not in ("x-shm", "x-wal"))
    return {each: each.stat().st_mtime_ns for each in found}


def test_a_service_that_runs_is_left_alone(children: Children, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(
        'store = "sqlite:x"\nworkers = 2\n[[listen]]\nendpoint = "unix:s"\nmode = 600\n'
    )
    served = ("--config", "s.toml", "--ready-file", "ready")
    service = children.serve(*served, before=("-n", "--pidfile=pid"))
    host, port = service.address
    with closing(service.connected()) as peer:
        ask(peer, 1)
        before = {
            each: each.stat().st_mtime_ns for each in tmp_path.rglob("*") if each.name != "x-shm"
        }
        for command in (("twistd", "--pidfile=pid", "sockservice"), ("sockservice", "serve")):
            done = children.run(
                *(*command, "--check", "--host", host, "--port", str(port), *served),
                env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "no")},
            )
            assert (done.returncode, done.stderr) == (0, b"")
            assert done.stdout.decode().splitlines() == [
                f"ack would listen on tcp:{host}:{port}",
                f"echo would listen on udp:{host}:{port}",
                "ack would listen on unix:s",
                "store sqlite:x: exists",
                f"--config {tmp_path}/s.toml, not off",
                "--workers 2, not 1",
                "--ready-file ready, not off",
            ]
        after = {
            each: each.stat().st_mtime_ns for each in tmp_path.rglob("*") if each.name != "x-shm"
        }
        assert after == before
        ask(peer, 1)
    with closing(socket.socket(socket.AF_UNIX)) as local:
        local.connect(str(tmp_path / "s"))
        ask(local, 1)
    service.stop()
