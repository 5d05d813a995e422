"""What the commands print on terminals of 80, 40 and 20 columns, none of whose lines wraps."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockservice.cli.columns import cut, folded, labelled, span
from sockservice.cli.progress import fitted
from tests.conftest import PATIENCE, Child, Children
from tests.terminal import OnTerminal, widest

WIDTHS = (80, 40, 20)


def test_text_is_folded_behind_commas_and_else_where_it_must() -> None:
    said = "sent 100, received 100, lost 0 (0%)"
    assert folded(said, 35) == [said]
    assert folded(said, 34) == ["sent 100, received 100,", "  lost 0 (0%)"]
    assert folded(said, 20) == ["sent 100,", "  received 100,", "  lost 0 (0%)"]
    assert folded(said, 8) == [
        *("sent", "  100,", "  receiv", "  ed", "  100,", "  lost 0", "  (0%)"),
    ]
    assert folded("1: 56 bytes in 0.123 ms", 20) == ["1: 56 bytes in", "  0.123 ms"]


@given(
    st.text(st.sampled_from("ab,:; 日本\u0301é")),
    st.integers(4, 40),
)
def test_nothing_is_wider_than_its_room_and_nothing_is_lost(text: str, room: int) -> None:
    lines = folded(text, room)
    assert all(span(line) <= room for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert span(cut(text, room)) <= room
    assert text.startswith(cut(text, room))


def test_what_is_behind_a_label_stands_below_it_where_there_is_no_room() -> None:
    rows = ["min 1.000 ms, mean 2.000 ms", "max 3.000 ms"]
    assert labelled("latency   ", rows, 40) == [
        "latency   min 1.000 ms, mean 2.000 ms",
        "          max 3.000 ms",
    ]
    assert labelled("latency   ", rows, 20) == [
        "latency",
        "  min 1.000 ms,",
        "  mean 2.000 ms,",
        "  max 3.000 ms",
    ]


def test_what_a_bar_has_no_room_for_is_left_out() -> None:
    assert fitted(["1 kB, 2 s behind", "日誌.log at 5"], 32) == "1 kB, 2 s behind  日誌.log at 5"
    assert fitted(["1 kB, 2 s behind", "日誌.log at 5"], 30) == "1 kB, 2 s behind"


# On terminals


def unsaid(printed: str) -> str:
    """Take away the message at the end, which is one line, however long."""
    return printed[: max(printed.rfind("\x1b[K"), printed.rstrip().rfind("\n"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int, int]]:
    """A folder with a store that has lines of a session, a port of lines, and one of sessions."""
    folder = tmp_path_factory.mktemp("columns")
    with ExitStack() as stack:
        children = Children(folder, stack)
        listeners = [f"--listen={kind}@tcp:0:interface=127.0.0.1" for kind in ("ack", "session")]
        serving = Child(
            children.start(
                "twistd", "-n", "--pidfile=", "sockservice", "--store", "sqlite:kept.db", *listeners
            )
        )
        ports = [
            int(serving.until(rb"%b listening on tcp:127.0.0.1:(\d+)" % kind)[1])
            for kind in (b"ack", b"session")
        ]
        for name in ("short", "a-session-with-a-longer-name-than-others"):
            target = f"127.0.0.1:{ports[1]}"
            done = children.run("sockservice", "send", "--session", name, target, "one", "two")
            assert done.returncode == 0, done
        yield folder, ports[0], ports[1]
        serving.process.terminate()
        serving.end()


class Odd(threading.Thread):
    """A UDP server that answers each datagram in its own way: with two, none, a torn one."""

    def __init__(self) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(PATIENCE)
        self.target = f"udp:127.0.0.1:{self._socket.getsockname()[1]}"

    def run(self) -> None:
        with self._socket:
            for number in range(1000):
                data, peer = self._socket.recvfrom(65536)
                if data == b"end":
                    return
                said = [[data, data], [], [data[:-1]], [data]][number % 4]
                for each in said:
                    self._socket.sendto(each, peer)

    def end(self) -> None:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as last, suppress(OSError):
            last.sendto(b"end", ("127.0.0.1", int(self.target.rpartition(":")[2])))
        self.join(PATIENCE)


@pytest.mark.parametrize("columns", WIDTHS)
def test_ping(opened: ExitStack, columns: int) -> None:
    odd = Odd()
    odd.start()
    opened.callback(odd.end)
    command = ["sockservice", "ping", odd.target, "-i", "0.02", "-W", "0.03"]
    terminal = OnTerminal(command, opened, columns=columns)
    terminal.until("corrupt.*lost.*duplicate")
    terminal.type("\x1c")
    terminal.until("jitter .*ms")
    terminal.type("\x03")
    terminal.until("jitter .*ms.*interrupted\r\n")
    found = terminal.rest()
    assert terminal.end() == 130
    assert widest(found) <= columns, found


@pytest.mark.parametrize("columns", WIDTHS)
def test_ping_of_lines(folder: tuple[Path, int, int], opened: ExitStack, columns: int) -> None:
    target = f"127.0.0.1:{folder[1]}"
    for options, status in (
        ([target, "-c", "2", "-i", "0.01"], 0),
        ([target, "-c", "2", "-i", "0.01", "--refusal", "ok"], 1),
    ):
        terminal = OnTerminal(["sockservice", "ping", *options], opened, columns=columns)
        found = terminal.rest()
        assert terminal.end() == status
        if status:
            found = unsaid(found)
        assert widest(found) <= columns, found


@pytest.mark.parametrize("columns", WIDTHS)
def test_bench(folder: tuple[Path, int, int], opened: ExitStack, columns: int) -> None:
    command = ["sockservice", "bench", f"127.0.0.1:{folder[1]}", "--rate", "2000"]
    refusing = ["--duration", "60", "--refusal", "ok"]
    terminal = OnTerminal([*command, *refusing], opened, columns=columns)
    terminal.until("0.4 of 60 s")
    terminal.type("\x1c")
    terminal.until(r"answered\s.*lines?\s+in")
    terminal.type("\x03")
    terminal.until("latency.* ms.*#.*interrupted\r\n")
    found = terminal.rest()
    assert terminal.end() == 130
    assert widest(found) <= columns, found


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_bar_of_send_and_its_sum(
    folder: tuple[Path, int, int], opened: ExitStack, columns: int
) -> None:
    (folder[0] / "input").write_text("".join(f"line {number}\n" for number in range(1000)))
    command = ["sockservice", "send", "--rate", "10", "--file", "input", f"127.0.0.1:{folder[1]}"]
    terminal = OnTerminal(command, opened, folder[0], columns=columns)
    terminal.until("% .*lines")
    terminal.type("\x1c")
    terminal.until("unacknowledged.*seconds")
    terminal.until("% .*lines")
    terminal.type("\x03")
    terminal.until("interrupted")
    found = unsaid(terminal.rest())
    assert terminal.end() == 130
    assert widest(found) <= columns, found


@pytest.mark.parametrize("term", ["xterm", "dumb"])
@pytest.mark.parametrize("columns", WIDTHS)
def test_the_prompt(
    folder: tuple[Path, int, int], opened: ExitStack, columns: int, term: str
) -> None:
    command = ["sockservice", "send", "--retry", f"127.0.0.1:{folder[1]}"]
    environment = {"TERM": term, "XDG_STATE_HOME": str(folder[0])}
    terminal = OnTerminal(command, opened, folder[0], columns=columns, environment=environment)
    terminal.until(">")
    terminal.type("hello\n")
    terminal.until("ok")
    terminal.type("\x04")
    found = terminal.rest()
    assert terminal.end() == 0
    assert widest(found) <= columns, found


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize(
    "command", ["lines kept.db --limit 2", "sessions kept.db", "verify kept.db"]
)
def test_what_is_said_of_a_store(
    folder: tuple[Path, int, int], opened: ExitStack, columns: int, command: str
) -> None:
    terminal = OnTerminal(["sockservice", *command.split()], opened, folder[0], columns=columns)
    found = terminal.rest()
    assert terminal.end() == 0
    assert widest(found) <= columns, found


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_status_line_of_ship(
    folder: tuple[Path, int, int], opened: ExitStack, columns: int
) -> None:
    path = folder[0] / f"日本語の記録-{columns}.log"
    path.write_text("one\n" * 10)
    command = ["sockservice", "ship", "--session", f"s{columns}", f"127.0.0.1:{folder[2]}"]
    terminal = OnTerminal([*command, path.name], opened, folder[0], columns=columns)
    terminal.until("is new\r\n")
    terminal.until("s behind")
    terminal.type("\x03")
    terminal.until("interrupted")
    # A message is one line, however long.
    found = re.sub("session [^\r\n]* is new\r\n", "", unsaid(terminal.rest()))
    assert terminal.end() == 130
    assert widest(found) <= columns, found
