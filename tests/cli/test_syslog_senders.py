"""`sockservice send` to listeners for syslog: RELP, frames that nothing answers, headers."""

import json
import re
import socket
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from sockservice.cli import main
from tests.cli.test_cli import Answer, answering, outcome
from tests.conftest import Child, Children, ClosedNumber

__all__ = ["answering"]

NONE = "none acknowledged: nothing answers them\n"
MUTED = ["send", "--framing", "octet-counted"]


def does(
    heard: list[bytes], answer: bytes = b"", reset: bool = False
) -> Callable[[socket.socket], None]:
    """Have a server read to the end, and answer then, if at all."""

    def server(connection: socket.socket) -> None:
        if reset:
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return
        while data := connection.recv(1000):
            heard.append(data)
        connection.sendall(answer)

    return server


def test_what_nothing_answers_is_sent_and_not_called_acknowledged(
    children: Children, answering: Answer
) -> None:
    heard: list[bytes] = []
    done = children.run("sockservice", *MUTED, "--json", answering(does(heard)), "one", "a b c")
    status, output, said = outcome(done)
    total = json.loads(output)
    assert (status, said, total["status"], total["why"]) == (0, f"2 lines sent, {NONE}", 0, None)
    assert (total["sent"], total["acknowledged"], total["unacknowledged"]) == (2, 0, 2)
    assert b"".join(heard) == b"3 one5 a b c"


def test_empty_lines_are_told_and_the_others_are_sent(
    children: Children, answering: Answer
) -> None:
    heard: list[bytes] = []
    done = children.run("sockservice", *MUTED, answering(does(heard)), input=b"a\n\nb\n")
    why = f"sent 2, acknowledged 0: 1 line is empty and was not sent; 2 lines sent, {NONE}"
    assert outcome(done) == (1, b"", why)
    assert b"".join(heard) == b"1 a1 b"


@pytest.mark.parametrize(
    ("answer", "reset", "said"),
    [
        (b"error busy: later\n", False, "the server ended the connection: error busy: later"),
        (b"error not syslog\n", False, "1 line came that nobody asked for"),
        (b"", True, "the connection was reset"),
    ],
)
def test_a_server_that_does_not_just_close_is_a_fault(
    children: Children, answering: Answer, answer: bytes, reset: bool, said: str
) -> None:
    done = children.run("sockservice", *MUTED, answering(does([], answer, reset)), "a")
    status, output, why = outcome(done)
    assert (status, output) == (1, b"")
    assert said in why


def test_a_server_that_does_not_close_is_not_awaited_for_ever(children: Children) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        target = f"127.0.0.1:{listening.getsockname()[1]}"
        done = children.run("sockservice", *MUTED, "--timeout", "0.2", target, "a")
    status, _, why = outcome(done)
    assert status == 4
    assert "the server has not closed within 0.2 seconds" in why


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*MUTED, "--retry", "h:1", "a"], "--retry needs replies, and syslog has none"),
        ([*MUTED, "--unacked", "f", "h:1", "a"], "--unacked needs replies, and syslog has none"),
        ([*MUTED, "h:1,h:2", "a"], "a choice of targets needs replies, and syslog has none"),
        ([*MUTED, "udp:h:1", "a"], "a datagram is a message"),
        (["send", "--app", "a", "h:1", "a"], "--app is for --syslog"),
        (["send", "--syslog", "--app", "a b", "h:1", "a"], "--app: a program's name is"),
        (["send", "--syslog", "--session", "s", "h:1", "a"], "--syslog writes the time"),
        (["ping", "--framing", "octet-counted", "h:1"], "replies are needed"),
        (["bench", "--framing", "octet-counted", "h:1"], "replies are needed"),
    ],
)
def test_what_does_not_go_together_is_told(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert said in done.stderr


HEADED = ["send", "--syslog", "--app", "backup"]


def test_datagrams_with_a_header_are_sent_and_nothing_is_awaited(children: Children) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        target = f"udp:127.0.0.1:{listening.getsockname()[1]}"
        lines = b"".join(b"%d\n" % number for number in range(100))
        done = children.run("sockservice", *HEADED, "--timeout", "1000", target, input=lines)
        assert outcome(done) == (0, b"", f"100 lines sent, {NONE}")
        came = [listening.recv(1000) for _ in range(100)]
    assert [each.split()[-1] for each in came] == lines.split()
    assert came[0].startswith(b"<13>1 ")


def test_datagrams_that_nobody_listens_for_are_a_fault(
    children: Children, closed_number: ClosedNumber
) -> None:
    target = f"udp:127.0.0.1:{closed_number(socket.SOCK_DGRAM)}"
    status, output, why = outcome(children.run("sockservice", *HEADED, target, "a"))
    assert (status, output) == (1, b"")
    assert why.startswith("sent 1, acknowledged 0: connection refused: nobody listens there; ")


def test_datagrams_that_are_too_long_are_a_fault(children: Children) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        target = f"udp:127.0.0.1:{listening.getsockname()[1]}"
        done = children.run("sockservice", *HEADED, target, input=b"x" * 70_000 + b"\n")
    status, _, why = outcome(done)
    assert status == 1
    assert "not sent: Message too long" in why


def test_a_socket_without_room_is_awaited_and_told(children: Children) -> None:
    path = children.folder / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        command = [*HEADED, "--timeout", "0.2", f"unix-datagram:{path}"]
        done = children.run("sockservice", *command, input=b"a\n" * 10_000)
    status, _, why = outcome(done)
    assert status == 4
    assert "the server has read nothing for 0.2 seconds" in why


def test_each_way_ends_in_the_store(children: Children) -> None:
    ports = []
    service = Child(
        children.start(
            *("twistd", "-n", "--pidfile=", "sockservice", "--store", "sqlite:logs.db"),
            *(f"--listen={kind}@tcp:0:interface=127.0.0.1" for kind in ("relp", "syslog")),
        )
    )
    for kind in (b"relp", b"syslog"):
        found = service.until(rb"%b listening on tcp:127.0.0.1:(\d+)\n" % kind)
        ports.append(int(found[1]))
    relp, syslog = f"relp:127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"
    headed = ["--syslog", "--app", "backup", "--severity", "err", "--facility", "local3"]

    def sent(*arguments: str, input: bytes = b"") -> tuple[int, bytes, str]:
        return outcome(children.run("sockservice", "send", *arguments, input=input))

    assert sent(*headed, relp, "one") == (0, b"ok\n", "")
    lines = b"".join(b"%d\n" % number for number in range(2000))
    assert sent("--retry", "--quiet", relp, input=lines) == (0, b"", "")
    assert sent("--framing", "relp", f"tcp:{relp[5:]}", "two") == (0, b"ok\n", "")
    assert sent("--framing", "octet-counted", *headed, syslog, "three") == (
        0,
        b"",
        f"1 line sent, {NONE}",
    )
    status, _, why = sent(relp.replace(str(ports[0]), str(ports[1])), "a")
    assert status == 1
    assert "can't be understood: not RELP" in why
    done = children.run("sockservice", "ping", "--count", "3", "--flood", "1", relp)
    assert outcome(done)[0] == 0
    done = children.run("sockservice", "bench", "--count", "20", "--json", relp)
    assert json.loads(outcome(done)[1])["answered"] == 20
    kept = outcome(children.run("sockservice", "lines", "--syslog", "logs.db"))[1].split(b"\n")
    assert re.fullmatch(rb"\S+ \S+ backup local3\.err: one", kept[0])
    assert kept[1:2001] == lines.split()
    assert kept[2001] == b"two"
    assert re.fullmatch(rb"\S+ \S+ backup local3\.err: three", kept[2002])
