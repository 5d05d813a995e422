"""Faults that others have had: public cases from the trackers of other projects, by kind."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from sockservice import Answer, Continued, Framing, Lines, LineServer, Refused
from sockservice.testing import Pair
from tests.doubles import Outcome, Slow
from tests.server.test_replying import Served
from tests.test_docs import ROOT, blocks


def example(name: str) -> dict[str, Any]:
    """Give the names that an example of docs/extending.md defines."""
    [text] = [
        block.text
        for block in blocks(ROOT / "docs" / "extending.md")
        if block.text.startswith(f"# {name}.py\n")
    ]
    names: dict[str, Any] = {"__name__": name}
    exec(text, names)
    return names


OCTETS: Callable[[int], Framing] = example("octets")["Octets"]


class Indented(Continued):
    """A line is continued by those that a backslash announces."""

    def continues(self, line: bytes) -> bool:
        return line.endswith(b"\\")


class Joined(LineServer):
    framing = Indented

    def answer(self, line: bytes) -> Answer:
        return b"%d lines" % (line.count(b"\n") + 1)


# A message is taken for whole because the read is over


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_count_that_ends_in_the_next_read_is_waited_for(cut: int) -> None:
    """fluentd/fluentd 2298: half a message was parsed, its rest taken for a count."""
    framing = OCTETS(100)
    stream, lines = b"5 hello12 two\nlines ok1 x", []
    for at in range(0, len(stream), cut):
        framing.receive(stream[at : at + cut])
        while isinstance(item := framing.take(10), Lines):
            lines += item.lines
    assert lines == [b"hello", b"two\nlines ok", b"x"]
    assert framing.startsLine


def test_the_space_behind_a_count_is_not_counted() -> None:
    """fluentd/fluentd 2982: messages were one byte short, or the next count was."""
    framing = OCTETS(100)
    framing.receive(framing.encode([b"a b", b" c "], b""))
    assert [framing.take(1), framing.take(1)] == [Lines([b"a b"], b""), Lines([b" c "], b"")]


def test_a_read_that_ends_within_a_line_ends_no_line() -> None:
    """logstash-plugins/logstash-input-tcp 31: pieces of lines were joined as lines."""
    stream = b"a" * 50_000 + b"\\\n" + b"b" * 10 + b"\nc\n"
    for cut in (1000, 16384, 32768, 50_001, 50_002):
        served = Served(Joined)
        chunks = [stream[at : at + cut] for at in range(0, len(stream), cut)]
        assert served.send(*chunks) == b"2 lines\n1 lines\n"


# What belongs to one connection is shared by all


def test_continued_lines_of_two_peers_are_not_mixed() -> None:
    """logstash-plugins/logstash-input-lumberjack 1: one codec joined the lines of all streams."""
    one, two = Served(Joined), Served(Joined)
    assert one.send(b"a\\\n") == b""
    assert two.send(b"b\n") == b"1 lines\n"
    assert one.send(b"c\n") == b"2 lines\n"


# What is begun at the end of a connection vanishes


def test_what_is_begun_at_the_end_is_not_lost_without_a_word() -> None:
    """logstash-plugins/logstash-input-tcp 90: the last message before the close was dropped."""
    served = Served(Joined)
    served.send(b"a\\\nb\nc\\\n")
    served.end()
    assert served.sent == b"error unterminated line\n"
    assert served.factory.counters.refused == 1


# To pause is taken for a promise that nothing more comes


def test_a_second_line_of_the_same_read_waits_for_the_first() -> None:
    """twisted/twisted 10598: a paused LineReceiver delivered what it had read already."""

    class Single(Slow):
        answerLimit = 1

    pair = Pair(Single)
    pair.client.transport.write(b"one\ntwo\n")
    pair.flush()
    assert pair.server.asked == [b"one"]
    pair.server.due[0].callback(b"1")
    assert pair.server.asked == [b"one", b"two"]


# Several wait for the same peer


def test_several_may_wait_for_the_peer_and_one_may_give_up() -> None:
    """python/cpython 74116, 75279: the second drain() failed, or was never woken."""
    pair = Pair(Joined)
    pair.stall()
    pair.server.tell(b"x")
    waiting = [pair.server.ready() for _ in range(3)]
    outcomes = [Outcome(each) for each in waiting]
    assert not any(each.came for each in outcomes)
    waiting[1].cancel()
    pair.unstall()
    assert [outcomes[0].value, outcomes[2].value] == [None, None]
    assert type(outcomes[1].error).__name__ == "CancelledError"


# The rest of what was refused is taken for commands


def test_a_body_that_is_refused_is_not_taken_for_lines() -> None:
    """aio-libs/aiosmtpd 29: beyond a limit, the rest of a message was run as commands."""
    seen: list[bytes] = []

    class Bodied(LineServer):
        answerLimit = 1

        def answer(self, line: bytes) -> Answer:
            seen.append(line)
            if int(line) > 10:
                self.close()
                raise Refused("too long")
            return self.taken(self.expect(int(line)))

        async def taken(self, body: Deferred[bytes]) -> bytes:
            return b"taken %d" % len(await body)

    served = Served(Bodied)
    assert served.send(b"3\n1\n2100\n1\n2\n3\n") == b"taken 3\nerror too long\n"
    assert seen == [b"3", b"100"]
    assert served.wire.disconnecting
