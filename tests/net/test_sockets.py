"""Bound sockets: files in the file system, options, addresses, network interfaces."""

import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sockservice.net.bind.inet import inet
from sockservice.net.bind.options import SocketOption, socketOption
from sockservice.net.bind.raw import packet
from tests.conftest import Log, Running, Serving, received, unprivileged

LONGEST = 107  # bytes of a socket's path


def unix(path: Path, more: str = "") -> tuple[str, ...]:
    return ("--listen", f"unix:{path}{more}")


# A UNIX socket's file


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """Give a socket file as a crash leaves it behind."""
    with closing(socket.socket(socket.AF_UNIX)) as crashed:
        crashed.bind(f"{tmp_path}/s")
    return tmp_path / "s"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Path]:
    """Give the socket file of another program."""
    with closing(socket.socket(socket.AF_UNIX)) as other:
        other.bind(f"{tmp_path}/s")
        other.listen(1)
        yield tmp_path / "s"


@pytest.mark.parametrize("scheme", ["unix", "unix-seqpacket", "unix-datagram"])
async def test_a_file_that_a_crash_left_is_taken_over(
    serving: Serving, tmp_path: Path, scheme: str
) -> None:
    kind = {
        "unix": socket.SOCK_STREAM,
        "unix-seqpacket": socket.SOCK_SEQPACKET,
        "unix-datagram": socket.SOCK_DGRAM,
    }[scheme]
    with closing(socket.socket(socket.AF_UNIX, kind)) as crashed:
        crashed.bind(f"{tmp_path}/s")
    serving.start("--listen", f"ack@{scheme}:{tmp_path}/s")
    peer = serving.local(tmp_path / "s", kind, f"{tmp_path}/c")
    peer.send(b"a")
    if kind == socket.SOCK_STREAM:
        peer.send(b"\n")
    assert await received(peer, 2) == b"ok"


def test_a_file_of_a_program_that_lives_is_left_to_it(running: Running, live: Path) -> None:
    said = running.fail(*unix(live))
    assert said == f"cannot listen on {live}: another program or listener has it"
    running.local(live)


def test_a_file_of_a_program_that_is_busy_is_left_to_it(running: Running, live: Path) -> None:
    for _ in range(2):
        running.local(live)
    said = running.fail(*unix(live))
    assert said == f"cannot listen on {live}: another program or listener has it"
    assert live.exists()


def test_a_file_of_a_socket_of_another_type_is_left_to_it(running: Running, live: Path) -> None:
    said = running.fail("--listen", f"unix-datagram:{live}")
    assert said == (
        f"cannot listen on {live}: another program listens there, with another type of socket"
    )
    assert live.exists()


def test_a_file_that_is_no_socket_is_left_alone(running: Running, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    said = running.fail(*unix(tmp_path / "s"))
    assert said == (
        f"cannot listen on {tmp_path}/s: there is a file of that name, and it is no socket"
    )
    assert (tmp_path / "s").read_text() == "precious"


def test_a_missing_folder_is_told(running: Running, tmp_path: Path) -> None:
    said = running.fail(*unix(tmp_path / "missing" / "s"))
    assert said == f"cannot listen on {tmp_path}/missing/s: there is no folder {tmp_path}/missing"


def test_any_other_reason_is_the_systems_own(running: Running, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = running.fail(*unix(tmp_path / "file" / "s"))
    assert said == f"cannot listen on {tmp_path}/file/s: {os.strerror(errno.ENOTDIR)}"


def test_a_path_may_be_just_so_long(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "x" * LONGEST
    said = running.fail("--listen", f"unix:{name}x")
    assert said == (f"cannot listen on {name}x: a socket's path has 1 to 107 bytes, this one 108")
    assert not list(tmp_path.iterdir())
    running.start("--listen", f"unix:{name}")
    assert (tmp_path / name).is_socket()


def test_bytes_of_a_path_are_counted_and_not_characters(running: Running) -> None:
    said = running.fail("--listen", "unix:" + "\u20ac" * 36)
    escaped = r"\u20ac" * 36
    assert said == (f"cannot listen on {escaped}: a socket's path has 1 to 107 bytes, this one 108")


def test_a_path_has_to_be_named(running: Running) -> None:
    said = running.fail("--listen", "unix:")
    assert said == "cannot listen on unix:: a socket's path has 1 to 107 bytes, this one 0"


@pytest.mark.parametrize(("more", "mode"), [("", 0o666), (":mode=600", 0o600), (":mode=0", 0)])
def test_the_file_has_its_mode_whatever_the_umask(
    running: Running, tmp_path: Path, more: str, mode: int
) -> None:
    before = os.umask(0o027)
    try:
        running.start(*unix(tmp_path / "s", more))
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to others")
def test_the_file_has_its_owners(running: Running, tmp_path: Path) -> None:
    user, group = pwd.getpwuid(65534).pw_name, grp.getgrgid(65534).gr_name
    running.start(*unix(tmp_path / "s", f":user={user}:group={group}"))
    status = (tmp_path / "s").stat()
    assert (status.st_uid, status.st_gid) == (65534, 65534)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (":mode=rw", "mode=rw is no octal number"),
        (":mode=9", "mode=9 is no octal number"),
        (":user=no-one-has-it", "getpwnam(): name not found: 'no-one-has-it'"),
        (":group=no-one-has-it", "getgrnam(): name not found: 'no-one-has-it'"),
    ],
)
def test_a_bad_mode_or_owner_is_told(
    running: Running, tmp_path: Path, more: str, said: str
) -> None:
    assert running.fail(*unix(tmp_path / "s", more)) == f"cannot listen on {tmp_path}/s: {said}"
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("mode", ["7" * 30, "-1"])
def test_a_mode_that_no_file_has_is_told(running: Running, tmp_path: Path, mode: str) -> None:
    said = running.fail(*unix(tmp_path / "s", f":mode={mode}"))
    assert said == f"cannot listen on {tmp_path}/s: mode={mode} is no octal number"
    assert not (tmp_path / "s").exists()


def test_an_owner_that_may_not_be_given_leaves_no_file(running: Running, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    # pytest's own folders, one more of them in a worker of xdist.
    for folder in tmp_path.parents[:3]:
        if folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(0o755)
    root = pwd.getpwuid(0).pw_name
    with unprivileged():
        said = running.fail(*unix(tmp_path / "s", f":user={root}"))
    assert said == f"cannot listen on {tmp_path}/s: {os.strerror(errno.EPERM)}"
    assert not (tmp_path / "s").exists()


async def test_stopping_removes_the_file(serving: Serving, tmp_path: Path) -> None:
    service = serving.start(*unix(tmp_path / "s"))
    await serving.stop(service)
    assert not (tmp_path / "s").exists()


async def test_stopping_finds_the_file_gone(serving: Serving, tmp_path: Path) -> None:
    service = serving.start(*unix(tmp_path / "s"))
    (tmp_path / "s").unlink()
    await serving.stop(service)
    assert not (tmp_path / "s").exists()


async def test_stopping_leaves_what_is_anothers_by_now(serving: Serving, tmp_path: Path) -> None:
    service = serving.start(*unix(tmp_path / "s"))
    # Made before the other goes, so that it cannot get the same inode.
    (tmp_path / "new").touch()
    (tmp_path / "new").rename(tmp_path / "s")
    await serving.stop(service)
    assert (tmp_path / "s").is_file()


# Addresses


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("224.0.0.1", "host '224.0.0.1': 224.0.0.1 is no address of one host; choose another"),
        (
            "255.255.255.255",
            "host '255.255.255.255': 255.255.255.255 is no address of one host; choose another",
        ),
        ("ff02::1", "host 'ff02::1': ff02::1 is no address of one host; choose another"),
        ("fe80::1", "host 'fe80::1': name its interface, too: fe80::1%eth0 or the like"),
    ],
)
def test_an_address_that_is_not_one_hosts_is_told(running: Running, host: str, said: str) -> None:
    assert running.fail("--host", host, "--port", "0") == said


def test_a_link_local_address_with_its_interface_is_looked_for(running: Running) -> None:
    said = running.fail("--host", "fe80::1%lo", "--port", "5555")
    assert said.endswith("this host has no such address; choose another")


def test_nothing_stays_bound_if_one_address_of_a_name_is_taken(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def resolved(host: str, *args: object, **kwargs: object) -> object:
        if host != "both.invalid" or kwargs.get("flags") == socket.AI_NUMERICHOST:
            return resolve(host, *args, **kwargs)  # type: ignore[arg-type]
        found = [resolve(each, *args, **kwargs) for each in ("127.0.0.2", "127.0.0.1")]  # type: ignore[arg-type]
        return [each for [each] in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with closing(socket.create_server(("127.0.0.1", 0))) as holder:
        port = holder.getsockname()[1]
        said = running.fail("--listen", f"tcp:{port}:interface=both.invalid")
        assert said.startswith(f"cannot listen on tcp:127.0.0.1:{port}: the port is taken")
        with closing(socket.create_server(("127.0.0.2", port))):
            pass


# Options of sockets


def test_an_option_is_read() -> None:
    assert socketOption("TCP_NODELAY=1") == SocketOption(
        "TCP_NODELAY=1", socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )
    assert socketOption("SO_RCVBUF=5000")[1:3] == (socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert socketOption("IP_TOS=16")[1] == socket.IPPROTO_IP
    assert socketOption("IPV6_V6ONLY=1")[1] == socket.IPPROTO_IPV6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no socket option (as SO_RCVBUF, TCP_NODELAY, IP_TOS)"),
        ("NODELAY=1", "'NODELAY' is no socket option (as SO_RCVBUF, TCP_NODELAY, IP_TOS)"),
        ("AF_INET=1", "'AF_INET' is no socket option (as SO_RCVBUF, TCP_NODELAY, IP_TOS)"),
        ("SO_NOTHING=1", "'SO_NOTHING' is no socket option (as SO_RCVBUF, TCP_NODELAY, IP_TOS)"),
        ("SO_RCVBUF", "'' is no whole number"),
        ("SO_RCVBUF=big", "'big' is no whole number"),
    ],
)
def test_what_is_no_option_is_told(text: str, said: str) -> None:
    with pytest.raises(ValueError) as problem:
        socketOption(text)
    assert str(problem.value) == said


OPTIONS = [socketOption(text) for text in ("SO_SNDBUF=5000", "IP_TTL=7", "IPV6_UNICAST_HOPS=8")]
NODELAY = socketOption("TCP_NODELAY=1")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_each_socket_takes_the_options_of_its_kind(host: str, kind: socket.SocketKind) -> None:
    [bound] = inet(host, 0, kind)
    with closing(bound):
        bound.set([*OPTIONS, NODELAY])
        made = bound.socket
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 10_000  # it doubles them
        assert made.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == 7
        if made.family == socket.AF_INET6:
            assert made.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) == 8
        if kind == socket.SOCK_STREAM:
            assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_a_unix_socket_takes_options_too(running: Running, tmp_path: Path, log: Log) -> None:
    options = [f"--socket-option={text}" for text in ("TCP_NODELAY=1", "IP_TTL=7", "SO_SNDBUF=1")]
    running.start(*unix(tmp_path / "s"), *options)
    assert f"ack listening on unix:{tmp_path}/s" in log.texts


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("IP_TTL=1000", os.strerror(errno.EINVAL)),
        ("SO_RCVBUF=99999999999999", "the value is out of range"),
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [("--listen", "tcp:0:interface=127.0.0.1"), ("--port", "0")],
    ids=["listen", "port"],
)
def test_an_option_that_the_system_does_not_take_is_told(
    running: Running, arguments: tuple[str, str], text: str, why: str
) -> None:
    said = running.fail(*arguments, "--socket-option", text)
    assert said.startswith(f"--socket-option {text} on 127.0.0.1:")
    assert said.endswith(f": {why}")
    assert running.addresses == []


# Network interfaces


def test_an_interface_without_the_right_to_it_is_told(running: Running) -> None:
    with unprivileged():
        said = running.fail("--listen", "raw:lo")
    assert said == "raw:lo: needs root or CAP_NET_RAW"


@pytest.mark.skipif(os.geteuid() != 0, reason="a packet socket needs root or CAP_NET_RAW")
def test_an_interface_that_is_not_there_is_told(running: Running) -> None:
    said = running.fail("--listen", "raw:nowhere0")
    assert said == f"raw:nowhere0: {os.strerror(errno.ENODEV)}"
    with pytest.raises(SystemExit):
        packet("nowhere0")
