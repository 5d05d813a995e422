"""`sockservice send` on a terminal: what is typed, shown and said at the end."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, closing, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput
from prompt_toolkit.output.vt100 import Vt100_Output
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from sockservice.cli.send.conversation import Conversation
from sockservice.cli.send.editor import HISTORY, Editor, History, historyPath
from sockservice.cli.send.terminal import Left, Plain
from sockservice.cli.status import SIGNALS
from sockservice.client.targets import connect
from tests.conftest import (
    PATIENCE,
    ClosedNumber,
    HandReactor,
    Reactor,
    Service,
    unprivileged,
    until,
)
from tests.terminal import OnTerminal

Outcome = tuple[int, str]

# The conversation, on a terminal that the test types into


class Typed:
    """A terminal that shows what it is given to `shown` and gives what the test types."""

    def __init__(self) -> None:
        self.typed = False
        self.shown: list[bytes] = []
        self._next: list[Deferred[list[bytes] | None]] = []
        self._reading: Deferred[list[bytes] | None] | None = None

    def type(self, *lines: bytes) -> None:
        self._come(succeed([*lines]))

    def end(self) -> None:
        self._come(succeed(None))

    def leave(self) -> None:
        self._come(fail(Left()))

    def _come(self, typed: Deferred[list[bytes] | None]) -> None:
        self._next.append(typed)
        reading, self._reading = self._reading, None
        if reading is not None:
            self._next.pop(0).chainDeferred(reading)

    def read(self) -> Deferred[list[bytes] | None]:
        if self._next:
            return self._next.pop(0)
        self._reading = Deferred()
        return self._reading

    def show(self, line: bytes) -> None:
        self.shown.append(line)

    def flush(self) -> None:
        pass

    def stop(self) -> None:
        self.end()

    def interrupted(self) -> None:
        pass


class Held:
    """A conversation with a server that the test plays, on a real socket."""

    def __init__(self, reactor: HandReactor, opened: ExitStack, **settings: Any) -> None:
        self.reactor = reactor
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(PATIENCE)
            target = f"tcp:127.0.0.1:{listening.getsockname()[1]}"
            client = reactor.result(connect(reactor, target))
            self.server = opened.enter_context(closing(listening.accept()[0]))
        self.terminal = Typed()
        self.conversation = Conversation(reactor, client, self.terminal, 30.0, **settings)
        self.outcome = Deferred.fromCoroutine(self.conversation.run())

    def type(self, *lines: bytes) -> None:
        """Type lines and see them arrive."""
        self.terminal.type(*lines)
        sent = b"".join(line + b"\n" for line in lines)
        assert self.reactor.received(self.server, len(sent)) == sent

    def reply(self, *lines: bytes) -> None:
        """Send lines and see as many more shown."""
        shown = len(self.terminal.shown)
        self.server.sendall(b"".join(line + b"\n" for line in lines))
        self.reactor.until(lambda: len(self.terminal.shown) == shown + len(lines))

    def result(self) -> Outcome:
        result: Outcome = self.reactor.result(self.outcome)
        return result


@pytest.fixture
def held(reactor: HandReactor, opened: ExitStack) -> Held:
    return Held(reactor, opened)


def test_replies_are_shown_and_what_nobody_asked_for_is_marked(held: Held) -> None:
    held.type(b"a", b"b")
    held.reply(b"1", b"2", b"news")
    held.reply(b"more")
    assert held.terminal.shown == [b"1", b"2", b"* news", b"* more"]
    held.terminal.end()
    assert held.reactor.received(held.server) == b""
    held.server.close()
    assert held.result() == (0, "")


def test_what_is_shown_cannot_command_the_terminal(held: Held) -> None:
    held.type(b"a")
    held.reply(b"\x1b[31m\xff caf\xc3\xa9", b"\x07")
    assert held.terminal.shown == [rb"\x1b[31m\xff caf" + b"\xc3\xa9", rb"* \x07"]
    held.terminal.leave()
    assert held.result() == (0, "")


def test_the_end_of_what_is_typed_half_closes_and_replies_due_are_shown(held: Held) -> None:
    held.terminal.type(b"a", b"b")
    held.terminal.end()
    assert held.reactor.received(held.server) == b"a\nb\n"
    held.reply(b"1", b"error no", b"farewell")
    assert held.terminal.shown[2] == b"* farewell"
    held.server.close()
    assert held.result() == (1, "sent 2, acknowledged 1: 1 refused")


def test_a_server_that_owes_nothing_and_does_not_close_is_not_waited_for_long(held: Held) -> None:
    held.type(b"a")
    held.reply(b"1")
    held.terminal.end()
    assert held.reactor.received(held.server) == b""
    assert not held.outcome.called
    held.reactor.advance(1)
    assert held.result() == (0, "")


def test_replies_due_that_do_not_come_are_status_4(held: Held) -> None:
    held.type(b"a", b"b")
    held.reply(b"1")
    held.terminal.end()
    held.reactor.advance(29.9)
    assert not held.outcome.called
    held.reactor.until(lambda: held.outcome.called, passing=0.5)
    assert held.result() == (4, "sent 2, acknowledged 1: no reply within 30 seconds")


def test_late_replies_are_told_once_and_still_shown(held: Held) -> None:
    held.type(b"a", b"b")
    held.reactor.advance(30)
    assert held.terminal.shown == [b"! no reply within 30 seconds"]
    held.reply(b"1", b"2")
    assert held.terminal.shown[1:] == [b"1", b"2"]
    held.terminal.leave()
    assert held.result() == (0, "")


def test_a_server_that_closes_is_told(held: Held) -> None:
    held.type(b"a")
    held.reply(b"1")
    held.server.close()
    assert held.result() == (0, "sent 1, acknowledged 1: the server closed the connection")


def test_a_server_that_lets_nobody_in_is_status_3(held: Held) -> None:
    held.server.sendall(b"error busy: 1 connection, the limit\n")
    held.server.close()
    why = "the server ended the connection: error busy: 1 connection, the limit"
    assert held.result() == (3, f"sent 0, acknowledged 0: {why}")
    assert held.terminal.shown == []


def test_a_server_that_closes_while_a_line_is_typed_is_status_1(held: Held) -> None:
    held.terminal.typed = True
    held.server.close()
    assert held.result() == (1, "sent 0, acknowledged 0: the server closed the connection")


def test_a_server_that_closes_and_owes_replies_is_status_1(
    reactor: HandReactor, opened: ExitStack
) -> None:
    held = Held(reactor, opened, window=2)
    held.terminal.type(b"a", b"b", b"c")
    assert reactor.received(held.server, 4) == b"a\nb\n"
    held.server.close()
    status, said = held.result()
    assert (status, said.partition(": ")[0]) == (1, "sent 2, acknowledged 0")
    assert "connection lost" in said


def test_no_more_lines_are_in_flight_than_may_be(reactor: HandReactor, opened: ExitStack) -> None:
    held = Held(reactor, opened, window=2)
    held.terminal.type(b"a", b"b", b"c")
    held.terminal.end()
    assert reactor.received(held.server, 4) == b"a\nb\n"
    with pytest.raises(BlockingIOError):
        held.server.recv(1)
    held.reply(b"1")
    assert reactor.received(held.server) == b"c\n"
    held.reply(b"2", b"3")
    held.server.close()
    assert held.result() == (0, "")


@pytest.mark.parametrize("how", ["leave", "interrupt"])
@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("awaited", [False, True])
def test_leaving_is_an_interruption_if_something_is_open(
    held: Held, how: str, typed: bool, awaited: bool
) -> None:
    if awaited:
        held.type(b"a")
    held.terminal.typed = typed
    if how == "leave":
        held.terminal.leave()
        expected = held.result()
    else:
        held.conversation.end(130, "interrupted")
        expected = held.result()
    said = f"sent {awaited:d}, acknowledged 0: interrupted"
    assert expected == ((130, said) if typed or awaited else (0, ""))


@pytest.mark.parametrize("when", ["idle", "awaited", "finishing"])
def test_any_other_signal_has_its_status(held: Held, when: str) -> None:
    if when != "idle":
        held.type(b"a")
    if when == "finishing":
        held.terminal.end()
    held.conversation.end(143, "terminated")
    sent = 0 if when == "idle" else 1
    assert held.result() == (143, f"sent {sent}, acknowledged 0: terminated")


def test_the_sum_so_far_is_shown(held: Held) -> None:
    held.type(b"a", b"b")
    held.reply(b"ok")
    held.conversation.tell()
    assert held.terminal.shown == [b"ok", b"! sent 2, acknowledged 1"]
    held.terminal.leave()
    assert held.result()[0] == 130


def test_datagrams_lost_are_told_each_and_status_4(reactor: HandReactor, opened: ExitStack) -> None:
    peer = opened.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
    peer.bind(("127.0.0.1", 0))
    target = f"udp:127.0.0.1:{peer.getsockname()[1]}"
    client = reactor.result(connect(reactor, target))
    terminal = Typed()
    outcome = Deferred.fromCoroutine(Conversation(reactor, client, terminal, 5.0).run())
    terminal.type(b"a", b"b", b"c")
    reactor.until(lambda: client.outstanding == 3)
    _, address = peer.recvfrom(100)
    peer.sendto(b"a", address)
    reactor.until(lambda: terminal.shown)
    reactor.advance(5)
    reactor.until(lambda: len(terminal.shown) == 3)
    assert terminal.shown == [b"a"] + [b"! no reply within 5 seconds"] * 2
    # What is late is not awaited any more.
    for late in (b"b", b"news\x07"):
        peer.sendto(late, address)
    reactor.until(lambda: len(terminal.shown) == 5)
    assert terminal.shown[3:] == [b"* b", rb"* news\x07"]
    terminal.end()
    assert reactor.result(outcome) == (4, "sent 3, acknowledged 1: no reply within 5 seconds")


async def test_datagrams_refused_are_told_and_status_1(real: Reactor) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        target = f"udp:127.0.0.1:{peer.getsockname()[1]}"
        client = await connect(real, target)
    terminal = Typed()
    outcome = Deferred.fromCoroutine(Conversation(real, client, terminal, 5.0).run())
    terminal.type(b"a")
    refused = b"connection refused: nobody listens there"
    await until(lambda: terminal.shown)
    assert terminal.shown == [b"! " + refused]
    terminal.end()
    assert await outcome == (1, f"sent 1, acknowledged 0: {refused.decode()}")


# The plain terminal


@pytest.mark.parametrize("torn", [b"", b"torn"])
def test_a_plain_terminal_gives_lines_as_they_end(reactor: HandReactor, torn: bytes) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "wb", buffering=0) as typing:
        terminal = Plain(reactor, reading)
        given = terminal.read()
        typing.write(b"a\nb\nc")
        assert reactor.result(given) == [b"a", b"b"]
        given = terminal.read()
        typing.write(b"\n" + torn)
        assert reactor.result(given) == [b"c"]
        given = terminal.read()
        typing.close()
        assert reactor.result(given) == ([torn] if torn else None)
        assert reactor.result(terminal.read()) is None


def test_a_plain_terminal_that_is_gone_has_given_all_that_was_typed(reactor: HandReactor) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "wb", buffering=0) as typing:
        terminal = Plain(reactor, reading)
        given = terminal.read()
        typing.write(b"torn")
        typing.close()
        terminal.connectionLost(Failure(ConnectionDone()))
        assert reactor.result(given) == [b"torn"]
        assert reactor.result(terminal.read()) is None


def test_a_plain_terminal_that_is_still_there_is_not_waited_for(reactor: HandReactor) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "wb"):
        terminal = Plain(reactor, reading)
        given = terminal.read()
        terminal.connectionLost(Failure(ConnectionDone()))
        assert reactor.result(given) is None


async def test_a_plain_terminal_can_be_stopped(real: Reactor) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "wb"):
        terminal = Plain(real, reading)
        given = terminal.read()
        terminal.stop()
        assert await given is None


# The editor, on prompt_toolkit's own pipe


@contextmanager
def piped(history: Path, output: Any = None) -> Iterator[tuple[PipeInput, Editor]]:
    output = DummyOutput() if output is None else output
    with create_pipe_input() as keys, create_app_session(input=keys, output=output):
        yield keys, Editor(history, keys, output)


def edited(history: Path, typed: str) -> list[bytes] | None:
    """Type into an editor; give what it reads."""

    async def read() -> list[bytes] | None:
        given: list[bytes] | None = await editor.read().asFuture(asyncio.get_running_loop())
        return given

    with piped(history) as (keys, editor):
        keys.send_bytes(typed.encode("utf-8", "surrogateescape"))
        return asyncio.run(read())


@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        ("hello\r", [b"hello"]),
        ("\r", [b""]),
        ("held\x1b[D\x1b[D\x7fa\r", [b"hald"]),
        ("caf\xe9 \udcff\r", b"caf\xc3\xa9 \xff".splitlines()),
        ("\x1b[200~a\nb\r\n\nc\x1b[201~d\r", [b"a", b"b", b"", b"cd"]),
        ("\x1b[200~a\nb\n\x1b[201~\r", [b"a", b"b"]),
        ("\x1b[200~" + "line\n" * 500 + "\x1b[201~\r", [b"line"] * 500),
        ("\x04", None),
    ],
)
def test_lines_are_edited(tmp_path: Path, typed: str, lines: list[bytes] | None) -> None:
    assert edited(tmp_path / "history", typed) == lines


def test_ctrl_c_leaves(tmp_path: Path) -> None:
    with pytest.raises(Left):
        edited(tmp_path / "history", "half\x03")


def inLoop(does: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(does(), PATIENCE))


async def loopUntil(come: Callable[[], object]) -> None:
    while not come():
        await asyncio.sleep(0.001)


def test_what_is_shown_comes_before_the_line_being_typed(tmp_path: Path) -> None:
    screen = StringIO()
    output = Vt100_Output(screen, lambda: Size(rows=24, columns=80), term="xterm")

    async def converse() -> None:
        reading = editor.read().asFuture(asyncio.get_running_loop())
        keys.send_text("half")
        await loopUntil(lambda: editor.typed and "half" in screen.getvalue())
        before = len(screen.getvalue())
        for number in range(100):
            editor.show(b"shown %d" % number)
        await loopUntil(lambda: "half" in screen.getvalue()[before:])
        after = screen.getvalue()[before:]
        shown = "".join(f"shown {number}\n" for number in range(100))
        assert after.index("\x1b[J") < after.index(shown) < after.index("half")
        keys.send_text(" done\r")
        assert await reading == [b"half done"]
        # Between lines there is nothing to be drawn again.
        editor.show(b"last")
        editor.flush()
        assert screen.getvalue().endswith("last\n")

    with piped(tmp_path / "history", output) as (keys, editor):
        inLoop(converse)


@pytest.mark.parametrize("when", ["before", "while"])
def test_an_editor_can_be_stopped(tmp_path: Path, when: str) -> None:
    async def stop() -> None:
        if when == "before":
            editor.stop()
        reading = editor.read().asFuture(asyncio.get_running_loop())
        if when == "while":
            keys.send_text("half")
            await loopUntil(lambda: editor.typed)
            editor.stop()
        assert await reading is None
        assert editor.typed == (when == "while")

    with piped(tmp_path / "history") as (keys, editor):
        inLoop(stop)


# The history


def test_history_is_kept_and_nobody_elses_business(tmp_path: Path) -> None:
    path = tmp_path / "state" / "history"
    edited(path, "first \udcff\r")
    edited(path, "\x1b[200~two\n\nlines\x1b[201~\r")
    assert edited(path, "\x1b[A\x1b[A\x1b[A\r") == [b"first \xff"]
    assert path.read_bytes() == b"first \xff\ntwo\nlines\nfirst \xff\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_history_that_can_not_be_kept_is_no_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with unprivileged():
        assert edited(tmp_path / "state" / "history", "line\r") == [b"line"]
    assert list(tmp_path.iterdir()) == []


def test_history_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("".join(f"{number}\n" for number in range(2 * HISTORY + 1)))
    latest = list(History(path).load_history_strings())
    assert (len(latest), latest[0]) == (HISTORY, str(2 * HISTORY))
    assert len(path.read_bytes().splitlines()) == HISTORY
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("state", ["", "relative"])
def test_the_history_is_where_xdg_says(state: str) -> None:
    home = Path(os.path.expanduser("~/.local/state"))
    assert historyPath({"XDG_STATE_HOME": state}) == home / "sockservice" / "history"
    assert historyPath({"XDG_STATE_HOME": "/state"}) == Path("/state/sockservice/history")


# All of it, on a real terminal


def sending(target: str, folder: Path, opened: ExitStack, **environment: str) -> OnTerminal:
    environment["XDG_STATE_HOME"] = str(folder)
    return OnTerminal(["sockservice", "send", target], opened, environment=environment)


def tcp(service: Service) -> str:
    return f"tcp:127.0.0.1:{service.address[1]}"


def test_lines_are_typed_answered_and_remembered(
    service: Service, tmp_path: Path, opened: ExitStack
) -> None:
    for typed in ("hello\r", "\x1b[A\r"):
        terminal = sending(tcp(service), tmp_path, opened)
        terminal.until(">")
        terminal.type(typed)
        terminal.until("hello.*ok\r\n.*>")
        terminal.type("\x04")
        assert terminal.end() == 0
    assert (tmp_path / "sockservice" / "history").read_bytes() == b"hello\n"


def test_late_replies_and_the_servers_end_leave_the_typed_line_whole(
    tmp_path: Path, opened: ExitStack
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        target = f"tcp:127.0.0.1:{listening.getsockname()[1]}"
        terminal = sending(target, tmp_path, opened)
        server = opened.enter_context(closing(listening.accept()[0]))
    server.settimeout(PATIENCE)
    terminal.until(">")
    terminal.type("hello\r")
    assert server.recv(100) == b"hello\n"
    terminal.type("half")
    terminal.until("half")
    server.sendall(b"late\n\x1b[31mred\n")
    terminal.until(r"late\r\n\* \\x1b\[31mred\r\n.*>.*half")
    server.close()
    terminal.until("sent 1, acknowledged 1: the server closed the connection\r\n")
    assert terminal.end() == 1


def test_ctrl_c_with_a_line_half_typed_is_status_130(
    service: Service, tmp_path: Path, opened: ExitStack
) -> None:
    terminal = sending(tcp(service), tmp_path, opened)
    terminal.until(">")
    terminal.type("half")
    terminal.until("half")
    terminal.type("\x03")
    terminal.until("sent 0, acknowledged 0: interrupted\r\n")
    assert terminal.end() == 130


def test_a_dumb_terminal_edits_its_lines_itself(
    service: Service, tmp_path: Path, opened: ExitStack
) -> None:
    terminal = sending(tcp(service), tmp_path, opened, TERM="dumb")
    terminal.type("hello\n")
    terminal.until("hello\r\n(.*)ok\r\n")
    terminal.type("\x03")
    assert terminal.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_signal_ends_it_with_the_sum(
    service: Service, tmp_path: Path, opened: ExitStack, term: str, number: signal.Signals
) -> None:
    terminal = sending(tcp(service), tmp_path, opened, TERM=term)
    terminal.until(">")
    terminal.type("hello\r")
    terminal.until("ok\r\n.*>")
    terminal.process.send_signal(signal.SIGQUIT)
    terminal.until("! sent 1, acknowledged 1\r\n.*>")
    terminal.process.send_signal(number)
    terminal.until(f"sent 1, acknowledged 1: {SIGNALS[number]}\r\n")
    assert terminal.end() == 128 + number


@pytest.mark.parametrize("options", [[], ["--rate", "100"]])
@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_terminal_that_goes_away_hangs_up(
    service: Service, tmp_path: Path, opened: ExitStack, term: str, options: list[str]
) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path), "TERM": term}
    command = ["sockservice", "send", *options, tcp(service)]
    terminal = OnTerminal(command, opened, environment=environment)
    terminal.until(">")
    terminal.type("hello\r")
    terminal.until("ok\r\n.*>")
    terminal.close()
    assert terminal.end() == 129


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_ctrl_c_before_there_is_a_connection_is_status_130(
    tmp_path: Path, opened: ExitStack, term: str
) -> None:
    listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    listening.settimeout(PATIENCE)
    target = f"tls:127.0.0.1:{listening.getsockname()[1]}"
    terminal = sending(target, tmp_path, opened, TERM=term)
    connection = opened.enter_context(closing(listening.accept()[0]))
    connection.settimeout(PATIENCE)
    # It greets, and waits.
    assert connection.recv(1)
    terminal.type("\x03")
    terminal.until(f"interrupted before there was a connection to {target}\r\n")
    assert terminal.end() == 130


def test_with_retry_there_is_a_prompt_before_there_is_a_connection(
    tmp_path: Path, opened: ExitStack, closed_number: ClosedNumber
) -> None:
    target = f"127.0.0.1:{closed_number(socket.SOCK_STREAM)}"
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    command = ["sockservice", "send", "--retry", target]
    terminal = OnTerminal(command, opened, environment=environment)
    terminal.until(">.*Connection refused; trying again in .*>")
    terminal.type("half")
    terminal.until("half")
    server = opened.enter_context(socket.create_server(("127.0.0.1", int(target[10:]))))
    server.settimeout(PATIENCE)
    terminal.type(" and whole\n")
    connection = opened.enter_context(closing(server.accept()[0]))
    connection.settimeout(PATIENCE)
    assert connection.recv(100) == b"half and whole\n"
    connection.sendall(b"good\n")
    terminal.until("good\r\n.*>")
    terminal.type("\x04")
    assert terminal.end() == 0


def test_without_the_editor_there_is_a_hint(service: Service, opened: ExitStack) -> None:
    without = "import sys; sys.modules['prompt_toolkit'] = None; "
    command = f"{without} from sockservice.cli import main; main()"
    terminal = OnTerminal([sys.executable, "-c", command, "send", tcp(service)], opened)
    terminal.until(r"install sockservice\[prompt\]\r\n")
    terminal.until("> ")
    terminal.type("hello\n")
    terminal.until("hello\r\n> \r  \rok\r\n> ")
    terminal.type("\x04")
    terminal.until("\r\n")
    assert terminal.end() == 0
