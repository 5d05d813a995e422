"""What a protocol may answer, and what its framing and its words may do."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from sockservice import Ack, Answer, Framer, Framing, LineFactory, Lines, LineServer, Refused
from sockservice.limits.admission import Admission, Limits
from sockservice.limits.memory import MemoryLimit
from tests.conftest import Log


class Served:
    """A LineServer on a transport in memory."""

    def __init__(self, protocol: Callable[[], LineServer], **settings: Any) -> None:
        self.clock = Clock()
        self.factory = LineFactory(self.clock, protocol, **settings)
        self.wire = StringTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", 1))
        self.server: Any = self.factory.buildProtocol(self.wire.getPeer())
        self.server.makeConnection(self.wire)

    def send(self, *chunks: bytes) -> bytes:
        """Receive chunks; return what has been sent since."""
        for chunk in chunks:
            self.server.dataReceived(chunk)
        return self.sent

    @property
    def sent(self) -> bytes:
        data: bytes = self.wire.value()
        self.wire.clear()
        return data

    def reads(self, does: bool) -> None:
        """Have the peer read, or not."""
        producer: Any = self.wire.producer
        producer.resumeProducing() if does else producer.pauseProducing()

    def end(self) -> None:
        IHalfCloseableProtocol(self.server).readConnectionLost()

    def lose(self) -> None:
        self.server.connectionLost(Failure(ConnectionDone()))


CUTS = [[b"a\nlist\nb\n"], [b"a\n", b"list\n", b"b\n"], [b"a\nli", b"st\nb", b"\n"]]


class Listing(LineServer):
    """Answers `list` with lines, in every way there is."""

    def __init__(self, way: str) -> None:
        self.way = way

    def answer(self, line: bytes) -> Answer:
        if line != b"list":
            return line
        if self.way == "list":
            return [b"1", b"2", b"."]
        if self.way == "tell":
            assert self.tell(b"1") and self.tell(b"2")
            return b"."
        if self.way == "tell and await":
            self.tell(b"1")
            return self.later()
        return self.each()

    async def later(self) -> list[bytes]:
        return [b"2", b"."]

    async def each(self) -> AsyncIterator[bytes]:
        for line in (b"1", b"2", b"."):
            yield line


@pytest.mark.parametrize("chunks", CUTS)
@pytest.mark.parametrize("way", ["list", "tell", "tell and await", "iterator"])
def test_an_answer_of_several_lines_stands_in_its_lines_place(
    way: str, chunks: list[bytes]
) -> None:
    served = Served(lambda: Listing(way))
    assert served.send(*chunks) == b"a\n1\n2\n.\nb\n"
    counters = served.factory.counters
    assert (counters.lines, counters.answered, counters.acknowledged) == (3, 3, 3)
    assert served.factory.memory.held == 0


@pytest.mark.parametrize("way", ["list", "tell", "iterator"])
def test_its_lines_end_as_the_line_did(way: str) -> None:
    served = Served(lambda: Listing(way))
    assert served.send(b"list\r\nx\n") == b"1\r\n2\r\n.\r\nx\n"


def test_lines_told_by_a_whole_batch_stand_before_its_replies() -> None:
    class Telling(LineServer):
        def answers(self, lines: list[bytes]) -> list[Answer]:
            self.tell(b"%d:" % len(lines))
            return list(lines)

    assert Served(Telling).send(b"a\nb\n", b"c\n") == b"2:\na\nb\n1:\nc\n"


def test_what_is_told_and_cannot_be_written_is_that_lines_failure(log: Log) -> None:
    class Telling(LineServer):
        def answer(self, line: bytes) -> Answer:
            self.tell(b"two\nlines")
            return line

    assert Served(Telling).send(b"a\n") == b"error internal error\n"
    assert len(log.failures(ValueError)) == 1


class Counting(LineServer):
    """Gives as many lines as are asked for, and notes how far it has come."""

    def __init__(self) -> None:
        self.given = 0
        self.closed_ = False

    def answer(self, line: bytes) -> Answer:
        return self.each(int(line))

    async def each(self, count: int) -> AsyncIterator[bytes]:
        try:
            for number in range(count):
                self.given += 1
                yield b"%d" % number
            if count == 3:
                raise ZeroDivisionError
        finally:
            self.closed_ = True


def test_an_iterator_is_asked_for_no_more_than_the_peer_reads() -> None:
    served = Served(Counting)
    served.reads(False)
    served.reads(True)
    assert served.send(b"2\n") == b"0\n1\n"

    class Full(StringTransport):
        """Has enough after each write."""

        def write(self, data: bytes) -> None:
            super().write(data)
            producer: Any = self.producer
            producer.pauseProducing()

    served = Served(Counting)
    served.wire.__class__ = Full
    assert served.send(b"1000\n") == b"0\n"
    assert served.server.given == 1
    served.reads(True)
    assert (served.sent, served.server.given) == (b"1\n", 2)
    served.lose()
    assert served.server.closed_
    assert served.factory.memory.held == 0


def test_an_iterator_that_fails_ends_with_a_refusal(log: Log) -> None:
    served = Served(Counting)
    assert served.send(b"3\n1\n") == b"0\n1\n2\nerror internal error\n0\n"
    assert len(log.failures(ZeroDivisionError)) == 1
    assert served.factory.counters.refused == 1


def test_an_iterator_waits_for_earlier_replies() -> None:
    first: Deferred[bytes] = Deferred()

    class Waiting(Counting):
        def answer(self, line: bytes) -> Answer:
            return first if line == b"wait" else super().answer(line)

    served = Served(Waiting)
    assert served.send(b"wait\n2\n") == b""
    assert served.server.given == 0
    first.callback(b"now")
    assert served.sent == b"now\n0\n1\n"


def test_ready_fires_when_the_peer_reads_or_goes() -> None:
    served = Served(Ack)
    told: list[bool] = []
    served.server.ready().addCallback(lambda _: told.append(served.server.tell(b"1")))
    assert (told, served.sent) == ([True], b"1\n")
    served.reads(False)
    served.server.ready().addCallback(lambda _: told.append(served.server.tell(b"2")))
    assert told == [True]
    served.reads(True)
    assert (told, served.sent) == ([True, True], b"2\n")
    served.reads(False)
    served.server.ready().addCallback(lambda _: told.append(served.server.tell(b"3")))
    served.lose()
    assert (told, served.sent) == ([True, True, False], b"")


# A framing of one's own


class Numbering(Framer):
    """Writes each reply behind its number: a framing with a state."""

    stateless = False

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.number = 0

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        assert all(type(reply) is bytes for reply in replies)
        numbered = []
        for reply in replies:
            self.number += 1
            numbered.append(b"%d %b" % (self.number, reply))
        return super().encode(numbered, ending)


def test_encode_is_called_once_for_each_reply_in_order(log: Log) -> None:
    late: list[Deferred[bytes]] = []

    class Mixed(LineServer):
        framing = Numbering

        def answer(self, line: bytes) -> Answer:
            if line == b"late":
                late.append(Deferred())
                return late[-1]
            if line == b"fails":
                raise ZeroDivisionError
            return {b"silent": None, b"two": [b"x", b"y"]}.get(line, line)

    served = Served(Mixed)
    sent = served.send(b"a\nsilent\ntwo\nlate\nfails\nlate\nb\n")
    late[1].callback(b"second")
    late[0].callback(b"first")
    sent += served.sent
    assert sent == b"1 a\n2 x\n3 y\n4 first\n5 error internal error\n6 second\n7 b\n"
    assert served.factory.counters.silent == 1
    log.failures(ZeroDivisionError)


class Failing(Framer):
    """Fails where it is told to."""

    stateless = False
    at = ""

    def receive(self, data: bytes) -> None:
        if self.at == "receive":
            raise ZeroDivisionError
        super().receive(data)

    def take(self, most: int) -> Any:
        if self.at == "take":
            raise ZeroDivisionError
        return super().take(most)

    def finish(self) -> Any:
        if self.at == "finish":
            raise ZeroDivisionError
        return super().finish()

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        if self.at == "encode" and b"error internal error" not in replies:
            raise ZeroDivisionError
        if self.at == "encode all":
            raise ZeroDivisionError
        return super().encode(replies, ending)


@pytest.mark.parametrize("at", ["receive", "take", "finish"])
def test_a_framing_that_fails_is_told_and_logged(at: str, log: Log) -> None:
    class Framed(Ack):
        framing = type("Framed", (Failing,), {"at": at, "__slots__": ()})

    served = Served(Framed)
    sent = served.send(b"a\n")
    served.end()
    assert (sent + served.sent).endswith(b"error internal error\n")
    assert served.wire.disconnecting
    assert len(log.failures(ZeroDivisionError)) == 1


@pytest.mark.parametrize("later", [False, True])
def test_a_reply_that_cannot_be_framed_is_refused(later: bool, log: Log) -> None:
    waiting: Deferred[bytes] = Deferred()

    class Framed(LineServer):
        framing = type("Framed", (Failing,), {"at": "encode", "__slots__": ()})

        def answer(self, line: bytes) -> Answer:
            return waiting if later else line

    served = Served(Framed)
    sent = served.send(b"a\n")
    waiting.callback(b"x")
    assert sent + served.sent == b"error internal error\n"
    assert served.factory.counters.refused == 1
    assert len(log.failures(ZeroDivisionError)) == 1


def test_a_framing_that_can_write_nothing_ends_the_connection(log: Log) -> None:
    class Framed(Ack):
        framing = type("Framed", (Failing,), {"at": "encode all", "__slots__": ()})

    served = Served(Framed)
    aborted: list[bool] = []
    served.wire.abortConnection = lambda: aborted.append(True)  # type: ignore[method-assign]
    assert served.send(b"a\n") == b""
    assert aborted == [True]
    assert len(log.failures(ZeroDivisionError)) == 2


# A protocol's own words


class Mail(LineServer):
    """Refuses as SMTP does."""

    ending = b"\r\n"
    answerLimit = 1

    def opened(self) -> None:
        self.tell(b"220 ready")

    def answer(self, line: bytes) -> Answer:
        if line == b"fail":
            raise ZeroDivisionError
        if line == b"refuse":
            raise Refused("no such user")
        return b"250 ok"

    def refusal(self, reason: str) -> bytes:
        return b"554 " + reason.encode()


def test_refusals_are_in_the_protocols_words(log: Log) -> None:
    served = Served(Mail, lineLimit=10, memory=MemoryLimit(0))
    assert served.sent == b"220 ready\r\n"
    assert served.send(b"fail\r\nrefuse\r\n" + b"x" * 11 + b"\r\n") == (
        b"554 internal error\r\n554 no such user\r\n554 line longer than 10 bytes\r\n"
    )
    log.failures(ZeroDivisionError)
    served.server.inspect(0.0, 5, 0)
    served.server.inspect(9.0, 5, 0)
    assert served.sent == b"554 idle for 5 seconds\r\n"
    assert served.factory.counters.timedOut == 1
    assert served.factory.counters.lines == 3


def test_so_are_those_of_memory_and_of_who_is_not_admitted() -> None:
    served = Served(Mail, memory=MemoryLimit(100))
    assert served.send(b"x" * 101).endswith(
        b"\r\n554 busy: 100 bytes held for all connections, the limit; try again later\r\n"
    )
    full = LineFactory(Clock(), Mail, admission=Admission(Limits(connections=1)))
    assert full.buildProtocol(None) is not None
    wire = StringTransport()
    full.buildProtocol(None).makeConnection(wire)
    assert wire.value() == b"554 busy: 1 connection, the limit; try again later\r\n"


def test_words_that_fail_are_replaced(log: Log) -> None:
    class Wordless(Mail):
        def refusal(self, reason: str) -> bytes:
            raise KeyError

    served = Served(Wordless)
    assert served.send(b"refuse\r\n") == b"220 ready\r\nerror no such user\r\n"
    assert len(log.failures(KeyError)) == 1


# Bodies


class Bodied(LineServer):
    """`put N` is followed by N bytes."""

    answerLimit = 1

    def answer(self, line: bytes) -> Answer:
        command, _, size = line.partition(b" ")
        return self.put(int(size)) if command == b"put" else line

    async def put(self, size: int) -> bytes:
        return b"got " + repr(await self.expect(size)).encode()


STREAM = b"a\nput 5\nx\ny\r\nput 0\nb\nput 3\n\n\n\nc\n"
REPLIES = b"a\ngot b'x\\ny\\r\\n'\ngot b''\nb\ngot b'\\n\\n\\n'\nc\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_body_is_taken_as_it_is_however_it_is_cut(size: int) -> None:
    served = Served(Bodied)
    chunks = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert served.send(*chunks) == REPLIES
    assert served.factory.memory.held == 0


def test_a_body_counts_as_held_and_a_torn_one_is_refused() -> None:
    served = Served(Bodied)
    assert served.send(b"put 10\n12345") == b""
    assert served.factory.memory.held >= 5
    served.end()
    assert served.sent == b"error the connection ended in the middle of a body\n"
    assert served.wire.disconnecting


def test_a_body_may_be_expected_later() -> None:
    waiting: Deferred[None] = Deferred()

    class Later(Bodied):
        async def put(self, size: int) -> bytes:
            await waiting
            return await super().put(size)

    served = Served(Later)
    assert served.send(b"put 2\nxyz\n") == b""
    waiting.callback(None)
    assert served.sent == b"got b'xy'\nz\n"


def test_a_body_of_which_nothing_comes_any_more_is_an_unfinished_line() -> None:
    served = Served(Bodied)
    served.send(b"put 10\n")
    for now in range(0, 50, 9):
        # As long as any of it comes, it may take its time.
        assert served.send(b"x") == b""
        served.server.inspect(float(now), 100, 10)
    served.server.inspect(54.9, 100, 10)
    assert served.sent == b""
    served.server.inspect(55.0, 100, 10)
    assert served.sent == (
        b"error the connection ended in the middle of a body\n"
        b"error unfinished line for 10 seconds\n"
    )
    assert served.wire.disconnecting
    assert served.factory.counters.timedOut == 1


def test_a_drain_waits_for_no_body_of_which_a_part_is_missing() -> None:
    served = Served(Bodied)
    served.send(b"put 10\n12345")
    served.server.finish()
    assert served.sent == b"error the connection ended in the middle of a body\n"
    assert served.wire.disconnecting


def test_who_closes_waits_for_no_body() -> None:
    class Closing(Bodied):
        async def put(self, size: int) -> bytes:
            self.close()
            return await super().put(size)

    served = Served(Closing)
    sent = served.send(b"put 2\nxy")
    assert sent == b"error the connection ended in the middle of a body\n"
    assert served.wire.disconnecting


def test_a_body_needs_lines_to_be_taken_one_by_one(log: Log) -> None:
    class Many(Bodied):
        answerLimit = 2

    assert Served(Many).send(b"put 2\n") == b"error internal error\n"
    [failure] = log.failures(RuntimeError)
    assert "answerLimit = 1" in failure.getErrorMessage()


# What speaks another protocol

REQUESTS = [
    b"POST / HTTP/1.1\r\n",
    b"GET /x?y HTTP/1.0\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"M-SEARCH http://x/ HTTP/1.9\r\n",
]
NO_REQUESTS = [
    b"GET / HTTP/1.1 \n",
    b" GET / HTTP/1.1\n",
    b"GET  HTTP/1.1\n",
    b"GET / HTTP/2.0\n",
    b"GET / HTTP/1.\n",
    b"he said: GET / HTTP/1.1\n",
    b"a\nPOST / HTTP/1.1\n",
]


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("cut", [1, 7, 1000])
@pytest.mark.parametrize("protocol", [Ack, type("Own", (Ack,), {"answer": lambda self, _: b"ok"})])
def test_a_web_browser_is_refused_and_nothing_of_it_taken(
    protocol: type[LineServer], request_: bytes, cut: int
) -> None:
    served = Served(protocol)
    stream = request_ + b"Host: x\r\n\r\nline\n"
    chunks = [stream[at : at + cut] for at in range(0, len(stream), cut)]
    assert served.send(*chunks) == b"error this is no web server" + request_[-2:].lstrip(b"019")
    assert served.wire.disconnecting
    counters = served.factory.counters
    assert (counters.http, counters.lines, counters.acknowledged) == (1, 1, 0)


@pytest.mark.parametrize("stream", NO_REQUESTS)
def test_any_other_line_is_a_line(stream: bytes) -> None:
    served = Served(Ack)
    assert served.send(stream) == b"ok\n" * stream.count(b"\n")


def test_requests_may_be_let_in() -> None:
    class Web(Ack):
        http = True

    assert Served(Ack, acceptHttp=True).send(b"GET / HTTP/1.0\n") == b"ok\n"
    assert Served(Web).send(b"GET / HTTP/1.0\n") == b"ok\n"


HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\n" * 32


@pytest.mark.parametrize("cut", [1, 2, 5, 6, 1000])
def test_a_tls_client_is_told_that_there_is_none(cut: int, log: Log) -> None:
    served = Served(Ack)
    chunks = [HELLO[at : at + cut] for at in range(0, len(HELLO), cut)]
    assert served.send(*chunks) == b"error this port does not speak TLS\n"
    assert served.wire.disconnecting
    counters = served.factory.counters
    assert (counters.mismatched, counters.lines) == (1, 0)
    assert [text for text in log.texts if "refused: this port does not speak TLS" in text]


@pytest.mark.parametrize("stream", [b"\x16\n", b"\x16\x03\n", b"\x16\x03\x01\x02\x00\x02\n"])
@pytest.mark.parametrize("cut", [1, 1000])
def test_a_line_may_begin_as_its_hello_does(stream: bytes, cut: int) -> None:
    served = Served(Ack)
    chunks = [stream[at : at + cut] for at in range(0, len(stream), cut)]
    sent = served.send(*chunks)
    served.end()
    assert sent + served.sent == b"ok\n"


def test_silence_is_no_acknowledgement() -> None:
    class Silent(LineServer):
        def answers(self, lines: list[bytes]) -> list[Answer]:
            return []

    class Half(LineServer):
        def answer(self, line: bytes) -> Answer:
            return None if line == b"x" else line

    for protocol, silent in ((Silent, 3), (Half, 1)):
        served = Served(protocol)
        served.send(b"a\nx\nb\n")
        counters = served.factory.counters
        assert (counters.answered, counters.silent) == (3, silent)
        assert counters.acknowledged == 3 - silent


def test_a_framing_without_short_ways_has_none() -> None:
    """What it has replaced must not be passed by."""

    class Trimmed(Framer):
        def take(self, most: int) -> Any:
            item = super().take(most)
            if isinstance(item, Lines):
                return Lines([line.strip() for line in item.lines], item.ending)
            return item

    class Upper(LineServer):
        framing = Trimmed

        def answer(self, line: bytes) -> Answer:
            return line.upper()

    assert Served(Upper).send(b" a \n", b"b  \n") == b"A\nB\n"
    assert Trimmed.whole is Framing.whole and Trimmed.count is Framing.count
