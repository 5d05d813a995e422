"""A rate of lines: slowed down, nothing dropped, and not read meanwhile."""

import socket
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sockservice import Ack, LineServer
from sockservice.limits.admission import Admission, Limits
from sockservice.limits.tokenbucket import Pace
from sockservice.server.answers import Answer
from tests.conftest import HandReactor, Running
from tests.doubles import Slow
from tests.server.test_lines import INTERRUPT, Memory

# The bucket


def test_so_many_may_be_taken_at_once_and_then_as_many_a_second() -> None:
    pace = Pace(2, 0.0, 100)
    assert pace.allowed(2, 0.0, 100) == 2
    assert pace.allowed(2, 0.0, 101) == 1
    assert pace.allowed(2, 0.0, 102) == 0
    assert pace.wait == 0.5
    assert pace.allowed(2, 0.25, 102) == 0
    assert pace.wait == 0.25
    assert pace.allowed(2, 0.5, 102) == 1
    assert pace.allowed(2, 60.0, 102) == 2


def test_a_high_rate_is_waited_for_a_little_longer_than_one_line() -> None:
    pace = Pace(100_000, 0.0, 0)
    assert pace.allowed(100_000, 0.0, 100_000) == 0
    assert pace.wait == 0.01
    assert pace.allowed(100_000, 0.01, 100_000) == 1000


def test_what_is_owed_is_at_most_a_second() -> None:
    """There was no rate for a while, and many lines."""
    pace = Pace(2, 0.0, 0)
    pace.allowed(2, 0.0, 2)
    assert pace.allowed(2, 1.0, 1_000_000) < 0
    assert pace.wait == 1.5
    assert pace.allowed(2, 2.5, 1_000_000) == 1


def test_a_clock_that_is_set_back_holds_nobody_up() -> None:
    pace = Pace(2, 0.0, 0)
    assert pace.allowed(2, 0.0, 1) == 1
    assert pace.allowed(2, -3600.0, 1) == 1
    assert pace.allowed(2, -3600.0, 2) == 0
    assert pace.allowed(2, -3599.5, 2) == 1


@given(st.integers(1, 50), st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 60)), max_size=80))
def test_no_second_sees_more_than_twice_the_rate(rate: int, turns: list[tuple[float, int]]) -> None:
    """What was saved up may go at once, and the rate itself besides."""
    now, lines = 0.0, 0
    pace = Pace(rate, now, lines)
    taken: list[float] = []
    for pause, wanted in turns:
        now += pause
        allowed = pace.allowed(rate, now, lines)
        if allowed < 1:
            now += pace.wait
            if pace.allowed(rate, now, lines) < 1:
                # By a rounding error, which the next wait makes up for.
                assert pace.wait == 0.01
                now += pace.wait
            allowed = pace.allowed(rate, now, lines)
            assert allowed >= 1
        took = min(allowed, wanted)
        lines += took
        taken += [now] * took
    for start in set(taken):
        assert len([each for each in taken if start <= each < start + 1]) <= 2 * rate


# A connection in memory


def limited(
    protocol: Any = Ack, rate: int = 2, *, idle: int = 0, unfinished: int = 0, **settings: Any
) -> Memory:
    limits = Limits(lineRate=rate, idle=idle, unfinished=unfinished)
    return Memory(protocol, admission=Admission(limits), **settings)


def test_who_is_too_fast_is_slowed_down_and_loses_nothing() -> None:
    memory = limited()
    memory.send(b"a\nb\r\n\nd\r\n\r\n")
    assert memory.sent == b"ok\nok\r\n"
    assert memory.paused
    assert memory.factory.counters.slowed == 1
    for reply in (b"ok\n", b"ok\r\n", b"ok\r\n"):
        memory.clock.advance(0.4)
        assert memory.sent == b""
        memory.clock.advance(0.1)
        assert memory.sent == reply
    assert not memory.paused
    assert memory.clock.getDelayedCalls() == []


def test_who_keeps_to_the_rate_is_never_held_up() -> None:
    memory = limited()
    for _ in range(10):
        memory.send(b"a\nb\n")
        assert memory.sent == b"ok\nok\n"
        assert not memory.paused
        memory.clock.advance(1)
    memory.send(b"a\n")
    memory.half_close()
    assert memory.wire.disconnecting
    assert memory.factory.counters.slowed == 0


def test_who_has_half_closed_is_slowed_down_all_the_same() -> None:
    memory = limited()
    memory.send(b"a\n" * 4 + b"torn")
    memory.half_close()
    memory.clock.pump([0.1] * 9)
    assert memory.sent == b"ok\n" * 3
    assert not memory.wire.disconnecting
    memory.clock.pump([0.1] * 8)
    assert memory.sent == b"ok\nerror unterminated line\n"
    assert memory.wire.disconnecting


def test_the_rate_is_that_of_lines_taken_not_of_answers_come() -> None:
    memory = limited(Slow)
    server = memory.server
    assert isinstance(server, Slow)
    memory.send(b"a\nb\nc\nd\n")
    assert server.asked == [b"a", b"b"]
    server.due[1].callback(b"B")
    memory.clock.advance(0.5)
    assert server.asked == [b"a", b"b", b"c"]
    server.due[0].callback(b"A")
    server.due[2].callback(b"C")
    assert server.asked == [b"a", b"b", b"c"]
    memory.clock.advance(0.5)
    server.due[3].callback(b"D")
    assert memory.sent == b"A\nB\nC\nD\n"
    assert not memory.paused


def test_both_limits_hold_together() -> None:
    class Single(Slow):
        answerLimit = 1

    memory = limited(Single)
    server = memory.server
    assert isinstance(server, Slow)
    memory.send(b"a\nb\nc\n")
    memory.clock.advance(5)
    assert server.asked == [b"a"]
    assert memory.factory.counters.slowed == 0
    for n, line in enumerate((b"a", b"b", b"c")):
        server.due[n].callback(line)
    assert memory.sent == b"a\nb\nc\n"


def test_refused_lines_count_for_the_rate() -> None:
    memory = limited(rate=1, lineLimit=3)
    memory.send(b"long\nlong\n")
    assert memory.sent == b"error line longer than 3 bytes\n"
    memory.clock.advance(1)
    assert memory.sent == b"error line longer than 3 bytes\n"


def test_a_telnet_client_is_slowed_down_and_told_in_its_place() -> None:
    memory = limited(rate=1)
    memory.send(INTERRUPT + b"a\r\nb\r\n")
    assert memory.sent == b"\xff\xfb\x06ok\r\n"
    memory.clock.advance(1)
    assert memory.sent == b"ok\r\n"
    assert not memory.paused
    memory.clock.advance(1)
    memory.send(b"c\r\n")
    assert memory.factory.counters.slowed == 1


def test_nobody_is_slowed_down_while_the_service_stops() -> None:
    memory = limited()
    memory.send(b"a\n" * 100)
    memory.server.finish()
    assert memory.sent == b"ok\n" * 100
    assert memory.wire.disconnecting
    assert memory.clock.getDelayedCalls() == []


def test_who_goes_while_slowed_down_leaves_no_timer() -> None:
    memory = limited()
    memory.send(b"a\n" * 100)
    memory.lose()
    assert memory.clock.getDelayedCalls() == []


def test_the_rate_may_change_and_end() -> None:
    memory = limited()
    admission = memory.factory.admission
    memory.send(b"a\n" * 40)
    assert memory.sent == b"ok\n" * 2
    admission.change(Limits(lineRate=10))
    memory.clock.advance(0.5)
    assert memory.sent == b"ok\n" * 5
    admission.change(Limits())
    memory.clock.advance(0.5)
    assert memory.sent == b"ok\n" * 33
    memory.send(b"a\n" * 1000)
    assert memory.sent == b"ok\n" * 1000
    admission.change(Limits(lineRate=10))
    memory.send(b"a\n")
    memory.clock.advance(1.2)
    assert memory.sent == b"ok\n"


def test_whom_we_slow_down_is_neither_idle_nor_unfinished() -> None:
    memory = limited(rate=1, idle=3, unfinished=2)
    memory.factory.startFactory()
    memory.send(b"a\n" * 10 + b"half")
    memory.clock.pump([0.5] * 19)
    assert memory.sent == b"ok\n" * 10
    assert not memory.wire.disconnecting
    # It was read in the tenth second, and found begun in the next.
    memory.clock.pump([0.5] * 8)
    assert memory.sent == b"error unfinished line for 2 seconds\n"
    memory.factory.stopFactory()


# Real sockets


class Length(LineServer):
    """Answers with the length of each line."""

    def answer(self, line: bytes) -> Answer:
        return b"%d" % len(line)


def test_the_peer_is_not_read_while_it_is_too_fast(running: Running, reactor: HandReactor) -> None:
    """What it may not send yet stays with it, and all is answered in the end."""
    running.start(
        *("--line-rate", "50", "--socket-option", "SO_RCVBUF=20000"),
        *("--listen", f"{Length.__module__}.Length@tcp:0:interface=127.0.0.1"),
    )
    peer = running.peer("127.0.0.1", running.addresses[0][2])
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    peer.setblocking(False)
    lines = b"".join(b"%0*d\n" % (1000 + n % 9, n) for n in range(1000))
    sent, full = 0, 0
    while full < 20:
        reactor.iterate(0.005)
        try:
            sent += peer.send(lines[sent : sent + 65536])
            full = 0
        except BlockingIOError:
            full += 1
    assert sent < 400_000
    whole = lines[:sent].count(b"\n")
    assert whole > 50
    expected = b"".join(b"%d\n" % (1000 + n % 9) for n in range(whole))
    received = b""

    def all_come() -> bool:
        nonlocal received
        with suppress(BlockingIOError):
            received += peer.recv(65536)
        return len(received) >= len(expected)

    before = reactor.now
    reactor.until(all_come, passing=0.05)
    assert received == expected
    assert reactor.now - before > (whole - 100) / 50


def test_a_stop_answers_at_once_what_was_received(running: Running, reactor: HandReactor) -> None:
    service = running.start("--port", "0", "--line-rate", "1")
    peer = running.peer("127.0.0.1", running.addresses[0][2])
    peer.sendall(b"a\n" * 500)
    assert reactor.received(peer, 3) == b"ok\n"
    before = reactor.now
    stopping = running.stopping(service)
    assert reactor.received(peer) == b"ok\n" * 499
    peer.close()
    reactor.result(stopping)
    assert reactor.now == before
