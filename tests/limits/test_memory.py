"""The bytes that all connections hold: counted exactly, and bounded by ending the largest."""

import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from sockservice import Ack, LineFactory, LineServer
from sockservice.errors import StoreError
from sockservice.limits.memory import MemoryLimit
from sockservice.net.outbox import BUFFER_SIZE
from sockservice.server.answers import Answer
from sockservice.server.replies import AWAITED_SIZE
from sockservice.store.engine import Batch
from sockservice.wire.chunks import Chunks, Packets
from sockservice.wire.framer import Framer
from sockservice.wire.framing import LINE_SIZE, LINES_SIZE
from sockservice.wire.telnet import Telnet
from tests.conftest import HandReactor, Log, Running
from tests.doubles import Slow, Wire

# Who has to make room


class Holding:
    """Holds what it is told to, and says what it was told."""

    def __init__(self, memory: MemoryLimit, size: int) -> None:
        self._memory = memory
        self.told: list[str] = []
        memory.hold(self, size)

    def makeRoom(self, reason: str) -> None:
        self.told.append(reason)
        self._memory.hold(self, 0)


def test_those_that_hold_most_make_room_until_a_quarter_is_free() -> None:
    memory = MemoryLimit(100)
    sizes = (10, 30, 20, 5, 35)
    holding = [Holding(memory, size) for size in sizes]
    assert memory.held == 100
    memory.hold(holding[0], 11)
    reason = "busy: 100 bytes held for all connections, the limit; try again later"
    assert [each.told for each in holding] == [[], [], [], [], [reason]]
    assert memory.held == 66
    memory.hold(holding[3], 40)
    assert [bool(each.told) for each in holding] == [False, False, False, True, True]
    assert memory.held == 61


def test_as_many_make_room_as_are_needed() -> None:
    memory = MemoryLimit(100)
    holding = [Holding(memory, 10) for _ in range(11)]
    assert len([each for each in holding if each.told]) == 4
    assert memory.held == 70


def test_whoever_asks_for_too_much_may_be_told_itself() -> None:
    memory = MemoryLimit(100)
    small, large = Holding(memory, 40), Holding(memory, 101)
    assert (small.told, len(large.told), memory.held) == ([], 1, 40)


def test_no_limit_is_none() -> None:
    memory = MemoryLimit(0)
    assert Holding(memory, 2**40).told == []


def test_a_limit_that_is_lowered_holds_from_the_next_byte_on() -> None:
    memory = MemoryLimit(100)
    first, second = Holding(memory, 50), Holding(memory, 40)
    memory.most = 80
    memory.hold(second, 41)
    assert (len(first.told), second.told, memory.held) == (1, [], 41)


def test_one_that_fails_to_make_room_does_not_end_the_limit() -> None:
    class Failing(Holding):
        def makeRoom(self, reason: str) -> None:
            raise ZeroDivisionError

    memory = MemoryLimit(100)
    failing = Failing(memory, 60)
    with pytest.raises(ZeroDivisionError):
        Holding(memory, 41)
    memory.hold(failing, 0)
    large = Holding(memory, 101)
    assert len(large.told) == 1


# What a connection holds


class SlowBatch(Slow):
    """Answers batches so."""

    def answers(self, lines: list[bytes]) -> list[Answer] | Awaitable[Sequence[bytes | None]]:
        whole: Deferred[Sequence[bytes | None]] = Deferred()
        self.due.append(Deferred())
        self.due[-1].addCallback(lambda answer: whole.callback([answer] * len(lines)))
        return whole


class Connection:
    """A connection in memory."""

    def __init__(self, factory: LineFactory) -> None:
        self.wire = Wire()
        self.server = factory.buildProtocol(self.wire.getPeer())
        self.server.makeConnection(self.wire)
        self.ended = False

    @property
    def producer(self) -> Any:
        """What the transport tells how fast the peer reads."""
        return self.wire.producer

    @property
    def reads(self) -> bool:
        return self.wire.producerState == "producing" and not self.ended

    def send(self, data: bytes) -> None:
        self.server.dataReceived(data)

    def lose(self) -> None:
        if not self.ended:
            self.ended = True
            self.server.connectionLost(Failure(ConnectionDone()))


def factory(protocol: Callable[[], LineServer], most: int = 0, **settings: Any) -> LineFactory:
    return LineFactory(Clock(), protocol, memory=MemoryLimit(most), **settings)


def test_unfinished_lines_are_held() -> None:
    made = factory(Ack, lineLimit=1000)
    connection = Connection(made)
    connection.send(b"a\n" + b"x" * 100)
    assert made.memory.held == 100
    connection.send(b"x" * 100)
    assert made.memory.held == 200
    connection.send(b"\n")
    assert made.memory.held == 0
    connection.send(b"x" * 5000)
    assert made.memory.held == 0, "what is dropped is not held"
    connection.send(b"\nhalf")
    assert made.memory.held == 4
    connection.lose()
    assert made.memory.held == 0


def test_awaited_answers_are_held_with_their_lines_then_with_their_replies() -> None:
    made = factory(Slow)
    connection = Connection(made)
    connection.send(b"0123456789\n" * 2)
    assert made.memory.held == 2 * (10 + AWAITED_SIZE)
    connection.server.due[1].callback(b"xyz")
    assert made.memory.held == 10 + AWAITED_SIZE + len(b"xyz\n")
    connection.server.due[0].callback(b"")
    assert made.memory.held == 0
    assert connection.wire.value() == b"\nxyz\n"


def test_awaited_batches_are_held_with_their_lines() -> None:
    made = factory(SlowBatch)
    connection = Connection(made)
    connection.send(b"0123456789\n" * 3)
    assert made.memory.held == 30 + AWAITED_SIZE
    connection.server.due[0].callback(b"")
    assert made.memory.held == 0


def test_replies_that_nobody_reads_are_held() -> None:
    made = factory(Slow)
    connection = Connection(made)
    connection.send(b"a\nb\n")
    connection.producer.pauseProducing()
    connection.server.due[0].callback(b"x" * 1000)
    assert made.memory.held == BUFFER_SIZE + 1001 + 1 + AWAITED_SIZE
    connection.server.due[1].callback(b"")
    assert made.memory.held == BUFFER_SIZE + 1002
    connection.producer.resumeProducing()
    assert made.memory.held == 0


def test_a_telnet_clients_bytes_are_held_until_they_are_lines() -> None:
    made = factory(Ack)
    connection = Connection(made)
    connection.send(b"\xff\xf4\xff\xfd\x06half")
    assert made.memory.held == 4
    connection.send(b"\r\nagain")
    assert made.memory.held == 5
    connection.send(b"\r\n")
    assert made.memory.held == 0


@pytest.mark.parametrize(
    ("framing", "received", "held"),
    [
        (Chunks, [b"abc", b"de"], 5 + 2 * LINE_SIZE),
        (Packets, [b"abc", b"de"], 5 + 2 * LINE_SIZE),
        (Framer, [b"abc\n", b"de"], 6),
        (lambda limit: Telnet(Framer(limit), first=True), [b"abc\n", b"de"], 6),
    ],
)
def test_a_framing_says_what_it_keeps(
    framing: Callable[[int], Any], received: list[bytes], held: int
) -> None:
    made = framing(1000)
    for data in received:
        made.receive(data)
    assert made.held == held
    while made.take(1) is not None:
        pass
    assert made.held in (0, 2)


def test_short_lines_that_end_in_turn_differently_weigh_what_they_take_up() -> None:
    framer = Framer(1000)
    framer.receive(b"\n\r\n" * 100)
    assert framer.held == 300
    framer.take(200)
    assert framer.held == 199 * (LINES_SIZE + LINE_SIZE)
    framer = Framer(3)
    framer.receive(b"\nlong\n" * 2)
    framer.take(4)
    assert framer.held == 3 * LINES_SIZE + LINE_SIZE


def test_what_is_told_unasked_is_held_until_it_is_read() -> None:
    made = factory(Ack)
    connection = Connection(made)
    connection.wire.full = True
    assert connection.server.tell(b"x" * 99)
    assert made.memory.held == BUFFER_SIZE + 100
    connection.producer.resumeProducing()
    assert made.memory.held == 0


# What happens at the limit

BUSY = b"error busy: 10000 bytes held for all connections, the limit; try again later\n"


def test_the_largest_is_told_and_closed_and_bystanders_are_not(log: Log) -> None:
    made = factory(Slow, 10_000)
    large, small = Connection(made), Connection(made)
    small.send(b"x" * 1000 + b"\n")
    large.send(b"y" * 7000 + b"\n")
    assert large.wire.value() == b""
    small.send(b"x" * 1001)
    assert large.wire.value() == BUSY
    assert large.wire.disconnecting
    assert made.memory.held == 2001 + AWAITED_SIZE
    assert made.counters.overheld == 1
    assert [text for text in log.texts if "refused: busy: 10000 bytes held" in text]
    large.send(b"more\n" * 10_000)
    large.lose()
    assert large.wire.value() == BUSY
    assert made.memory.held == 2001 + AWAITED_SIZE
    small.server.due[0].callback(b"fine")
    assert small.wire.value() == b"fine\n"


def test_awaited_answers_are_cancelled_in_favour_of_the_others() -> None:
    made = factory(Slow, 10_000)
    large = Connection(made)
    large.send(b"\n" * (10_000 // AWAITED_SIZE))
    assert large.wire.value() == b""
    large.send(b"\n")
    assert large.wire.value() == BUSY
    assert all(due.called for due in large.server.due)
    assert made.memory.held == 0
    large.lose()
    assert made.counters.cut == 1


def test_who_does_not_read_is_cut(log: Log) -> None:
    made = factory(Slow, BUFFER_SIZE + 5000)
    deaf = Connection(made)
    deaf.send(b"a\nb\n")
    deaf.wire.full = True
    deaf.server.due[0].callback(b"x" * 10_000)
    assert b"error" not in deaf.wire.value()
    assert deaf.wire.cut
    assert made.memory.held == 0
    assert [text for text in log.texts if " cut: busy: " in text]
    deaf.lose()
    assert made.memory.held == 0


def test_the_reply_ends_a_session_of_chunks_as_its_replies_end() -> None:
    class SlowChunks(Slow):
        framing = staticmethod(Chunks)

    made = factory(SlowChunks, 10_000)
    chunks = Connection(made)
    for _ in range(10_000 // AWAITED_SIZE + 1):
        assert chunks.wire.value() in (b"", BUSY.rstrip())
        chunks.send(b"x")
    assert chunks.wire.value() == BUSY.rstrip()


@pytest.mark.parametrize("before", [b"", b"first\n"])
def test_who_makes_room_while_its_lines_are_answered_says_no_more(before: bytes) -> None:
    """Its answers make another hold so much that it is told to end itself."""
    others: list[Deferred[bytes | None]] = []

    class Pushing(LineServer):
        def answers(self, lines: list[bytes]) -> list[Answer]:
            if lines == [b"wait"] * 2:
                others.extend([Deferred(), Deferred()])
                return list(others)
            if lines == [b"first"]:
                return [Deferred()]
            others[1].callback(b"x" * 5000)
            return [b"pushed"] * len(lines)

    made = factory(Pushing, 10_000)
    pushed, pushing = Connection(made), Connection(made)
    pushed.send(b"wait\nwait\n")
    if before:
        pushing.send(before)
    pushing.send(b"y" * 8000)
    pushing.send(b"\npush\n")
    assert pushing.wire.value() == BUSY
    assert pushing.wire.disconnecting
    assert pushing.reads
    others[0].callback(b"")
    assert pushed.wire.value() == b"\n" + b"x" * 5000 + b"\n"
    pushing.lose()
    pushed.lose()
    assert made.memory.held == 0


def test_who_goes_while_the_store_is_full_is_forgotten() -> None:
    store = Kept()
    store.full = True
    made = factory(Ack, store=store)
    connection = Connection(made)
    connection.send(b"a\n")
    connection.send(b"b\nc\n" + b"x" * 100)
    assert made.memory.held == 1 + 104
    connection.lose()
    assert made.memory.held == 0
    store.ready()
    assert made.memory.held == 0


def test_an_answer_that_cannot_be_cancelled_holds_up_nobody(log: Log) -> None:
    def canceller(_: Deferred[Any]) -> None:
        raise ZeroDivisionError("\x1b[2J")

    class Stubborn(LineServer):
        def answer(self, line: bytes) -> Answer:
            return Deferred(canceller)

    made = factory(Stubborn, 10_000)
    connection, other = Connection(made), Connection(made)
    connection.send(b"a\nb\n")
    other.send(b"x" * 5000)
    connection.send(b"x" * 8999)
    assert connection.wire.value() == BUSY
    assert made.memory.held == 5000
    connection.lose()
    failures = log.failures(ZeroDivisionError)
    assert len(failures) == 2
    assert "\x1b" not in failures[0].getTraceback()


def test_an_answer_that_comes_although_cancelled_weighs_nothing() -> None:
    class Deaf(LineServer):
        due: Any = None

        async def awaiting(self) -> bytes:
            with suppress(BaseException):
                await self.due[0]
            await self.due[1]
            return b"x" * 100

        def answer(self, line: bytes) -> Answer:
            self.due = [Deferred[None](), Deferred[None]()]
            return self.awaiting()

    made = factory(Deaf)
    connection = Connection(made)
    connection.send(b"a\n")
    connection.lose()
    assert made.memory.held == 0
    connection.server.due[1].callback(None)
    assert not connection.server.tell(b"late")
    assert made.memory.held == 0
    assert connection.wire.value() == b""


class Kept:
    """A store whose lines are durable, and which has room, when the test says so."""

    full = False

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []
        self._stored: list[Callable[[StoreError | None], None]] = []

    def put(self, batch: Batch, stored: Callable[[StoreError | None], None]) -> None:
        self._stored.append(stored)

    def room(self) -> Deferred[None]:
        self._waiting.append(Deferred())
        return self._waiting[-1]

    def ready(self, problem: StoreError | None = None) -> None:
        self.full = False
        stored, self._stored = self._stored, []
        for each in stored:
            each(problem)
        waiting, self._waiting = self._waiting, []
        for room in waiting:
            room.callback(None)


class Traffic(RuleBasedStateMachine):
    """Whatever comes and goes: what is held is what the connections hold, within the limit."""

    MOST = 3 * BUFFER_SIZE

    def __init__(self) -> None:
        super().__init__()
        self.factory = factory(Slow, self.MOST, lineLimit=100)
        self.store = Kept()
        clock, memory = self.factory.reactor, self.factory.memory
        self.storing = LineFactory(clock, Ack, lineLimit=100, memory=memory, store=self.store)  # type: ignore[arg-type]
        self.connections: list[Connection] = []

    def _one(self, data: st.DataObject) -> Connection:
        live = [each for each in self.connections if not each.ended]
        return data.draw(st.sampled_from(live))

    @precondition(lambda self: sum(not each.ended for each in self.connections) < 5)
    @rule(stores=st.booleans())
    def come(self, stores: bool) -> None:
        self.connections.append(Connection(self.storing if stores else self.factory))

    @rule(full=st.booleans())
    def store_is(self, full: bool) -> None:
        self.store.full = full

    @rule(fails=st.booleans())
    def store_has_room(self, fails: bool) -> None:
        self.store.ready(StoreError("disk full", retry=True) if fails else None)

    live = precondition(lambda self: any(not each.ended for each in self.connections))

    @live
    @rule(
        data=st.data(),
        sent=st.lists(
            st.sampled_from(
                [b"a\n", b"b\r\n", b"x" * 90, b"x" * 2000, b"\n" * 50, b"\xff\xf4", b"\xff\xf6"]
            ),
            max_size=4,
        ).map(b"".join),
    )
    def send(self, data: st.DataObject, sent: bytes) -> None:
        one = self._one(data)
        if one.reads and sent:
            one.send(sent)

    @live
    @rule(data=st.data(), reply=st.sampled_from([b"", None, b"x" * 5000, ZeroDivisionError()]))
    def answer(self, data: st.DataObject, reply: Any) -> None:
        one = self._one(data)
        due = [each for each in getattr(one.server, "due", ()) if not each.called]
        if due and isinstance(reply, Exception):
            from sockservice.errors import Refused

            data.draw(st.sampled_from(due)).errback(Refused("no"))
        elif due:
            data.draw(st.sampled_from(due)).callback(reply)

    @live
    @rule(data=st.data())
    def fill(self, data: st.DataObject) -> None:
        self._one(data).wire.full = True

    @live
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        one = self._one(data)
        one.wire.full = False
        if one.wire.producer is not None:
            one.producer.resumeProducing()

    @live
    @rule(data=st.data(), does=st.sampled_from(["close", "finish", "tell", "half-close"]))
    def end(self, data: st.DataObject, does: str) -> None:
        one = self._one(data)
        if does == "tell":
            one.server.tell(b"told")
        elif does == "half-close":
            if one.reads:
                IHalfCloseableProtocol(one.server).readConnectionLost()
        else:
            getattr(one.server, does)()

    @live
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self._one(data).lose()

    @invariant()
    def exact(self) -> None:
        memory = self.factory.memory
        for each in self.connections:
            server = each.server
            assert (
                server._weight
                == server._intake.framing.held + server._replies.held + server._outbox.queued
            )
            assert not (server._weight and each.ended)
        assert memory.held == sum(each.server._weight for each in self.connections)
        assert memory.held <= self.MOST

    def teardown(self) -> None:
        for each in self.connections:
            each.lose()
        assert self.factory.memory.held == 0
        assert not self.factory.memory._of
        assert [call for call in self.factory.reactor.getDelayedCalls() if call.active()] == []


Traffic.TestCase.settings = settings(max_examples=40, stateful_step_count=40)
TestTraffic = Traffic.TestCase


# Real sockets


def test_floods_make_room_for_a_bystander(running: Running, reactor: HandReactor, log: Log) -> None:
    running.start("--listen", "echo@tcp:0:interface=127.0.0.1", "--memory-limit", "1M")
    port = running.addresses[0][2]
    bystander = running.peer("127.0.0.1", port)
    bystander.sendall(b"half ")
    floods = [running.peer("127.0.0.1", port) for _ in range(40)]
    for flood in floods:
        flood.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        flood.sendall(b"x" * 60_000)
    cut = [text for text in log.texts if " 1048576 bytes held for all connections" in text]
    reactor.until(lambda: [text for text in log.texts if "bytes held" in text])
    told = 0
    busy = b"error busy: 1048576 bytes held for all connections, the limit; try again later\n"
    for flood in floods:
        flood.setblocking(False)
        with suppress(BlockingIOError):
            told += flood.recv(1000) == busy
    assert told >= 5, cut
    bystander.sendall(b"line\n")
    assert reactor.received(bystander, 10) == b"half line\n"
