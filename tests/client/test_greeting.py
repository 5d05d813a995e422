"""Servers that greet, answer in several lines, want lines without a reply, or go on in TLS."""

import socket
import threading
from contextlib import suppress
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from sockservice import (
    Chunks,
    DatagramClient,
    Framer,
    Framing,
    LineClient,
    Lines,
    TimedOut,
    Unanswered,
    connect,
)
from sockservice.client.line import BEHIND
from tests.cli.test_cli import Answer, answering, outcome, silence
from tests.client.test_sending import Sender
from tests.conftest import Children, HandReactor, Log, Reactor, failure, turn
from tests.doubles import Outcome

__all__ = ["answering"]


class Far(StringTransport):
    """The transport of a client in memory, which may begin TLS."""

    cut = False
    tls: object = None

    def abortConnection(self) -> None:
        self.cut = True

    def startTLS(self, options: object) -> None:
        self.tls = options


class Multi(Framer):
    """Takes the lines of an SMTP reply as one (RFC 5321, 4.2.1)."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.parts: list[bytes] = []

    def take(self, most: int) -> Any:
        while isinstance(item := super().take(1), Lines):
            self.parts += item.lines
            if item.lines[0][3:4] != b"-":
                parts, self.parts = self.parts, []
                return Lines([b"\n".join(parts)], item.ending)
        return item


def made(*arguments: Any, **how: Any) -> tuple[LineClient, Far, Clock]:
    clock, wire = Clock(), Far()
    client = LineClient(clock, *arguments, **how)
    client.makeConnection(wire)
    return client, wire, clock


# Greetings


@pytest.mark.parametrize("cut", [1, 3, 100])
def test_a_greeting_is_no_reply(cut: int) -> None:
    client, _, _ = made(greeting=True)
    asked, greeted = Outcome(client.ask(b"a")), Outcome(client.greeted())
    stream = b"220 hello\nA\n"
    for at in range(0, len(stream), cut):
        client.dataReceived(stream[at : at + cut])
    assert (client.greeting, greeted.value, asked.value) == (b"220 hello", None, b"A")
    assert Outcome(client.greeted(1)).value is None
    assert client.outstanding == 0


def test_who_greets_not_is_given_up() -> None:
    client, _, clock = made(greeting=True)
    greeted = Outcome(client.greeted(5))
    clock.advance(5)
    assert isinstance(greeted.error, TimedOut)
    assert str(greeted.error) == "no greeting within 5 seconds"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "connection lost: closed by the server"),
        (b"error busy: 1 connection, the limit\n", "the server ended the connection: error busy"),
    ],
)
def test_an_end_before_the_greeting_is_told(said: bytes, why: str, log: Log) -> None:
    client, _, _ = made(greeting=True)
    greeted = Outcome(client.greeted())
    client.dataReceived(said) if said else None
    client.connectionLost()
    assert str(greeted.error).startswith(why)
    assert isinstance(Outcome(client.greeted()).error, Unanswered)


async def test_connect_waits_for_the_greeting(real: Reactor, answering: Answer) -> None:
    def does(connection: socket.socket) -> None:
        connection.sendall(b"220-a\r\n220 b\r\n")
        connection.sendall(connection.recv(100).upper())
        silence(connection)

    client = await connect(real, answering(does), LineClient, greeting=True, framing=Multi)
    assert client.greeting == b"220-a\n220 b"
    assert await client.ask(b"x") == b"X"
    await client.close()


@pytest.mark.parametrize("said", [b"", b"220 he"])
def test_connect_gives_up_without_one(reactor: HandReactor, answering: Answer, said: bytes) -> None:
    accepted = threading.Event()

    def does(connection: socket.socket) -> None:
        accepted.set()
        connection.sendall(said)
        silence(connection)

    outcome = Outcome(connect(reactor, answering(does), greeting=True, timeout=5))
    # Time goes by for the greeting alone.
    reactor.until(accepted.is_set)
    reactor.until(lambda: outcome.came, passing=0.5)
    assert str(outcome.error) == "no greeting within 5 seconds"
    reactor.advance(0)  # in which the connection is cut


async def test_connect_is_cancelled_while_it_waits(real: Reactor, answering: Answer) -> None:
    # The server sees the end of the connection, or its thread would not end.
    connecting = connect(real, answering(silence), greeting=True, timeout=60)
    real.callLater(0.05, connecting.cancel)
    assert type(await failure(connecting)).__name__ == "CancelledError"
    await turn()


@pytest.mark.parametrize(
    ("target", "kind", "how", "why"),
    [
        ("udp:127.0.0.1:9", None, {"greeting": True}, "datagrams have no connection"),
        ("udp:127.0.0.1:9", LineClient, {}, "is for a DatagramClient, not a LineClient"),
        ("127.0.0.1:9", DatagramClient, {}, "is for a LineClient, not a DatagramClient"),
    ],
)
async def test_what_fits_no_target_is_told(
    real: Reactor, target: str, kind: Any, how: Any, why: str
) -> None:
    error = await failure(connect(real, target, kind, **how))
    assert isinstance(error, ValueError) and why in str(error)


def test_a_sender_waits_for_each_greeting_before_it_sends() -> None:
    sender = Sender(greeting=True, timeout=7)
    sender.startService()
    reply = Outcome(sender.send(b"a"))
    [wire] = sender.endpoint.wires
    assert wire.lines == []
    wire.answer(b"220 hello")
    assert wire.lines == [b"a"]
    wire.lose(ConnectionDone())
    sender.clock.advance(1)
    _, again = sender.endpoint.wires
    again.answer(b"220 hello", b"A")
    assert reply.value == b"A"


def test_a_sender_tries_again_where_there_is_none() -> None:
    sender = Sender(greeting=True, timeout=7)
    sender.startService()
    sender.send(b"a")
    sender.clock.advance(7)
    assert sender.heard == [("no greeting within 7 seconds", 1.0, 1)]
    sender.clock.advance(1)
    assert len(sender.endpoint.wires) == 2


# Lines without a reply, replies of several lines


def test_a_line_may_be_told() -> None:
    client, wire, _ = made(ending=b"\r\n")
    first = Outcome(client.ask(b"DATA"))
    assert client.tell(b"text") and client.tell(b"")
    last = Outcome(client.ask(b"."))
    assert wire.value() == b"DATA\r\ntext\r\n\r\n.\r\n"
    client.dataReceived(b"354 go on\r\n250 ok\r\n")
    assert (first.value, last.value) == (b"354 go on", b"250 ok")
    with pytest.raises(ValueError, match="a line holds no LF"):
        client.tell(b"two\nlines")
    client.connectionLost()
    assert not client.tell(b"gone")


@pytest.mark.parametrize("cut", [1, 4, 100])
def test_a_reply_may_be_several_lines(cut: int) -> None:
    client, wire, _ = made(Multi)
    got: list[bytes] = []
    client.askAll([b"EHLO", b"QUIT"], got.extend)
    assert wire.value() == b"EHLO\nQUIT\n"
    stream = b"250-a\r\n250-b\r\n250 c\r\n221 bye\r\n"
    for at in range(0, len(stream), cut):
        client.dataReceived(stream[at : at + cut])
    assert got == [b"250-a\n250-b\n250 c", b"221 bye"]


class Quoted(Framer):
    """Writes lines its own way."""

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        return b"".join(b'"%b"\n' % reply.replace(b"\n", b"\\n") for reply in replies)


def test_lines_sent_at_once_are_written_by_the_framing() -> None:
    client, wire, _ = made(Quoted)
    client.askAll([b"a", b"b\nc"], print)
    assert wire.value() == b'"a"\n"b\\nc"\n'


class Broken(Framing):
    """Fails as the stream says."""

    stateless = True

    def take(self, most: int) -> Any:
        data = self.release()
        if data.startswith(b"?"):
            raise ValueError("no such thing")
        if data.startswith(b"!"):
            raise ZeroDivisionError
        return Lines([data], b"") if data else None

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        if b"never" in replies:
            raise ValueError("never")
        return b"".join(replies)


def test_a_framing_that_understands_nothing_ends_the_connection(log: Log) -> None:
    for said, why in ((b"?", "no such thing"), (b"!", "internal error")):
        client, wire, _ = made(Broken)
        one, two = Outcome(client.ask(b"a")), Outcome(client.ask(b"b"))
        client.dataReceived(b"A")
        client.dataReceived(said)
        assert wire.cut
        client.connectionLost()
        assert one.value == b"A"
        assert str(two.error) == f"what the server sends can't be understood: {why}"
    assert len(log.failures(ZeroDivisionError)) == 1


def test_a_line_that_a_sender_cannot_write_is_nobody_elses_fault() -> None:
    sender = Sender(framing=Broken)
    sender.startService()
    one, two, three = (Outcome(sender.send(each)) for each in (b"a", b"never", b"c"))
    assert str(two.error) == "a line can't be framed: never"
    [wire] = sender.endpoint.wires
    wire._protocol.dataReceived(b"A")
    wire._protocol.dataReceived(b"C")
    assert (one.value, three.value, sender.outstanding) == (b"A", b"C", 0)


# TLS


def test_tls_begins_behind_the_reply() -> None:
    client, wire, _ = made()
    client.ask(b"STARTTLS").addCallback(lambda _: client.startTLS("options"))
    client.dataReceived(b"220 go on\n")
    assert wire.tls == "options"


@pytest.mark.parametrize("chunks", [[b"220 go on\n250 no\n"], [b"220 go on\n25"]])
def test_plain_text_behind_the_reply_is_not_taken_for_what_tls_protects(
    chunks: list[bytes],
) -> None:
    """dinhvh/libetpan 386: replies that were injected answered what TLS protected."""
    client, wire, _ = made()
    client.ask(b"STARTTLS").addCallback(lambda _: client.startTLS("options"))
    for chunk in chunks:
        client.dataReceived(chunk)
    assert wire.cut
    client.connectionLost()
    assert str(Outcome(client.ask(b"a")).error) == BEHIND


def test_tls_needs_silence_and_tcp() -> None:
    client, _, _ = made()
    client.ask(b"a")
    with pytest.raises(RuntimeError, match="no reply is awaited"):
        client.startTLS("options")
    plain = LineClient(Clock())
    plain.makeConnection(StringTransport())
    with pytest.raises(RuntimeError, match="begins on a TCP connection"):
        plain.startTLS("options")


def test_a_transport_that_is_gone_is_left_alone() -> None:
    """Twisted's TCP transport in TLS has no protocol any more to pass things on to."""
    client, wire, _ = made()
    reply, closed = Outcome(client.ask(b"a")), Outcome(client.close())
    wire.unregisterProducer = lambda: 1 / 0  # type: ignore[method-assign]
    client.connectionLost()
    assert isinstance(reply.error, Unanswered)
    assert closed.value is None


# The commands

REPLIES = """
from sockservice import Framer, Lines


class Replies(Framer):
    def __init__(self, limit):
        super().__init__(limit)
        self.parts = []

    def take(self, most):
        while isinstance(item := super().take(1), Lines):
            self.parts += item.lines
            if item.lines[0][3:4] != b"-":
                parts, self.parts = self.parts, []
                return Lines([b" ".join(parts)], item.ending)
        return item


class Torn(Framer):
    def take(self, most):
        raise ValueError("no sense")


def none(limit):
    return limit


def bad(limit):
    raise KeyError
"""


def greeting(connection: socket.socket) -> None:
    with suppress(ConnectionError):
        connection.sendall(b"220 hello\r\n")
        with connection.makefile("rb") as received:
            while line := received.readline():
                connection.sendall(b"250-you said\r\n250 " + line.strip() + b"\r\n")


def test_send_greeting_and_framing(children: Children, answering: Answer) -> None:
    (children.folder / "smtp.py").write_text(REPLIES)
    options = ["--greeting", "--framing", "smtp.Replies"]
    done = children.run("sockservice", "send", *options, answering(greeting), "a", "b")
    assert outcome(done) == (0, b"250-you said 250 a\n250-you said 250 b\n", "")
    options = ["--greeting", "--framing", "smtp:Replies", "--retry"]
    done = children.run("sockservice", "send", *options, answering(greeting), "a", "b")
    assert outcome(done) == (0, b"250-you said 250 a\n250-you said 250 b\n", "")


def test_ping_greeting_and_framing(children: Children, answering: Answer) -> None:
    (children.folder / "smtp.py").write_text(REPLIES)
    options = ["--greeting", "--framing", "smtp.Replies", "--count", "2", "--interval", "0.01"]
    done = children.run("sockservice", "ping", *options, answering(greeting))
    assert done.returncode == 0
    assert b"sent 2, received 2, lost 0" in done.stdout


def test_bench_waits_for_a_greeting(children: Children, answering: Answer) -> None:
    def does(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\n")
        with suppress(ConnectionError), connection.makefile("rb") as received:
            while line := received.readline():
                connection.sendall(line)

    options = ["--greeting", "--connections", "1", "--duration", "0.1", "--warmup", "0"]
    done = children.run("sockservice", "bench", *options, answering(does))
    assert (done.returncode, b"faults    none" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "nosuch",
            "no such framing: nosuch; built in are lines, chunks, relp, octet-counted; a class",
        ),
        ("nosuch.Class", "no such module: nosuch"),
        ("smtp.Nosuch", "module smtp has no class Nosuch"),
        ("smtp.none", "smtp.none is no Framing"),
        ("smtp.bad", "smtp.bad cannot be made: KeyError: "),
        ("torn.Class", "importing torn failed: SyntaxError: "),
    ],
)
def test_a_framing_that_is_none_is_told_in_one_line(
    children: Children, name: str, why: str
) -> None:
    (children.folder / "smtp.py").write_text(REPLIES)
    (children.folder / "torn.py").write_text("(")
    for command in ("send", "ping"):
        done = children.run("sockservice", command, "--framing", name, "127.0.0.1:1")
        assert done.returncode == 2
        assert (
            f"sockservice {command}: Invalid value for '--framing': {why}" in done.stderr.decode()
        )
        assert b"Traceback" not in done.stderr


def test_a_stream_that_a_framing_cannot_take_is_told(children: Children, answering: Answer) -> None:
    (children.folder / "smtp.py").write_text(REPLIES)
    done = children.run("sockservice", "send", "--framing", "smtp.Torn", answering(greeting), "a")
    assert outcome(done) == (
        1,
        b"",
        "sent 1, acknowledged 0: what the server sends can't be understood: no sense; "
        "line 1 is unacknowledged\n",
    )


def test_no_greeting_is_no_connection(children: Children, answering: Answer) -> None:
    target = answering(silence)
    # Time enough to be connected on a busy machine, which is counted apart.
    options = ["--greeting", "--connect-timeout", "2"]
    done = children.run("sockservice", "send", *options, target, "a")
    said = f"could not connect to {target}: no greeting within 2 seconds"
    assert (done.returncode, done.stderr.decode().partition(";")[0].strip()) == (3, said)


def test_chunks_have_no_endings() -> None:
    client, wire, _ = made(Chunks)
    asked = Outcome(client.ask(b"a\nb"))
    client.dataReceived(b"ok")
    assert (wire.value(), asked.value) == (b"a\nb", b"ok")
