"""How commands reach a target: options, the environment and the file of settings, and words."""

import os
import resource
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from sockservice.cli import main
from sockservice.cli.configuration import Broken, Configuration, place
from sockservice.cli.reaching import OPTIONS
from sockservice.client.targets import applicable
from tests.certificates import Identity
from tests.cli.test_cli import outcome, tcp
from tests.conftest import SCRIPTS, Child, Children, Service


def used(folder: Path, text: str) -> dict[str, str]:
    """Write a file of settings; give the environment in which it is used."""
    (folder / "client.toml").write_text(text)
    return os.environ | {"SOCKSERVICE_CONFIG": str(folder / "client.toml")}


# What is told


@pytest.mark.parametrize(
    "command", [["send"], ["ping"], ["bench"], ["send", "--retry"], ["send", "--json"]]
)
@pytest.mark.parametrize(
    "target", ["unix:/nowhere/\x1b[31m\n", "udp:\x1b[31m:5", "tls:\x1b[31m.invalid:5", "\x1b[31m"]
)
def test_a_target_does_not_control_the_terminal(command: list[str], target: str) -> None:
    if "--retry" in command and not target.startswith("\x1b"):
        pytest.skip("it would be tried again and again")
    given = [*command, target, *(["a"] if command[0] == "send" else [])]
    done = subprocess.run(
        [str(SCRIPTS / "sockservice"), *given],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.returncode in (2, 3)
    assert b"\x1b" not in done.stdout + done.stderr
    assert done.stderr.count(b"\n") == 1
    assert rb"\x1b[31m" in done.stderr


@pytest.mark.parametrize("most", [5, 6, 7, 8])
def test_no_descriptors_are_told_at_once(children: Children, most: int) -> None:
    done = children.run(
        "sockservice", "send", "localhost:5", "a",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)),
    )  # fmt: skip
    status, _, said = outcome(done)
    assert status == 3
    assert said.count("\n") <= 1
    assert "Too many open files" in said


def test_a_connection_is_described(children: Children, service: Service) -> None:
    done = children.run("sockservice", "send", "-v", tcp(service), "a")
    assert outcome(done) == (0, b"ok\n", f"* connected to {tcp(service).removeprefix('tcp:')}\n")
    target = tcp(service).replace("tcp", "udp")
    done = children.run("sockservice", "send", "-4v", target, "a")
    assert outcome(done) == (0, b"a\n", f"* datagrams to {target.removeprefix('udp:')}\n")
    for command in (["ping", "--count", "1"], ["bench", "--duration", "0.1"]):
        done = children.run("sockservice", *command, "-v", tcp(service))
        assert outcome(done)[2] == f"* connected to {tcp(service).removeprefix('tcp:')}\n"


def test_a_server_is_described(
    children: Children, server: Identity, authority: Identity, tmp_path: Path
) -> None:
    listened = f"ack@ssl:0:interface=127.0.0.1:{server.said}"
    service = Child(
        children.start("twistd", "-n", "--pidfile=", "sockservice", "--listen", listened)
    )
    number = service.until(rb"listening on \w+:127.0.0.1:(\d+)")[1].decode()
    options = ["--cafile", str(authority.certKey), "--tls-min", "1.3"]
    target = f"tls:127.0.0.1:{number}"
    done = children.run("sockservice", "send", "-v", *options, target, "a")
    status, printed, said = outcome(done)
    assert (status, printed) == (0, b"ok\n")
    assert f"* connected to 127.0.0.1:{number}\n* TLSv1.3, " in said
    assert "\n* the server's certificate: " in said
    assert "CN=server" in said
    assert "\n* issued by: " in said
    assert "\n* valid until: 20" in said
    # The same from a file, seen from its folder, and by a name.
    environment = used(
        tmp_path,
        f"target = 'here'\ncafile = '{os.path.relpath(authority.certKey, tmp_path)}'\n"
        f"[targets]\nhere = '{target}'\n",
    )
    done = children.run("sockservice", "ping", "--count", "1", "--quiet", env=environment)
    assert done.returncode == 0
    service.process.terminate()
    service.end()


# Where it is said


def test_what_is_given_wins_over_the_environment_and_that_over_the_file(
    children: Children, service: Service, tmp_path: Path
) -> None:
    environment = used(
        tmp_path,
        f"""
        target = "here"
        source = "192.0.2.1"
        ip = 4
        alpn = ["a", "b"]
        verify = false
        [targets]
        here = "{tcp(service)}"
        [targets.there]
        target = "{tcp(service)}"
        source = "127.0.0.3"
        connect-timeout = 7
        """,
    )
    host = "127.0.0.1"

    def said(*arguments: str, **more: str) -> str:
        done = children.run(
            "sockservice", "ping", "--count", "1", *arguments, env=environment | more
        )
        return done.stdout.decode() + done.stderr.decode()

    assert "could not connect" in said()
    assert "received 1" in said("there")
    assert "received 1" in said("--source", host)
    assert "received 1" in said(SOCKSERVICE_SOURCE=host)
    assert "received 1" in said(SOCKSERVICE_SOURCE=host, SOCKSERVICE_TARGET="there")
    assert "could not connect" in said("there", SOCKSERVICE_SOURCE="192.0.2.1")
    assert "received 1" in said("there", "--source", host, SOCKSERVICE_SOURCE="192.0.2.1")
    assert "::1 is not of the family" in said("tcp:[::1]:5", SOCKSERVICE_SOURCE=host)
    # What is said of TLS is for other targets, unless it is given for this one.
    assert "applies to tls:" in said("there", "--cafile", "x")
    assert "received 1" in said("there", SOCKSERVICE_CAFILE="x")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("cafiel = 'x'", "unknown key cafiel; did you mean cafile?"),
        ("target = 'a:1'\n[tragets]\n", "unknown key tragets; did you mean targets?"),
        ("[targets.a]\ntarget='b:1'\nserver_name = 'x'", "did you mean server-name?"),
        ("[targets.a]\ncert = 'x'", "targets.a has no target"),
        ("[targets]\na = 1", "targets.a is neither a target nor a table"),
        ("[targets]\n'a:1' = 'b:1'", "targets.a:1: a name has no colon"),
        ("targets = 1", "targets is no table"),
        ("cert = 1", "cert is not in quotes"),
        ("a = \n", "(at line 1, column 5)"),
        ("target = 'a:1'\nconnect-timeout = -1", "connect-timeout: not a number greater than 0"),
        ("target = 'a:1'\nconnect-timeout = 'x'", "connect-timeout: 'x' is not a valid float"),
        ("target = 'a:1'\nverify = 'no'", "verify is true or false"),
        ("target = 'a:1'\nip = 5", "ip: '5' is not one of '4', '6'"),
        ("target = 'a:1'\nsource = [1]", "source is neither a text nor a number"),
        ("target = 'b'\n[targets]\nbb = 'a:1'", "b is neither HOST:PORT nor a target in "),
        ("target = 'b'\n[targets]\nbb = 'a:1'", "; did you mean bb?"),
    ],
)
def test_a_file_that_is_wrong_is_told(tmp_path: Path, text: str, why: str) -> None:
    done = CliRunner(env=used(tmp_path, text)).invoke(main, ["ping"])
    assert done.exit_code == 2
    said = done.stderr.splitlines()[-1]
    assert why in said
    assert str(tmp_path / "client.toml") in said


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="No such file"):
        Configuration(str(tmp_path / "none"), True, OPTIONS)
    assert Configuration(str(tmp_path / "none"), False, OPTIONS).names == []
    with pytest.raises(Broken, match="Is a directory"):
        Configuration(str(tmp_path), False, OPTIONS)
    (tmp_path / "bytes").write_bytes(b"\n\xff")
    with pytest.raises(Broken, match=r"not in UTF-8 \(at line 2\)"):
        Configuration(str(tmp_path / "bytes"), True, OPTIONS)


def test_the_file_is_where_the_others_are() -> None:
    assert place({"SOCKSERVICE_CONFIG": "x"}) == ("x", True)
    assert place({"XDG_CONFIG_HOME": "/etc/xdg"}) == ("/etc/xdg/sockservice/client.toml", False)
    home = os.path.expanduser("~/.config/sockservice/client.toml")
    assert place({}) == place({"XDG_CONFIG_HOME": "x"}) == (home, False)


def test_both_versions_of_ip_are_none() -> None:
    done = CliRunner().invoke(main, ["ping", "-4", "-6", "localhost:5"])
    assert done.exit_code == 2
    assert "-4 or -6, not both" in done.stderr


@pytest.mark.parametrize(
    ("target", "keyword", "applies"),
    [
        ("tls:a:1", "cafile", True),
        ("tls:host=a:port=1", "cafile", False),
        ("a:1", "source", True),
        ("a:1", "cafile", False),
        ("[::1]:1", "ip", True),
        ("udp:a:1", "ip", True),
        ("udp:a:1", "greeting", False),
        ("unix:/a", "ip", False),
        ("unix:/a", "timeout", True),
    ],
)
def test_what_applies_to_a_target(target: str, keyword: str, applies: bool) -> None:
    assert (keyword in applicable(target)) is applies
