"""The options, the service they ask for, and how twistd finds it."""

import os
import re
import socket
import sys
from pathlib import Path

import pytest
from twisted.application.service import IService
from twisted.python import usage

from sockservice import __version__
from sockservice.cli import COMMANDS
from sockservice.daemon.options import Options
from sockservice.daemon.service import makeService
from tests.conftest import Children


def parsed(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(arguments)
    return options


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("port", value) for value in ("abc", "", "-1", "65536", "99999", " 5", "5_0", "5.0")),
        ("port", "\u0665\u0665"),
        ("port", "9" * 5000),
        *(("backlog", value) for value in ("abc", "0", "-1", "2147483648")),
        *(("line-limit", value) for value in ("abc", "0", "-1", "1e3", "1073741825")),
    ],
)
def test_a_bad_number_is_told_with_its_option_and_what_is_wanted(option: str, value: str) -> None:
    with pytest.raises(usage.UsageError) as problem:
        parsed(f"--{option}", value)
    said = str(problem.value)
    assert said.startswith(f"--{option} ")
    assert re.search(r"a whole number from \d+ to \d+$", said)


@pytest.mark.parametrize(
    ("option", "value", "given"),
    [
        ("retain-age", "90", 90),
        ("retain-age", "90m", 5400),
        ("retain-age", "48h", 172_800),
        ("retain-age", "30d", 2_592_000),
        ("retain-size", "500", 500),
        ("retain-size", "5K", 5120),
        ("retain-size", "500M", 524_288_000),
        ("retain-size", "20G", 21_474_836_480),
        ("memory-limit", "0", 0),
        ("memory-limit", "2G", 2_147_483_648),
    ],
)
def test_a_number_has_a_unit(option: str, value: str, given: int) -> None:
    assert parsed("--store", "sqlite:x", f"--{option}", value)[option] == given


@pytest.mark.parametrize("value", ["", "0", "-1", "d", "30x", "1.5d", "\u0665d", "9" * 5000])
def test_a_bad_number_with_a_unit_is_told(value: str) -> None:
    with pytest.raises(usage.UsageError) as problem:
        parsed("--store", "sqlite:x", "--retain-age", value)
    assert str(problem.value) == f"--retain-age {value}: not a number with a unit, as 30d"


@pytest.mark.parametrize(
    ("option", "text", "given"),
    [
        ("max-connections", "# as many as files may be open\n500\n", 500),
        ("memory-limit", "500M # half of it\n", 524_288_000),
        ("log-limit", "0", 0),
    ],
)
def test_a_number_may_be_in_a_file(tmp_path: Path, option: str, text: str, given: int) -> None:
    (tmp_path / "number").write_text(text)
    options = parsed(f"--{option}", f"@{tmp_path}/number")
    assert options[option] == given
    (tmp_path / "number").write_text("7")
    assert options.again()[option] == 7
    (tmp_path / "number").write_text("seven")
    with pytest.raises(usage.UsageError, match=f"^--{option} @.*/number: not a number"):
        options.again()


def test_retention_without_a_store_is_told() -> None:
    with pytest.raises(usage.UsageError, match="--retain-age and --retain-size need a --store"):
        parsed("--retain-age", "30d")


def test_a_store_of_no_known_kind_is_told() -> None:
    with pytest.raises(usage.UsageError, match="--store nosuch:x: "):
        parsed("--store", "nosuch:x")


def test_a_bad_socket_option_is_told() -> None:
    with pytest.raises(usage.UsageError) as problem:
        parsed("--socket-option", "NODELAY=1")
    assert str(problem.value) == (
        "--socket-option NODELAY=1: 'NODELAY' is no socket option "
        "(as SO_RCVBUF, TCP_NODELAY, IP_TOS)"
    )


def test_an_empty_host_is_told() -> None:
    with pytest.raises(usage.UsageError, match="--host: empty"):
        parsed("--host", "")


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["argument"], ["--port"], ["--verbose", "1"], ["-x"]]
)
def test_what_is_no_option_is_told(arguments: list[str]) -> None:
    with pytest.raises(usage.UsageError):
        parsed(*arguments)


@pytest.mark.parametrize(
    ("arguments", "option", "value"),
    [
        ([], "backlog", 4096),
        ([], "line-limit", 65536),
        ([], "verbose", 0),
        (["--port", "0"], "port", 0),
        (["-p", "65535"], "port", 65535),
        (["--line-limit", "1"], "line-limit", 1),
        (["--backlog", "1"], "backlog", 1),
        (["--host", "::"], "host", "::"),
        (["--verbose"], "verbose", 1),
    ],
)
def test_options_have_values(arguments: list[str], option: str, value: object) -> None:
    assert parsed(*arguments)[option] == value


def test_networks_may_be_in_a_file_and_none_is_nobody(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("# later\r\nnone # so far\r\n")
    assert parsed("--deny", f"@{file}").limits().access.everybody
    assert not parsed("--allow", f"@{file}").limits().access.permits("127.0.0.1")
    file.write_text("::ffff:127.0.0.0/104 # here\r\n\r\n")
    assert parsed("--allow", f"@{file}").limits().access.permits("127.0.0.1")


@pytest.mark.parametrize("words", [["--max-connections", "@n@"], ["--max-connections=@n@"]])
def test_a_file_is_read_again_where_it_was_though_the_folder_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    (tmp_path / "n@").write_text("7")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    options = parsed(*words)
    monkeypatch.chdir(tmp_path / "other")
    assert options.again().again()["max-connections"] == 7


@pytest.mark.parametrize("option", ["--bad\x1b\n", "--allow=\x1b\n", "--listen"])
def test_twistd_gets_one_line_of_what_is_wrong(
    capsys: pytest.CaptureFixture[str], option: str
) -> None:
    options = Options()
    options.parent = usage.Options()
    with pytest.raises(SystemExit) as ended:
        options.parseOptions([option])
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("sockservice: ") and len(said.err.splitlines()) == 1
    assert "\x1b" not in said.err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed("--version")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"sockservice {__version__}\n"


def bound_ports() -> list[object]:
    """Give the addresses this process has sockets bound to."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            copy = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue  # no socket, or the listing's own
        with copy:
            if copy.family in (socket.AF_INET, socket.AF_INET6):
                found.append(copy.getsockname())
    return sorted(found)


def test_making_the_service_binds_nothing() -> None:
    before = bound_ports()
    service = makeService(parsed("--port", "0"))
    assert IService.providedBy(service)
    assert bound_ports() == before


def test_the_help_tells_every_option_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    told = " ".join(capsys.readouterr().out.split())
    for option in ("--host=", "-p, --port=", "--backlog=", "--line-limit=", "--verbose"):
        assert option in told
    for default in ("127.0.0.1", "555", "4096", "65536"):
        assert default in told


CHILD = """
import contextlib, sys
{}
print(*sorted(name for name in sys.modules if name.split(".")[0] == "sockservice"))
print("twisted.internet.reactor" in sys.modules)
"""


def child(children: Children, code: str) -> tuple[list[str], list[str], bool]:
    """Run code; give what it prints, which of our modules it imports, and if any reactor."""
    done = children.run(sys.executable, "-c", CHILD.format(code))
    assert done.stderr == b""
    *printed, modules, reactor = done.stdout.decode().splitlines()
    return printed, modules.split(), reactor == "True"


def test_importing_the_package_installs_no_reactor(children: Children) -> None:
    imported = ", ".join(f"sockservice.cli.{module}" for module in COMMANDS.values())
    _, modules, reactor = child(children, f"import {imported}")
    assert "sockservice.cli.send.command" in modules
    assert not reactor


@pytest.mark.parametrize("command", ["backup", "compact", "lines", "sessions", "verify"])
def test_what_reads_a_store_needs_no_network(children: Children, command: str) -> None:
    said = f"from sockservice.cli import main; main(['{command}', '--help'], standalone_mode=False)"
    _, modules, _ = child(children, f"with contextlib.redirect_stdout(None): {said}")
    assert f"sockservice.cli.{command}" in modules
    assert [name for name in modules if re.match(r"sockservice\.(client|net|server)", name)] == []


def test_twistd_lists_it_and_imports_nothing_of_it_but_the_plugin(children: Children) -> None:
    printed, modules, _ = child(
        children,
        "from twisted.scripts.twistd import run\n"
        "sys.argv = ['twistd', '--help']\n"
        "with contextlib.suppress(SystemExit):\n"
        "    run()",
    )
    assert [line for line in printed if line.split()[:1] == ["sockservice"]]
    assert modules == []


def test_the_plugin_is_found_and_leads_to_the_options(children: Children) -> None:
    printed, _, reactor = child(
        children,
        "from twisted.application.service import IServiceMaker\n"
        "from twisted.plugin import getPlugins\n"
        "found = [each for each in getPlugins(IServiceMaker) if each.tapname == 'sockservice']\n"
        "print(len(found), found[0].options.__name__, found[0].makeService.__module__)",
    )
    assert printed == ["1 Checked sockservice.daemon.service"]
    assert not reactor


def test_the_plugin_folder_is_no_package() -> None:
    """With an `__init__.py` it would hide Twisted's own plugins."""
    folder = Path(__file__).parents[2] / "twisted" / "plugins"
    assert (folder / "sockservice_plugin.py").exists()
    assert not (folder / "__init__.py").exists()
    assert not (folder.parent / "__init__.py").exists()
