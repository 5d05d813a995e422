"""What is not retained goes, in a stream; positions of sessions stay until they are unused."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("nats", reason="the extra nats is not installed")

from click.testing import CliRunner

from sockservice.cli import main
from sockservice.errors import StoreError
from sockservice.store.engine import Batch, Claim, Denied, Item, Mark, Marked, Outcome, Retention
from sockservice.store.nats import demands, removing
from sockservice.store.nats.cluster import Cluster
from sockservice.store.nats.engine import JetStream
from sockservice.store.nats.place import Place
from sockservice.store.plausible import Plausible
from sockservice.wire.session import Opened
from tests.conftest import PATIENCE, Log
from tests.soak.clustered import read
from tests.store.nats.test_cluster import asked, run

DAY = 86400.0


class Wall:
    """A clock that begins with that of the nodes, in seconds since 1970; its days may pass."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Kept:
    """An engine that looks at what is to be removed when it is told to."""

    def __init__(self, engine: JetStream, wall: Wall, gone: list[int]) -> None:
        self.engine = engine
        self.wall = wall
        self.gone = gone

    def commit(self, *items: Item) -> Sequence[Outcome]:
        return self.engine.commit(items) or [None] * len(items)

    def claim(self, name: str) -> Outcome:
        [told] = self.commit(Claim(name, "", 1000, None, None, self._now, "192.0.2.7:7"))
        return told

    def open(self, name: str) -> tuple[bool, int, int]:
        told = self.claim(name)
        assert isinstance(told, Opened), told
        return told.new, told.epoch, told.position

    def lines(self, *said: bytes) -> Batch:
        return Batch(self._now, "192.0.2.1:1", "tcp:192.0.2.9:555", list(said))

    def marked(self, name: str, epoch: int, position: int, *said: bytes) -> Item:
        return Marked(self.lines(*said), Mark(name, epoch, position))

    def look(self, days: float = 0.0, *, patient: bool = True) -> None:
        """Let days pass, then look until nothing is left to do."""
        self.wall.now += days * DAY
        remover = self.engine._remover
        until = time.monotonic() + PATIENCE
        while True:
            remover._allNext = 0.0
            pause = self.engine._link.call(remover.look())
            # A node that lags behind can't tell.
            if pause and not (patient and remover._said):
                return
            assert time.monotonic() < until, remover._said

    @property
    def _now(self) -> int:
        return int(self.wall.now * 1_000_000)


@contextmanager
def keeping(place: Place, retention: Retention | None = None, **sessions: Any) -> Iterator[Kept]:
    wall, gone = Wall(), list[int]()
    engine = JetStream(place, retention or Retention())
    engine.keepSessions(expired=gone.append, **sessions)
    engine.open()
    # Or a day would be taken for a clock that leaps.
    engine._remover._time = Plausible(wall, wall)
    try:
        yield Kept(engine, wall, gone)
    finally:
        engine.close()


def state(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = asked(place, f"STREAM.INFO.{place.stream}")["state"]
    return found


def test_lines_that_are_too_old_go_and_the_position_stays(stream: Place) -> None:
    with keeping(stream, Retention(age=30 * DAY)) as kept:
        kept.open("idle")
        kept.open("never used")
        assert (
            kept.commit(kept.marked("idle", 1, 0, b"a", b"b"), kept.lines(b"plain")) == [None] * 2
        )
        kept.look(29)
        assert sorted(read(stream)) == [b"a", b"b", b"plain"]
        for _ in range(3):
            kept.look(31)
            assert read(stream) == []
        # Those that nobody has refreshed since are told apart by nobody, not even in memory.
    with keeping(stream) as kept:
        assert kept.open("idle") == (False, 2, 2)
        assert kept.open("never used") == (False, 2, 0)
        assert kept.commit(kept.marked("idle", 2, 2, b"c")) == [None]
    assert read(stream) == [b"c"]


def test_who_writes_again_has_fenced_nobody(stream: Place) -> None:
    with keeping(stream, Retention(age=DAY)) as kept, keeping(stream) as other:
        other.open("demo")
        other.commit(other.marked("demo", 1, 0, b"a"))
        kept.look(2)
        assert other.commit(other.marked("demo", 1, 1, b"b")) == [None]
        kept.look(2)
        assert kept.open("demo") == (False, 2, 2)
        fenced = Denied("taken over by 192.0.2.7:7", permanent=True)
        assert other.commit(other.marked("demo", 1, 2, b"c")) == [fenced]


def test_the_oldest_go_when_all_take_too_much(stream: Place) -> None:
    with keeping(stream, Retention(size=300_000)) as kept:
        kept.open("idle")
        kept.commit(kept.marked("idle", 1, 0, b"x" * 1000))
        for number in range(100):
            kept.commit(kept.lines(b"%4d" % number + b"y" * 10_000))
        kept.look()
        found = state(stream)
        assert 240_000 < found["bytes"] <= 300_000
        kept_ = read(stream)
        assert kept_[-1].startswith(b"  99y")
        assert [line[:4] for line in kept_] == [b"%4d" % n for n in range(100 - len(kept_), 100)]
        assert kept.open("idle") == (False, 2, 1)
        first = found["first_seq"]
        kept.look()
        assert state(stream)["first_seq"] == first


def test_a_stream_that_is_full_makes_room_where_no_session_stands_in_the_way(
    stream: Place, log: Log
) -> None:
    small = stream._replace(stream="TIGHT", maxBytes=1 << 20)
    asked(stream, "STREAM.DELETE.TIGHT")
    with keeping(small) as filling:
        for number in range(40):
            filling.commit(filling.lines(b"%d" % number + b"x" * 10_000))
        filling.open("idle" * 60)
        for size in (1000, 1):
            with pytest.raises(StoreError, match="the stream is full"):
                while True:
                    filling.commit(filling.lines(b"y" * size))
        with keeping(small, Retention(size=100_000)) as kept:
            kept.look()
            assert state(small)["bytes"] < 150_000
            assert any("cannot be written again" in text for text in log.texts)
        assert filling.open("idle" * 60) == (False, 2, 0)
        assert filling.commit(filling.lines(b"again")) == [None]


def test_what_is_unused_for_too_long_is_forgotten(stream: Place) -> None:
    with keeping(stream, most=2, age=10 * DAY) as kept:
        kept.open("old")
        kept.commit(kept.marked("old", 1, 0, b"a"))
        kept.open("used")
        kept.look(6)
        kept.open("used")
        assert kept.claim("third") == Denied("busy: 2 sessions, the limit", permanent=False)
        kept.look(6)
        assert kept.gone == [1]
        # Who had it open, and was idle.
        gone = Denied("it is not kept any more", permanent=True)
        assert kept.commit(kept.marked("old", 1, 1, b"late")) == [gone]
        # Its place is free.
        assert kept.open("third") == (True, 1, 0)
        assert kept.claim("old") == Denied("busy: 2 sessions, the limit", permanent=False)
        assert read(stream) == [b"a"]
    with keeping(stream) as kept:
        assert kept.open("old") == (True, 2, 0)
        assert kept.commit(kept.marked("old", 1, 0, b"late"))[0] is not None


def test_what_is_forgotten_and_removed_has_higher_epochs_all_the_same(stream: Place) -> None:
    with keeping(stream, Retention(age=DAY), age=DAY) as kept:
        for epoch in range(1, 4):
            assert kept.open("demo")[1] == epoch
        kept.look(2)
        kept.look(2)
        assert state(stream)["messages"] == 0
        new, epoch, position = kept.open("demo")
        assert new and epoch > 3 and position == 0
        assert kept.commit(kept.marked("demo", 3, 0, b"late"))[0] is not None
    assert read(stream) == []


def test_without_an_age_nothing_is_forgotten(stream: Place) -> None:
    with keeping(stream) as kept:
        kept.open("demo")
        kept.look(10_000)
        assert kept.gone == []
        assert kept.open("demo") == (False, 2, 0)


def test_a_limit_of_age_of_the_streams_own_takes_no_position(stream: Place, log: Log) -> None:
    place = stream._replace(stream="OWN", maxBytes=1 << 20)
    config = demands.configuration(place) | {"max_age": int(DAY * 10**9)}
    asked(stream, "STREAM.DELETE.OWN")
    asked(stream, "STREAM.CREATE.OWN", **config)
    with keeping(place) as kept:
        assert "has max_age 86400s of its own: positions of sessions are lost if" in log.texts[-1]
        kept.open("demo")
        kept.commit(kept.marked("demo", 1, 0, b"a"))
        last = state(place)["last_seq"]
        kept.look(0.4)
        assert state(place)["last_seq"] == last
        kept.look(0.2)
        assert state(place)["last_seq"] == last + 1
        assert read(place) == [b"a"]
        asked(place, "STREAM.PURGE.OWN", seq=last + 1)
        assert kept.open("demo") == (False, 2, 1)


def test_many_are_forgotten_and_others_written_again(stream: Place) -> None:
    with keeping(stream, Retention(age=DAY), age=5 * DAY) as kept:
        names = [f"{number}" for number in range(600)]
        kept.commit(*[Claim(name, "", 9, None, None, kept._now, "p") for name in names[:300]])
        kept.wall.now += 3 * DAY
        kept.commit(*[Claim(name, "", 9, None, None, kept._now, "p") for name in names[300:]])
        kept.look(3)
        assert kept.gone == [300]
        assert state(stream)["num_subjects"] == 600
        kept.look()
        assert kept.open(names[-1]) == (False, 2, 0)
        assert kept.open(names[0])[0]


def test_a_session_is_forgotten_by_hand_while_it_is_used(stream: Place, cluster: Cluster) -> None:
    url = cluster.url("TESTS", "")
    with keeping(stream) as kept:
        kept.open("demo")
        kept.commit(kept.marked("demo", 1, 0, b"a"))
        assert run("sessions", url, "--forget", "demo") == []
        assert kept.commit(kept.marked("demo", 1, 1, b"b")) == [
            Denied("it is not kept any more", permanent=True)
        ]
        assert kept.open("demo") == (True, 2, 0)
    done = CliRunner().invoke(main, ["sessions", url, "--forget", "other"])
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [f"{stream}: there is no session other"]
    assert read(stream) == [b"a"]


def test_a_place_that_another_made_free_is_found(
    stream: Place, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removing, "SOON", 0.1)
    with keeping(stream, most=1) as kept:
        kept.open("first")
        # The look that would be the only one for an hour.
        kept.engine.tidy()
        while kept.engine._remover._look is not None:
            kept.engine.tidy()
        busy = Denied("busy: 1 session, the limit", permanent=False)
        assert kept.claim("second") == busy
        assert run("sessions", cluster.url("TESTS", ""), "--forget", "first") == []
        until = time.monotonic() + PATIENCE
        while (told := kept.claim("second")) == busy:
            kept.engine.tidy()
            assert time.monotonic() < until
        assert isinstance(told, Opened)


def test_it_is_looked_at_by_itself(stream: Place) -> None:
    """With no call but those that the storage thread makes."""
    with keeping(stream, Retention(age=DAY)) as kept:
        kept.commit(kept.lines(b"a"))
        kept.wall.now += 2 * DAY
        until = time.monotonic() + PATIENCE
        while state(stream)["messages"]:
            kept.engine.tidy()
            assert time.monotonic() < until


def test_what_nobody_answers_is_tried_again(stream: Place, log: Log) -> None:
    with keeping(stream, Retention(age=DAY)) as kept:
        kept.commit(kept.lines(b"a"))
        asked(stream, "STREAM.DELETE.TESTS")
        kept.look(2, patient=False)
        kept.look(patient=False)
    said = "nothing is removed from the stream TESTS: NATS says: stream not found; trying again"
    assert log.texts.count(said) == 1
