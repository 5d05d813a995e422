"""The in-memory pair that tests of one's own protocol use."""

from collections import deque

from twisted.internet.defer import Deferred

from sockservice import Chunks, LineServer, TimedOut
from sockservice.server.answers import Answer
from sockservice.testing import Pair


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


def test_a_server_that_closes_is_gone() -> None:
    pair = Pair(Shout)
    ended: list[None] = []
    pair.client.disconnected().addCallback(ended.append)
    pair.flush()
    pair.ask(b"bye")
    pair.clock.advance(LineServer.lingerTimeout)
    pair.flush()
    assert ended == [None]
