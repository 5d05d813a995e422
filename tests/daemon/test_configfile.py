"""The file of `--config`: what it may say, what is told of the rest, and when it is read again."""

import os
import signal
from collections.abc import Callable
from contextlib import closing
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from twisted.python import usage

from sockservice.daemon.options import Options
from sockservice.limits.settings import SETTINGS
from tests.conftest import PATIENCE, Children, HandReactor, Log, Running
from tests.daemon.test_reload import READ, hangUp
from tests.daemon.test_tap import parsed
from tests.process.test_workers import ask


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    def write(*lines: str) -> str:
        (tmp_path / "s.toml").write_text("".join(f"{line}\n" for line in lines))
        return str(tmp_path / "s.toml")

    return write


def test_every_option_may_stand_in_a_file(written: Callable[..., str]) -> None:
    assert {each.name for each in SETTINGS if each.reader is None} >= {"verbose", "resolve"}
    for each in SETTINGS:
        if each.name == "config":
            continue
        if each.reader is None:
            file = written(f"{each.name} = true")
            assert parsed("--config", file)[each.name] is True
            assert parsed("--config", written(f"{each.name} = false"))[each.name] is False
            continue
        text = {"NETWORK": "192.0.2.1", "NAME=VALUE": "SO_RCVBUF=7", "ENGINE:PLACE": "sqlite:x"}
        said = text.get(each.reader.stands, "7")
        lines = [f'{each.name} = ["{said}"]' if each.repeated else f'{each.name} = "{said}"']
        if each.name.startswith("retain"):
            lines.append('store = "sqlite:x"')
        options = parsed("--config", written(*lines))
        assert options[each.name] == each.coerce(said)
        assert each.name in options.chosen


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("line-limit = 1_000", "line-limit", 1000),
        ('memory-limit = "256M"', "memory-limit", 256 << 20),
        ("memory-limit = 1000", "memory-limit", 1000),
        ('retain-age = "30d"\nstore = "sqlite:x"', "retain-age", 30 * 86400),
        ("port = 0", "port", 0),
        ('host = "::1"', "host", "::1"),
        ('allow = "192.0.2.0/24"', "allow", [IPv4Network("192.0.2.0/24")]),
        ("allow = []", "allow", []),
        ('listen = ["ack@tcp:5", "udp:6"]', "listen", ["ack@tcp:5", "udp:6"]),
        ('[[listen]]\nendpoint = "tcp:5"', "listen", ["tcp:5"]),
        (
            '[[listen]]\nprotocol = "a.B:x=1"\nendpoint = "tcp:5"\ninterface = "::1"\nbacklog = 7',
            "listen",
            [r"a.B:x=1@tcp:5:interface=\:\:1:backlog=7"],
        ),
        (
            '[[listen]]\nendpoint = "ssl:5"\nprivateKey = "a:b=c\\\\d"',
            "listen",
            [r"ssl:5:privateKey=a\:b\=c\\d"],
        ),
    ],
)
def test_a_value_is_written_as_toml_has_it(
    written: Callable[..., str], line: str, name: str, value: object
) -> None:
    assert parsed("--config", written(line))[name] == value


def test_the_command_line_wins(written: Callable[..., str]) -> None:
    file = written(
        "line-limit = 5",
        "line-rate = 5",
        'deny = ["192.0.2.1", "192.0.2.2"]',
        "verbose = false",
        "backlog = 5",
    )
    options = parsed(
        *("--line-limit", "7", "--line-rate", "0", "--deny", "192.0.2.3", "--verbose"),
        *("--config", file),
    )
    assert (options["line-limit"], options["line-rate"], options["backlog"]) == (7, 0, 5)
    assert options["deny"] == [IPv4Network("192.0.2.3/32")]
    assert options["verbose"] is True


def test_an_empty_list_that_is_asked_for_lets_in_nobody(written: Callable[..., str]) -> None:
    assert not parsed("--config", written("allow = []")).limits().access.permits("192.0.2.1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("line-limt = 5\n", "unknown key line-limt; did you mean line-limit?"),
        ("line_limit = 5\n", "unknown key line_limit; did you mean line-limit?"),
        ('config = "x"\n', "unknown key config*"),
        ("[server]\nport = 5\n", "unknown key server*"),
        ('"a\\nb" = 5\n', "unknown key a\\nb"),
        ("line-limit = 1.5\n", "line-limit = 1.5: a whole number or a text is wanted"),
        ("line-limit = true\n", "line-limit = true: a whole number or a text is wanted"),
        ("line-limit = [5]\n", "line-limit = [5]: a whole number or a text is wanted"),
        ("line-limit = 2026-01-01\n", 'line-limit = "2026-01-01": a whole number or a text *'),
        ("line-limit = 0\n", "line-limit = 0: not a number of bytes, a whole number from 1 to *"),
        ("line-limit = -1\n", "line-limit = -1: not a number of bytes, a whole number from 1 to *"),
        ('line-limit = "@no"\n', 'line-limit = "@no": No such file or directory'),
        ('memory-limit = "5X"\n', 'memory-limit = "5X": not a number with a unit, as 500M'),
        ("host = 5\n", "host = 5: a text is wanted"),
        ('host = ""\n', 'host = "": --host: empty; *'),
        ('verbose = "yes"\n', 'verbose = "yes": true or false is wanted'),
        ("verbose = 1\n", "verbose = 1: true or false is wanted"),
        ("allow = [5]\n", "allow = [5]: a text or a list of texts is wanted"),
        ('allow = ["x"]\n', "allow = \"x\": 'x' does not appear to be an IPv4 or IPv6 network"),
        ('socket-option = "NO=1"\n', "socket-option = \"NO=1\": 'NO' is no socket option *"),
        ('listen = "tcp:5"\n', 'listen = "tcp:5": tables [[listen]] or a list of texts is wanted'),
        ("listen = [5]\n", "listen = [5]: tables [[listen]] or a list of texts is wanted"),
        ('[[listen]]\nendpont = "tcp:5"\n', "listen 1 has no endpoint; did you mean endpoint?"),
        ('[[listen]]\nprotocol = "ack"\n', "listen 1 has no endpoint"),
        ("[[listen]]\nendpoint = 5\n", "listen 1: endpoint = 5: a text is wanted"),
        (
            '[[listen]]\nendpoint = "tcp:5"\nbacklog = true\n',
            "listen 1: backlog = true: a text or a whole number is wanted",
        ),
        (f'store = ["{"x" * 99}"]\n', f'store = ["{"x" * 55}...: a text is wanted'),
        ('store = "other:x"\n', "--store other:x: no store called 'other'; *"),
        ("line-limit = 5\nline-limit = 6\n", "Cannot overwrite a value (at line 2, column 15)"),
        ("line-limit\n", "Expected '=' after a key in a key/value pair (at line 1, column 11)"),
        ("line-limit = 5", "its last line does not end, and may be half of one"),
        ("", "it holds no setting"),
        ("# nothing\n", "it holds no setting"),
        ("# \udcff\n", "not in UTF-8 (at line 1)"),
        (f"line-limit = {'[' * 5000}\n", "nested too deeply"),
        (f"line-limit = {'9' * 5000}\n", "*"),
        (f"# {'x' * (5 << 20)}\n", "longer than 4 MiB"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "s.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(usage.UsageError) as problem:
        parsed("--config", str(file))
    found = str(problem.value)
    assert found.isprintable() and len(found) < 300
    if not said.startswith("--"):
        assert found.startswith(f"--config {file}: ")
        found = found.removeprefix(f"--config {file}: ").replace(f"{os.getcwd()}/", "")
    assert found.startswith(said[:-1]) if said.endswith("*") else found == said


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, why in (
        ("pipe", "it is a pipe; a regular file is wanted"),
        (".", "it is a folder; a regular file is wanted"),
        ("absent", "No such file or directory"),
    ):
        with pytest.raises(usage.UsageError) as problem:
            parsed(f"--config={tmp_path}/{name}")
        assert str(problem.value).endswith(f"{why}")


def test_paths_are_found_from_where_the_service_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: Callable[..., str]
) -> None:
    written('line-limit = "@limit"')
    (tmp_path / "limit").write_text("77\n")
    options = Options()
    monkeypatch.setattr(options, "parent", {"rundir": str(tmp_path)}, raising=False)
    options.parseOptions(["--config", "s.toml"])
    assert options["line-limit"] == 77
    assert options.given == ["--config", f"{tmp_path}/s.toml"]
    # twistd goes there.
    monkeypatch.chdir(tmp_path)
    assert options.again()["line-limit"] == 77


def test_a_limit_is_read_again_and_what_needs_a_restart_is_told(
    running: Running, reactor: HandReactor, log: Log, written: Callable[..., str]
) -> None:
    file = written("port = 0", "line-limit = 3")
    running.start("--config", file)
    port = running.addresses[0][2]
    assert running.ask("127.0.0.1", port, b"12345\n") == b"error line longer than 3 bytes\n"
    written("port = 0", "line-limit = 5")
    assert hangUp(reactor, log) == [READ]
    assert running.ask("127.0.0.1", port, b"12345\n") == b"ok\n"
    written("port = 5", "line-limit = 4", "verbose = true")
    assert hangUp(reactor, log) == [
        "SIGHUP: --port, --verbose: changed, which needs a restart; what was there before stays"
    ]
    assert running.ask("127.0.0.1", port, b"12345\n") == b"error line longer than 4 bytes\n"


@pytest.mark.parametrize("spoilt", ["", "allow = ", 'allow = ["127.0.0.1"', "alow = []\n", None])
def test_a_spoilt_file_changes_nothing(
    running: Running,
    reactor: HandReactor,
    log: Log,
    tmp_path: Path,
    written: Callable[..., str],
    spoilt: str | None,
) -> None:
    running.start("--config", written("port = 0", 'allow = ["192.0.2.1"]'))
    if spoilt is None:
        (tmp_path / "s.toml").unlink()
    else:
        (tmp_path / "s.toml").write_text(spoilt)
    [said] = hangUp(reactor, log)
    assert said.startswith(f"SIGHUP: --config {tmp_path}/s.toml: ")
    assert said.endswith("; what was there before stays")
    port = running.addresses[0][2]
    assert running.ask("127.0.0.1", port, b"x\n") == b"error not allowed: 127.0.0.1\n"


@pytest.mark.parametrize(
    ("key", "list", "nothing", "said"),
    [
        ("allow", '["192.0.2.1"]', '["0.0.0.0/0", "::/0"]', "if everybody may come, write allow"),
        ("deny", '["127.0.0.0/8"]', "[]", "if nobody is refused, write deny"),
    ],
)
def test_a_list_of_who_may_come_never_goes_without_a_word(
    running: Running,
    reactor: HandReactor,
    log: Log,
    written: Callable[..., str],
    key: str,
    list: str,
    nothing: str,
    said: str,
) -> None:
    file = written("port = 0", "line-limit = 5", f"{key} = {list}")
    running.start("--config", file)
    port = running.addresses[0][2]
    refused = b"error not allowed: 127.0.0.1\n"
    for _ in range(2):
        assert running.ask("127.0.0.1", port, b"x\n") == refused
        written("port = 0", "line-limit = 7")
        assert hangUp(reactor, log) == [
            f"SIGHUP: --config {file}: {key} is gone; {said} = {nothing}; what was there before "
            "stays"
        ]
    assert running.ask("127.0.0.1", port, b"x\n") == refused
    written("port = 0", f"{key} = {nothing}")
    assert hangUp(reactor, log) == [READ]
    assert running.ask("127.0.0.1", port, b"x\n") == b"ok\n"


def test_a_worker_that_starts_later_serves_what_its_parent_does(
    children: Children, tmp_path: Path, written: Callable[..., str]
) -> None:
    file = written("port = 0", "workers = 2", "line-limit = 5", 'deny = ["192.0.2.1"]')
    service = children.serve("--config", file, before=("-n", "--pidfile="))
    # It says other listeners by now, which need a restart, and another limit, which does not.
    now = ('listen = ["echo@unix:s"]', "line-limit = 7", "workers = 3")
    written(*now, "deny = []")
    service.process.send_signal(signal.SIGHUP)
    service.until(
        rb"SIGHUP: --listen, --workers: changed, which needs a restart; what was there before"
    )
    listed = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    for each in listed.read_text().split():
        os.kill(int(each), signal.SIGKILL)
    service.until(rb"(?s)takes its place.*takes its place")
    with closing(service.connected()) as peer:
        ask(peer, 1)
        peer.settimeout(PATIENCE)
        peer.sendall(b"123456789\n")
        assert peer.recv(100) == b"error line longer than 7 bytes\n"
    # What is wrong by now keeps nobody from starting, for it is not read.
    written("nonsense")
    seen = service.until(rb"closed: lines=2").end()
    for each in listed.read_text().split():
        os.kill(int(each), signal.SIGKILL)
    service.until(rb"(?s)takes its place.*takes its place", seen)
    with closing(service.connected()) as peer:
        ask(peer, 1)
        peer.settimeout(PATIENCE)
        peer.sendall(b"123456789\n")
        assert peer.recv(100) == b"error line longer than 7 bytes\n"
    service.stop()
