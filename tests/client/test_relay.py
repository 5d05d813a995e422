"""A relay between stores in memory: every line once, whatever breaks, is removed or restored."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock

from sockservice.client.relay.place import RelayNote, witness
from sockservice.client.relay.relaying import INTERVAL, Relay, Removed, StoreLost
from sockservice.client.relay.source import Look, StoreRows
from sockservice.client.session import Different, SessionRefused, TakenOver
from sockservice.store.engine import Batch
from sockservice.store.objects import Stored
from sockservice.store.reader import Unreadable
from sockservice.store.sqlite import SQLite
from sockservice.wire.session import Hello, Opened, folded
from tests.client.test_sending import Endpoint, FarEnd
from tests.conftest import Reactor
from tests.doubles import Outcome

STORE = "9b1c6f0d4c7e4b0fa2d35c8e7f601234"
#: Rows in a page.
PAGE = 4


class Edge:
    """The store that is relayed."""

    def __init__(self, *lines: bytes) -> None:
        self.rows: list[Stored] = []
        self.highest = 0
        self.problem: Exception | None = None
        self.name: bytes | None = None
        self.closed = 0
        self.add(*lines)

    def add(self, *lines: bytes, received: int = 7) -> None:
        for line in lines:
            self.highest += 1
            self.rows.append((self.highest, received, "192.0.2.1:40000", "ack", line))

    def remove(self, *ids: int) -> None:
        self.rows = [row for row in self.rows if row[0] not in ids]

    def open(self) -> None:
        pass

    def look(self, after: int) -> Deferred[Look]:
        return maybeDeferred(self._look, after)

    def _look(self, after: int) -> Look:
        if self.problem is not None:
            raise self.problem
        rows = [row for row in self.rows if row[0] > after][:PAGE]
        return Look(rows, self.rows[0][0] if self.rows else 0, self.highest)

    def identity(self) -> Deferred[bytes | None]:
        return maybeDeferred(lambda: self.name)

    def close(self) -> None:
        self.closed += 1


class Centre:
    """The server that it is relayed to: one session."""

    def __init__(self, limit: int = 200) -> None:
        self.lines: list[bytes] = []
        self.limit = limit
        self.epoch = 0
        self.note: tuple[str, int, int] | None = None
        self.notes: list[str] = []
        self.seen: dict[FarEnd, int] = {}

    def take(self, wire: FarEnd, most: int = 10**6, mute: bool = False) -> int:
        """Do what was sent, `most` lines of it, and answer it unless `mute`; give their number."""
        sent = wire.value().split(b"\r\n")[:-1]
        seen = self.seen.get(wire, 0)
        todo = sent[seen : seen + most]
        self.seen[wire] = seen + len(todo)
        for number, line in enumerate(todo, seen):
            reply = b"ok"
            if number == 0:
                reply = self._opened(Hello.parse(line))
            else:
                assert len(line) <= self.limit and b"\n" not in line
                self.lines.append(line)
            if not mute and not wire.ended:
                wire.answer(reply)
        return len(todo)

    def _opened(self, hello: Hello) -> bytes:
        self.epoch += 1
        assert hello.at in (None, len(self.lines))
        if hello.note is not None:
            self.notes.append(hello.note)
            self.note = hello.note, len(self.lines), folded(self.lines)
        new = self.epoch == 1
        crc = folded(self.lines)
        opened = Opened(new, len(self.lines), crc, self.limit, self.epoch, STORE)
        if self.note is not None:
            opened = opened._replace(note=self.note[0], noted=self.note[1], notedCrc=self.note[2])
        return opened.encode()


class Recorded(Relay):
    """A relay over connections in memory; what it reports is kept."""

    def __init__(self, edge: Any, **how: Any) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint()
        self.problem: BaseException | None = None
        self.passed: list[tuple[int, int]] = []
        self.gaps: list[tuple[int, int]] = []
        how.setdefault("backoff", lambda attempts: 0.5)
        super().__init__(self.clock, edge, self.endpoint, "edge", **how)

    def retrying(self, why: str, delay: float) -> None:
        pass

    def gaveUp(self, why: str, cause: BaseException | None) -> None:
        assert self.problem is None and why == str(cause)
        self.problem = cause

    def passedOver(self, first: int, last: int, why: str) -> None:
        self.passed.append((first, last))

    def missed(self, first: int, last: int) -> None:
        self.gaps.append((first, last))

    def goOn(self, centre: Centre) -> None:
        """Relay until there is nothing to do."""
        idle = 0
        while idle < 4 and self.problem is None:
            done = centre.take(self.endpoint.wires[-1])
            idle = 0 if done else idle + 1
            # In the end, long enough for another attempt to connect.
            self.clock.advance((0, INTERVAL, INTERVAL, 1, 1)[idle])

    def kill(self) -> None:
        """Have it vanish."""
        self.gaveUp = lambda why, cause: None  # type: ignore[method-assign]
        self.endpoint.refusing = True
        Outcome(self.stopService())
        self.endpoint.wires[-1].lose(ConnectionLost())


def begun(edge: Edge, centre: Centre, **how: Any) -> Recorded:
    relay = Recorded(edge, **how)
    relay.startService()
    relay.goOn(centre)
    return relay


def lines(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last + 1)]


def test_what_is_stored_is_relayed_and_what_comes() -> None:
    edge, centre = Edge(*lines(1, 10)), Centre()
    relay = begun(edge, centre)
    assert (centre.lines, relay.relayed, relay.position) == (lines(1, 10), 10, 10)
    edge.add(*lines(11, 13))
    relay.goOn(centre)
    assert (centre.lines, relay.relayed, relay.highest) == (lines(1, 13), 13, 13)
    # The place is noted once; behind it ids and positions are in step.
    assert centre.notes == ["relay/1:plain:0:-"]
    assert Outcome(relay.stopService()).value == []
    assert edge.closed == 1


def test_started_again_it_goes_on_behind_what_is_stored() -> None:
    edge, centre = Edge(*lines(1, 6)), Centre()
    begun(edge, centre).kill()
    edge.add(*lines(7, 9))
    relay = begun(edge, centre)
    assert (centre.lines, relay.relayed) == (lines(1, 9), 9)


def test_any_bytes_are_relayed_as_they_are() -> None:
    odd = [b"", b"\r", b"a\r", b"\0\xff", b"\xff\r\r"]
    centre = Centre()
    begun(Edge(*odd), centre)
    assert centre.lines == odd


def test_objects_have_the_columns_of_the_first_hop() -> None:
    centre = Centre()
    edge = Edge(b"a\nb", b"\xff")
    begun(edge, centre, objects=True)
    assert list(map(json.loads, centre.lines)) == [
        {
            "id": 1,
            "received": "1970-01-01T00:00:00.000007Z",
            "peer": "192.0.2.1:40000",
            "listener": "ack",
            "line": "a\nb",
        },
        {
            "id": 2,
            "received": "1970-01-01T00:00:00.000007Z",
            "peer": "192.0.2.1:40000",
            "listener": "ack",
            "line_base64": "/w==",
        },
    ]


def test_lines_may_travel_in_another_way_from_now_on() -> None:
    edge, centre = Edge(b"a"), Centre()
    begun(edge, centre).kill()
    edge.add(b"b")
    begun(edge, centre, objects=True).kill()
    edge.add(b"c")
    begun(edge, centre)
    assert [centre.lines[0], json.loads(centre.lines[1])["line"], centre.lines[2]] == [
        b"a",
        "b",
        b"c",
    ]


def test_lines_that_the_session_does_not_take_are_passed_over() -> None:
    edge, centre = Edge(b"1", b"x" * 101, b"y" * 102, b"2", b"a\nb", b"3", b"z" * 101), Centre(100)
    relay = begun(edge, centre)
    assert (centre.lines, relay.long, relay.relayed) == ([b"1", b"2", b"3"], 4, 7)
    assert relay.passed == [(2, 3), (5, 5), (7, 7)]
    relay.kill()
    edge.add(b"4")
    relay = begun(edge, centre)
    assert (centre.lines[3:], relay.passed) == ([b"4"], [])


def test_a_new_session_may_begin_behind_an_id() -> None:
    edge, centre = Edge(*lines(1, 5)), Centre()
    begun(edge, centre, after=3).kill()
    assert centre.lines == [b"4", b"5"]
    edge.add(b"6")
    begun(edge, centre, after=3)
    assert centre.lines == [b"4", b"5", b"6"]


def test_an_id_that_is_still_to_come_is_no_place_to_begin() -> None:
    relay = begun(Edge(b"1"), Centre(), after=2)
    assert str(relay.problem) == "the highest id in the store is 1, not yet 2"


@pytest.mark.parametrize("removed", [(1,), (1, 2, 3)])
def test_what_was_removed_before_a_session_is_new_is_not_missed(removed: tuple[int, ...]) -> None:
    edge, centre = Edge(*lines(1, 3)), Centre()
    edge.remove(*removed)
    relay = begun(edge, centre)
    edge.add(b"4")
    relay.goOn(centre)
    assert (centre.lines, relay.missing) == (lines(len(removed) + 1, 4), 0)


def test_lines_that_were_removed_too_early_end_the_relay() -> None:
    edge, centre = Edge(*lines(1, 2)), Centre()
    begun(edge, centre).kill()
    edge.add(*lines(3, 6))
    edge.remove(1, 2, 3, 4)
    relay = begun(edge, centre)
    assert isinstance(relay.problem, Removed)
    assert str(relay.problem) == (
        "2 lines (ids 3 to 4) were removed from the store before they were relayed"
    )
    relay.kill()
    assert centre.lines == lines(1, 2)
    relay = begun(edge, centre, skip=True)
    assert (centre.lines[2:], relay.missing, relay.gaps) == ([b"5", b"6"], 2, [(3, 4)])
    relay.kill()
    # That has been seen to.
    edge.add(b"7")
    relay = begun(edge, centre)
    assert (centre.lines[4:], relay.problem) == ([b"7"], None)


def test_what_comes_before_a_gap_is_relayed_first() -> None:
    edge, centre = Edge(*lines(1, 4)), Centre()
    edge.remove(3)
    relay = begun(edge, centre)
    assert (centre.lines, relay.position) == (lines(1, 2), 2)
    assert str(relay.problem) == "1 line (id 3) was removed from the store before it was relayed"


def test_a_gap_with_nothing_behind_it_is_noticed() -> None:
    edge, centre = Edge(b"1"), Centre()
    begun(edge, centre).kill()
    edge.add(b"2", b"3")
    edge.remove(1, 2, 3)
    relay = begun(edge, centre)
    assert isinstance(relay.problem, Removed)
    relay.kill()
    relay = begun(edge, centre, skip=True)
    assert relay.gaps == [(2, 3)]
    edge.add(b"4")
    relay.goOn(centre)
    assert centre.lines == [b"1", b"4"]


@pytest.mark.parametrize("kept", [0, 2])
def test_lines_that_are_removed_behind_the_relay_are_not_missed(kept: int) -> None:
    edge, centre = Edge(*lines(1, 5)), Centre()
    begun(edge, centre).kill()
    edge.add(*lines(6, 7))
    edge.remove(*range(1, 6 - kept))
    relay = begun(edge, centre)
    assert (centre.lines, relay.problem) == (lines(1, 7), None)


def emptied(edge: Edge) -> None:
    edge.rows, edge.highest = [], 0


def restored(edge: Edge) -> None:
    del edge.rows[3:]
    edge.highest = 3


def writtenAnew(edge: Edge) -> None:
    restored(edge)
    edge.add(*lines(4, 8), received=8)
    edge.add(b"others")
    edge.rows[4] = (*edge.rows[4][:-1], b"others")


@pytest.mark.parametrize("broken", [emptied, restored, writtenAnew])
def test_a_store_that_is_not_the_one_that_was_relayed_is_noticed(broken: Any) -> None:
    edge, centre = Edge(*lines(1, 5)), Centre()
    begun(edge, centre).kill()
    broken(edge)
    relay = begun(edge, centre)
    assert isinstance(relay.problem, Different)
    assert centre.lines == lines(1, 5)


def test_the_row_of_the_note_is_looked_at_if_no_line_is_behind_it() -> None:
    edge, centre = Edge(b"1", b"x" * 101), Centre(100)
    begun(edge, centre).kill()
    emptied(edge)
    edge.add(b"1", b"2", b"3")
    relay = begun(edge, centre)
    assert isinstance(relay.problem, Different)
    assert centre.lines == [b"1"]


def test_a_store_that_is_emptied_meanwhile_is_noticed() -> None:
    edge, centre = Edge(b"1"), Centre()
    relay = begun(edge, centre)
    emptied(edge)
    relay.goOn(centre)
    assert isinstance(relay.problem, Different)
    assert str(relay.problem) == "the highest id in the store is 0, and was 1: it was emptied"


@pytest.mark.parametrize("running", [False, True])
def test_a_store_that_can_not_be_read_ends_the_relay(running: bool) -> None:
    edge, centre = Edge(b"1"), Centre()
    relay = Recorded(edge)
    relay.startService()
    if running:
        relay.goOn(centre)
    edge.problem = Unreadable("it was renamed or deleted")
    relay.goOn(centre)
    assert isinstance(relay.problem, StoreLost)
    assert str(relay.problem) == "it was renamed or deleted"


def test_a_store_is_not_relayed_to_itself() -> None:
    edge, centre = Edge(b"1"), Centre()
    edge.name = bytes.fromhex(STORE)
    relay = begun(edge, centre)
    assert isinstance(relay.problem, Different)
    assert centre.lines == []


@pytest.mark.parametrize("note", [None, "1:64:ab:0:7.7"])
def test_the_session_of_another_sender_is_left_alone(note: str | None) -> None:
    centre = Centre()
    centre.lines = [b"1"]
    if note is not None:
        centre.note = note, 0, 0
    relay = begun(Edge(b"1", b"2"), centre)
    assert str(relay.problem) == "session edge has lines that no relay has sent"
    assert centre.lines == [b"1"]


def test_it_stops_at_once_while_there_is_no_connection() -> None:
    edge, centre = Edge(*lines(1, 3)), Centre()
    relay = begun(edge, centre)
    relay.endpoint.refusing = True
    relay.endpoint.wires[-1].lose(ConnectionLost())
    edge.add(b"4")
    relay.clock.advance(1)
    relay.clock.advance(1)
    assert relay.outstanding == 1
    ended = Outcome(relay.stopService())
    relay.clock.advance(0)
    assert ended.value == [b"4"]


def test_at_a_rate_little_is_sent_ahead_so_that_the_end_need_not_wait() -> None:
    edge, centre = Edge(*lines(1, 100)), Centre()
    relay = Recorded(edge, rate=4)
    relay.startService()
    for _ in range(24):
        centre.take(relay.endpoint.wires[-1])
        relay.clock.advance(0.25)
        assert relay.outstanding <= 6
    # As many as may be, with those of one burst.
    assert len(centre.lines) >= 20
    ended = Outcome(relay.stopService())
    for _ in range(8):
        centre.take(relay.endpoint.wires[-1])
        relay.clock.advance(0.25)
    assert ended.value == []
    again = begun(edge, centre)
    assert (centre.lines, again.relayed) == (lines(1, 100), 100)


def test_lines_too_short_for_a_note_end_the_relay() -> None:
    relay = begun(Edge(b"1"), Centre(40))
    assert isinstance(relay.problem, SessionRefused)
    assert str(relay.problem) == "its lines of 40 bytes are too short to keep the place"


def test_the_older_of_two_relays_stops() -> None:
    relay = begun(Edge(b"1"), Centre())
    relay.endpoint.wires[-1].answer(b"error session: taken over by 192.0.2.7:40022")
    assert isinstance(relay.problem, TakenOver)


def test_no_more_is_read_than_may_wait_for_replies() -> None:
    edge, centre = Edge(*lines(1, 100)), Centre()
    relay = Recorded(edge, lines=8)
    relay.startService()
    while not centre.lines:
        centre.take(relay.endpoint.wires[-1], most=1)
        relay.clock.advance(0)
    relay.clock.advance(10 * INTERVAL)
    assert relay.outstanding < 8 + PAGE
    relay.goOn(centre)
    assert centre.lines == lines(1, 100)


def test_the_place_is_noted_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sockservice.client.relay.relaying.EVERY", 8)
    edge, centre = Edge(*lines(1, 20)), Centre()
    begun(edge, centre)
    assert centre.notes == [
        "relay/1:plain:0:-",
        *(f"relay/1:plain:{number}:{witness(edge.rows[number - 1])}" for number in (8, 16)),
    ]
    assert centre.lines == lines(1, 20)


@pytest.mark.parametrize(
    "text", ["", "relay/1:plain:1", "relay/2:plain:1:-", "relay/1:xml:1:-", "relay/1:plain:-1:-"]
)
def test_other_notes_are_told_from_those_of_relays(text: str) -> None:
    with pytest.raises(ValueError, match="no note of a relay"):
        RelayNote.parse(text)


@settings(max_examples=60)
@given(st.data())
def test_whatever_breaks_each_line_is_relayed_once_and_in_order(data: Any) -> None:
    """Connections break, relays die, lines come and go, some are too long."""
    edge, centre = Edge(), Centre(100)
    wanted: list[bytes] = []
    relay = Recorded(edge, skip=True)
    relay.startService()
    wire = relay.endpoint.wires[-1]
    some = st.lists(st.sampled_from([b"x", b"y", b"z" * 101]), max_size=6)
    for _ in range(data.draw(st.integers(0, 12))):
        for line in data.draw(some):
            tagged = b"%d" % (edge.highest + 1) + line
            edge.add(tagged)
            if len(tagged) <= 100:
                wanted.append(tagged)
        wire = relay.endpoint.wires[-1]
        what = data.draw(st.sampled_from(["take", "mute", "cut", "kill", "keep", "drop"]))
        if what in ("take", "mute"):
            centre.take(wire, data.draw(st.integers(1, 9)), mute=what == "mute")
            if what == "mute":
                wire.lose(ConnectionLost())
        elif what == "cut":
            wire.lose(ConnectionLost())
        elif what == "kill":
            relay.kill()
            relay = Recorded(edge, skip=True)
            relay.startService()
        elif what == "drop":
            # Retention removes what has been relayed, or lines that are too long.
            stored = set(centre.lines)
            edge.rows = edge.rows[sum(row[-1] in stored for row in edge.rows) :]
        elif what == "keep":
            relay.goOn(centre)
        relay.clock.advance(data.draw(st.sampled_from([0.0, INTERVAL, 100.0])))
    relay.clock.advance(100)
    relay.goOn(centre)
    assert relay.problem is None
    assert centre.lines == wanted


async def test_a_store_is_read_in_a_thread_while_it_is_written(
    real: Reactor, tmp_path: Path
) -> None:
    path = tmp_path / "lines.db"
    with closing(SQLite(str(path))) as store:
        store.open()
        rows = StoreRows(real, str(path))
        rows.open()
        try:
            assert await rows.look(0) == Look([], 0, 0)
            store.commit([Batch(7, "192.0.2.1:40000", "ack", [b"a", b"b"])])
            found = await rows.look(1)
            assert found == Look([(2, 7, "192.0.2.1:40000", "ack", b"b")], 1, 2)
            assert await rows.identity() is None
        finally:
            rows.close()


def test_a_store_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="there is no such store"):
        Relay(Clock(), str(tmp_path / "lines.db"), Endpoint(), "edge")
