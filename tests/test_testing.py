"""The in-memory pair that tests of one's own protocol use."""

from collections import deque
from typing import Any, ClassVar

import pytest
from twisted.internet.defer import Deferred

from sockservice import Ack, Answer, Chunks, DatagramServer, LineServer, StoreError, TimedOut
from sockservice.testing import DatagramPair, MemoryStore, Pair
from tests.conftest import Log
from tests.doubles import Outcome


class Shout(LineServer):
    def opened(self) -> None:
        self.tell(b"welcome")

    def answer(self, line: bytes) -> Answer:
        if line == b"later":
            self.due: Deferred[bytes | None] = Deferred()
            return self.due
        if line == b"bye":
            self.close()
        return line.upper()


def test_a_server_is_asked_without_sockets() -> None:
    pair = Pair(Shout)
    assert isinstance(pair.server, Shout)
    assert pair.server.peer == "192.0.2.1:50000"
    pair.flush()
    assert pair.client._unasked.kept == deque([b"welcome"])
    replies: list[bytes] = []
    pair.ask(b"hello").addCallback(replies.append)
    assert replies == [b"HELLO"]


def test_the_time_of_both_is_the_pairs() -> None:
    pair = Pair(Shout)
    failures: list[object] = []
    pair.client.ask(b"later", 5).addErrback(failures.append)
    pair.flush()
    pair.clock.advance(5)
    [failure] = failures
    assert getattr(failure, "type", None) is TimedOut


def test_settings_and_framing_are_given() -> None:
    class Chunky(Shout):
        framing = Chunks

        def opened(self) -> None:
            """Say nothing."""

    pair = Pair(Chunky, framing=Chunks, lineLimit=5, verbose=True)
    assert (pair.factory.lineLimit, pair.factory.verbose) == (5, True)
    replies: list[bytes] = []
    pair.ask(b"two\nlines").addCallback(replies.append)
    assert replies == [b"TWO\nLINES"]


def test_a_server_that_closes_is_gone_without_any_waiting() -> None:
    pair = Pair(Shout)
    ended: list[None] = []
    pair.client.disconnected().addCallback(ended.append)
    assert pair.reply(b"bye") == b"BYE"
    assert ended == [None]
    assert pair.factory.counters.cut == 0
    assert pair.clock.getDelayedCalls() == []


def test_a_client_that_closes_is_gone_from_the_server() -> None:
    gone: list[LineServer] = []

    class Leaving(Shout):
        def closed(self) -> None:
            gone.append(self)

    pair = Pair(Leaving)
    pair.close()
    assert gone == [pair.server]


def test_a_close_with_replies_outstanding_says_so() -> None:
    pair = Pair(Shout)
    pair.ask(b"later")
    with pytest.raises(AssertionError, match="the end of the connection has not come; replies a"):
        pair.close()


def test_a_missing_reply_says_what_did_not_come() -> None:
    pair = Pair(Shout)
    with pytest.raises(AssertionError) as raised:
        pair.reply(b"later")
    assert str(raised.value) == (
        "a reply to b'later' has not come; replies awaited: 1; lines that answer none: [b'welcome']"
    )
    pair.server.transport.abortConnection()
    pair.flush()
    with pytest.raises(AssertionError, match="come: connection lost: closed by the server; repl"):
        pair.reply(b"x")


def test_what_is_told_is_there() -> None:
    pair = Pair(Shout)
    assert pair.told() == [b"welcome"]
    assert pair.told() == []
    assert pair.server.tell(b"more")
    assert pair.told() == [b"more"]


def test_a_greeting_is_there_or_missed() -> None:
    pair = Pair(Shout, greeting=True)
    assert pair.greeting() == b"welcome"
    assert pair.told() == []
    assert pair.reply(b"x") == b"X"

    class Silent(Shout):
        def opened(self) -> None:
            """Say nothing."""

    with pytest.raises(AssertionError, match="a greeting has not come; replies awaited: 0"):
        Pair(Silent, greeting=True).greeting()


class Keeping(LineServer):
    stores = True

    async def answer(self, line: bytes) -> bytes:
        await self.keep([line])
        return b"kept"


def test_a_protocol_that_stores_is_given_a_store() -> None:
    pair = Pair(Keeping)
    assert [pair.reply(line) for line in (b"a", b"b")] == [b"kept", b"kept"]
    assert pair.store.lines == [b"a", b"b"]
    assert [batch.peer for batch in pair.store.batches] == ["192.0.2.1:50000"] * 2
    pair.store.problem = StoreError("disk full", retry=True)
    assert pair.reply(b"c") == b"error not stored: disk full"
    pair.store.problem = None
    assert pair.reply(b"d") == b"kept"
    assert pair.store.lines == [b"a", b"b", b"d"]


def test_a_store_may_be_given_and_acknowledges_only_what_it_holds() -> None:
    store = MemoryStore()
    pair = Pair(Ack, store=store)
    assert pair.reply(b"a") == b"ok"
    store.problem = StoreError("gone", retry=False)
    assert pair.reply(b"b") == b"error not stored: gone"
    assert store.lines == [b"a"]


def test_without_a_store_a_protocol_that_does_not_say_so_fails_as_it_would(log: Log) -> None:
    class Unsaid(Keeping):
        stores = False

    assert Pair(Unsaid).reply(b"a") == b"error internal error"
    [failure] = log.failures(RuntimeError)
    assert "no store" in failure.getErrorMessage()


class Room(LineServer):
    present: ClassVar[set["Room"]] = set()

    def opened(self) -> None:
        self.present.add(self)

    def closed(self) -> None:
        self.present.discard(self)

    def answer(self, line: bytes) -> Answer:
        others = self.present - {self}
        return b"%d of %d" % (sum(each.tell(line) for each in others), len(others))


def test_several_clients_have_one_service_and_one_may_not_read() -> None:
    one = Pair(Room)
    two = one.another()
    assert one.factory is two.factory and one.server is not two.server
    assert (one.server.peer, two.server.peer) == ("192.0.2.1:50000", "192.0.2.1:50001")
    assert one.reply(b"a") == b"1 of 1"
    assert two.told() == [b"a"]
    two.stall()
    assert [one.reply(b"b"), one.reply(b"c")] == [b"1 of 1", b"0 of 1"]
    assert two.told() == []
    two.unstall()
    assert two.told() == [b"b"]
    assert one.reply(b"d") == b"1 of 1"
    two.close()
    assert one.reply(b"e") == b"0 of 0"


class Sensor(DatagramServer):
    async def answer(self, datagram: bytes, peer: Any) -> bytes | None:
        if datagram == b"quiet":
            return None
        await self.keep(datagram, peer)
        return b"kept"


def test_datagrams_are_answered_and_kept() -> None:
    pair = DatagramPair(Sensor)
    assert isinstance(pair.server, Sensor)
    assert pair.reply(b"21.5") == b"kept"
    assert pair.store.lines == [b"21.5"]
    pair.store.problem = StoreError("disk full", retry=True)
    assert pair.reply(b"22") == b"error not stored: disk full"
    with pytest.raises(AssertionError, match=r"b'quiet' has not come$"):
        pair.reply(b"quiet")
    late = Outcome(pair.ask(b"quiet"))
    pair.clock.advance(5)
    assert isinstance(late.error, TimedOut)
