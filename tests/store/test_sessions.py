"""What every engine that keeps sessions has to do: each line once, in order, or not at all."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockservice.errors import CannotStart, StoreError
from sockservice.store.copying import NoCopy, copy
from sockservice.store.engine import (
    Batch,
    Claim,
    Denied,
    Item,
    Mark,
    Marked,
    Outcome,
    Retention,
    SessionBackend,
)
from sockservice.store.memory import Memory
from sockservice.store.nats.engine import JetStream
from sockservice.store.nats.place import Place
from sockservice.store.reader import Query, Reader
from sockservice.store.sessiontable import SessionTable
from sockservice.store.sqlite import SQLite
from sockservice.store.turns import COMMIT_LIMIT, Put, Turns
from sockservice.wire.session import Opened
from tests.store.test_store import read

NOW = 1_790_000_000_000_000


class Engine:
    """An engine that keeps sessions, and what it has stored of them."""

    def __init__(self, backend: SessionBackend, kept: Callable[[], list[bytes]]) -> None:
        self.backend = backend
        self.kept = kept

    def commit(self, *items: Item) -> Sequence[Outcome]:
        return self.backend.commit(items) or [None] * len(items)

    def claim(self, name: str = "demo", **given: Any) -> Any:
        """Claim a session; give what is told."""
        return self.commit(claim(name, **given))[0]

    def open(self, name: str = "demo", **given: Any) -> Opened:
        """Claim a session, and be given it."""
        outcome = self.claim(name, **given)
        assert isinstance(outcome, Opened), outcome
        return outcome


def claim(name: str = "demo", **given: Any) -> Claim:
    values: dict[str, Any] = {
        "owner": "",
        "limit": 1000,
        "at": None,
        "note": None,
        "received": NOW,
        "peer": "192.0.2.7:7",
    }
    return Claim(name, **values | given)


def lines(epoch: int, position: int, *said: bytes, name: str = "demo") -> Marked:
    batch = Batch(NOW, "192.0.2.1:1", "tcp:192.0.2.9:555", list(said))
    return Marked(batch, Mark(name, epoch, position))


def stored(path: Path) -> list[bytes]:
    with closing(sqlite3.connect(path)) as database:
        return [line for (line,) in database.execute("SELECT line FROM lines ORDER BY id")]


@contextmanager
def sqlite(path: Path, **given: Any) -> Iterator[Engine]:
    """Serve a database with sessions."""
    backend = SQLite(str(path))
    backend.keepSessions(**given)
    backend.open()
    try:
        yield Engine(backend, lambda: stored(path))
    finally:
        backend.close()


@contextmanager
def memory(path: Path, **given: Any) -> Iterator[Engine]:
    """Keep sessions in memory."""
    backend = Memory()
    backend.keepSessions(**given)
    yield Engine(backend, lambda: [line for _, _, line in backend.kept])


@contextmanager
def nats(place: Place, **given: Any) -> Iterator[Engine]:
    """Keep sessions in a stream."""
    backend = JetStream(place)
    backend.keepSessions(**given)
    backend.open()
    try:
        yield Engine(backend, lambda: [line for _, _, line in read(place)])
    finally:
        backend.close()


@pytest.fixture(params=[memory, sqlite, nats])
def making(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    if request.param is nats:
        place = request.getfixturevalue("stream")
        return lambda **given: nats(place, **given)
    return lambda **given: request.param(tmp_path / "lines.db", **given)


@pytest.fixture
def engine(making: Callable[..., Any]) -> Iterator[Engine]:
    with making() as made:
        yield made


# Every engine.


def test_position_and_checksum_are_those_of_the_lines(engine: Engine) -> None:
    opened = engine.open()
    assert opened[:5] == (True, 0, 0, 1000, 1)
    assert engine.commit(lines(1, 0, b"one", b""), lines(1, 2, b"\0\xff")) == [None, None]
    again = engine.open()
    assert again[:5] == (False, 3, crc32(b"one\n\n\0\xff\n"), 1000, 2)
    assert again.store == opened.store
    assert len(bytes.fromhex(again.store)) == 16
    assert engine.kept() == [b"one", b"", b"\0\xff"]


def test_a_claim_comes_behind_the_lines_before_it_and_ends_what_comes_later(
    engine: Engine,
) -> None:
    engine.open()
    told = engine.commit(
        lines(1, 0, b"a"), claim(peer="192.0.2.7:40022"), lines(1, 1, b"b"), lines(2, 1, b"c")
    )
    assert told[0] is None
    assert isinstance(told[1], Opened)
    assert told[1].position == 1
    assert told[2] == Denied("taken over by 192.0.2.7:40022", permanent=True)
    assert told[3] is None
    assert engine.commit(lines(1, 1, b"late"))[0] == told[2]
    assert engine.kept() == [b"a", b"c"]


def test_lines_behind_those_that_were_not_stored_are_not_stored_either(engine: Engine) -> None:
    engine.open()
    told = engine.commit(lines(1, 1, b"second"), lines(1, 0, b"first"), lines(1, 0, b"again"))
    assert [isinstance(each, Denied) for each in told] == [True, False, True]
    assert told[0] == Denied("not stored: line 1 of the session was not", permanent=False)
    assert engine.kept() == [b"first"]


def test_sessions_and_other_lines_do_not_know_each_other(engine: Engine) -> None:
    engine.open("a")
    engine.open("b")
    plain = Batch(NOW, "192.0.2.1:1", "tcp:192.0.2.9:555", [b"plain"])
    told = engine.commit(
        lines(1, 0, b"a1", name="a"),
        lines(7, 0, b"no", name="b"),
        plain,
        lines(1, 1, b"a2", name="a"),
        lines(1, 0, b"b1", name="b"),
    )
    assert [each is None for each in told] == [True, False, True, True, True]
    # Those of each in order, whatever of others comes between them.
    assert sorted(engine.kept()) == [b"a1", b"a2", b"b1", b"plain"]
    assert [line for line in engine.kept() if line[:1] == b"a"] == [b"a1", b"a2"]


def test_the_position_may_be_asked_for(engine: Engine) -> None:
    engine.open(at=0)
    engine.commit(lines(1, 0, b"a"))
    assert engine.open(at=1).epoch == 2
    assert engine.claim(at=0) == Denied("its position is 1, not 0", permanent=True)
    # Who was refused has fenced nobody.
    assert engine.commit(lines(2, 1, b"b")) == [None]
    # And made no session.
    assert engine.claim("other", at=5) == Denied("its position is 0, not 5", permanent=True)
    assert engine.open("other").new


def test_a_session_is_its_owners(engine: Engine) -> None:
    engine.open("mine", owner="uid=1000")
    for other in ("", "uid=0", "CN=uid=1000"):
        denied = engine.claim("mine", owner=other)
        assert denied == Denied("it belongs to another", permanent=True)
    engine.open("anybodys")
    assert engine.open("anybodys", owner="uid=0").epoch == 2
    assert engine.open("mine", owner="uid=1000").epoch == 2


def test_a_note_is_kept_with_its_position(engine: Engine) -> None:
    assert engine.open().note is None
    engine.commit(lines(1, 0, b"a"))
    assert engine.open(note="x:1")[6:] == ("x:1", 1, crc32(b"a\n"))
    engine.commit(lines(2, 1, b"b"))
    assert engine.open()[6:] == ("x:1", 1, crc32(b"a\n"))


def test_the_longest_line_is_that_of_the_beginning(engine: Engine) -> None:
    assert engine.open(limit=100).limit == 100
    assert engine.open(limit=5000).limit == 100
    assert engine.claim(limit=99) == Denied(
        "lines up to 100 bytes, the limit is 99", permanent=True
    )


def test_there_are_no_more_than_may_be(making: Callable[..., Any]) -> None:
    with making(most=2) as engine:
        told = engine.commit(claim("a"), claim("a"), claim("b"), claim("c"))
        assert told[3] == Denied("busy: 2 sessions, the limit", permanent=False)
        assert told[3].text == "busy: 2 sessions, the limit"
        assert engine.claim("c") == told[3]
        assert engine.open("b").epoch == 2


def test_lines_of_a_session_that_is_not_there_are_denied(engine: Engine) -> None:
    denied = Denied("it is not kept any more", permanent=True)
    assert engine.commit(lines(1, 0, b"a")) == [denied]
    assert denied.text == "session: it is not kept any more"
    assert engine.kept() == []


class Model:
    """Ten lines that say what is to be stored."""

    def __init__(self) -> None:
        self.epoch = 0
        self.lines: list[bytes] = []

    def append(self, epoch: int, position: int, said: list[bytes]) -> bool:
        fits = epoch == self.epoch and position == len(self.lines)
        self.lines += said if fits else []
        return fits


@given(
    st.lists(
        st.none()
        | st.tuples(
            st.integers(-1, 0), st.integers(-1, 1), st.lists(st.binary(max_size=3), min_size=1)
        ),
        max_size=30,
    ),
    st.integers(1, 5),
)
def test_any_order_of_claims_and_lines_stores_what_the_model_does(
    steps: list[Any], together: int
) -> None:
    model = Model()
    backend = Memory()
    items: list[Item] = []
    expected: list[Any] = []
    for step in [None, *steps]:
        if step is None:
            model.epoch += 1
            items.append(claim())
            expected.append((model.epoch, len(model.lines)))
        else:
            older, shift, said = step
            epoch, position = model.epoch + older, len(model.lines) + shift
            items.append(lines(epoch, position, *said))
            expected.append(model.append(epoch, position, said))
    told: list[Any] = []
    for at in range(0, len(items), together):
        told += backend.commit(items[at : at + together]) or []
    for outcome, wanted in zip(told, expected, strict=True):
        if isinstance(outcome, Opened):
            assert (outcome.epoch, outcome.position) == wanted
        else:
            assert (outcome is None) == wanted
    assert [line for _, _, line in backend.kept] == model.lines


# Commits that fail.


@pytest.mark.parametrize("certain", [True, False])
def test_what_a_failed_commit_has_stored_is_what_the_session_says(certain: bool) -> None:
    backend = Memory()
    engine = Engine(backend, lambda: [line for _, _, line in backend.kept])
    engine.open()
    backend.problem = StoreError("no answer", retry=True, certain=certain)
    with pytest.raises(StoreError):
        engine.commit(lines(1, 0, b"a"))
    backend.problem = None
    [behind] = engine.commit(lines(1, 1, b"b"))
    assert (behind is None) == (not certain)
    assert engine.kept() == ([] if certain else [b"a", b"b"])
    assert engine.open().position == len(engine.kept())


def test_on_a_full_disk_neither_lines_nor_position_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines.db"
    with sqlite(path) as engine:
        engine.open()
        database = engine.backend._database  # type: ignore[attr-defined]
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(StoreError, match="disk full") as failed:
            engine.commit(lines(1, 0, *[b"x" * 1000] * 100))
        assert failed.value.retry
        assert engine.commit(lines(1, 100, b"behind")) == [
            Denied("not stored: line 1 of the session was not", permanent=False)
        ]
        database.execute("PRAGMA max_page_count=1000000")
        assert engine.open().position == 0
        assert engine.commit(lines(2, 0, b"again")) == [None]
    assert stored(path) == [b"again"]


# The database.


def test_sessions_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "lines.db"
    with sqlite(path) as engine:
        first = engine.open(owner="CN=alice", note="n", limit=77)
        engine.commit(lines(1, 0, b"a", b"b"))
    with sqlite(path) as engine:
        again = engine.open(owner="CN=alice")
        assert engine.claim(owner="") == Denied("it belongs to another", permanent=True)
    assert again == (False, 2, crc32(b"a\nb\n"), 77, 2, first.store, "n", 0, 0)


def test_another_store_has_another_identity(tmp_path: Path) -> None:
    told = []
    for name in ("a.db", "b.db"):
        with sqlite(tmp_path / name) as engine:
            told.append(engine.open().store)
    assert told[0] != told[1]


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        number: int = database.execute("PRAGMA user_version").fetchone()[0]
        return number


def test_the_schema_is_the_first_until_sessions_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "lines.db"
    plain = Batch(NOW, "192.0.2.1:1", "", [b"plain"])
    for _ in range(2):
        backend = SQLite(str(path))
        backend.open()
        backend.commit([plain])
        backend.close()
        assert version(path) == 1
    with sqlite(path) as engine:
        engine.open()
        engine.commit(lines(1, 0, b"a"))
    assert version(path) == 2
    # A service without sessions goes on with it, and leaves them as they are.
    backend = SQLite(str(path))
    backend.open()
    backend.commit([plain])
    backend.close()
    assert version(path) == 2
    with sqlite(path) as engine:
        assert engine.open().position == 1
    assert stored(path) == [b"plain", b"plain", b"a", b"plain"]


def test_the_way_back_to_the_first_schema(tmp_path: Path) -> None:
    path = tmp_path / "lines.db"
    with sqlite(path) as engine:
        engine.open()
        engine.commit(lines(1, 0, b"a"))
    with closing(sqlite3.connect(path)) as database:
        # As docs/durability.md says.
        database.executescript("DROP TABLE sessions; DROP TABLE store; PRAGMA user_version=1;")
    with sqlite(path) as engine:
        assert engine.open().new
    assert stored(path) == [b"a"]


def test_a_schema_that_lacks_its_sessions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lines.db"
    with sqlite(path):
        pass
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE store")
    with pytest.raises(CannotStart, match="no such table: store"), sqlite(path):
        raise AssertionError("it was opened")


def test_the_table_of_sessions_is_read_while_it_is_served(tmp_path: Path) -> None:
    path = tmp_path / "lines.db"
    with sqlite(path) as engine:
        opened = engine.open("b", note="here")
        engine.open("a", owner="uid=7")
        engine.commit(lines(1, 0, b"x", name="a"))
        with closing(Reader(str(path))) as reader:
            found = reader.sessions()
    assert found is not None
    assert found.identity.hex() == opened.store
    assert [(row.name, row.owner, row.position, row.note) for row in found.rows] == [
        ("a", "uid=7", 1, None),
        ("b", "", 0, "here"),
    ]


def test_a_store_without_sessions_says_so(tmp_path: Path) -> None:
    backend = SQLite(str(tmp_path / "lines.db"))
    backend.open()
    backend.close()
    with closing(Reader(str(tmp_path / "lines.db"))) as reader:
        assert reader.sessions() is None


def test_the_peer_of_a_line_names_its_session(tmp_path: Path) -> None:
    path = tmp_path / "lines.db"
    with sqlite(path) as engine:
        engine.open()
        engine.commit(lines(1, 0, b"a"))
    with closing(Reader(str(path))) as reader:
        found, _ = reader.page(Query(columns="id, peer, line"), 0)
    assert found == [(1, "192.0.2.1:1 session demo", b"a")]


def test_what_is_removed_by_age_changes_no_position(tmp_path: Path) -> None:
    path = tmp_path / "lines.db"
    backend = SQLite(str(path), Retention(age=1.0))
    backend.keepSessions()
    backend.open()
    engine = Engine(backend, lambda: stored(path))
    engine.open()
    engine.commit(lines(1, 0, b"a", b"b"))
    while backend.tidy():
        pass
    assert engine.kept() == []
    assert engine.open().position == 2
    backend.close()


def test_a_backup_has_the_sessions_as_they_were(tmp_path: Path) -> None:
    path, backup = tmp_path / "lines.db", tmp_path / "copy.db"
    with sqlite(path) as engine:
        engine.open()
        engine.commit(lines(1, 0, b"a"))
        with closing(Reader(str(path))) as reader:
            copy(reader, str(backup), 0, False, lambda *_: None)
        engine.commit(lines(1, 1, b"b"))
        older = tmp_path / "older.db"
        shutil.copy(backup, older)
        with closing(Reader(str(path))) as reader:
            copy(reader, str(backup), 0, True, lambda *_: None)
        now = engine.open()
    for restored, position in ((older, 1), (backup, 2)):
        with sqlite(restored) as engine:
            opened = engine.open()
            assert (opened.position, opened.store) == (position, now.store)
            assert len(engine.kept()) == position


def test_lines_that_come_during_a_backup_are_in_no_position_of_it(tmp_path: Path) -> None:
    path, backup = tmp_path / "lines.db", tmp_path / "copy.db"
    with sqlite(path) as engine:
        engine.open()
        engine.commit(lines(1, 0, b"a"))

        def meanwhile(*_: object) -> None:
            engine.commit(lines(1, 1, b"b"))

        with closing(Reader(str(path))) as reader:
            copy(reader, str(backup), 0, False, meanwhile)
        assert engine.open().position == 2
    with sqlite(backup) as engine:
        assert engine.open().position == 1
        assert engine.kept() == [b"a"]


def test_sessions_of_another_store_are_not_appended(tmp_path: Path) -> None:
    backup = tmp_path / "copy.db"
    for name, append in (("a.db", False), ("b.db", True)):
        with sqlite(tmp_path / name), closing(Reader(str(tmp_path / name))) as reader:
            if append:
                with pytest.raises(NoCopy, match="another store"):
                    copy(reader, str(backup), 0, append, lambda *_: None)
            else:
                copy(reader, str(backup), 0, append, lambda *_: None)


# Age.


class Times:
    """What the clocks say, in seconds."""

    def __init__(self) -> None:
        self.now = NOW / 1_000_000

    def __call__(self) -> float:
        return self.now


def aged(path: Path, age: float, times: Times, gone: list[int], most: int = 0) -> Engine:
    backend = SQLite(str(path), clock=times)
    backend._sessions = SessionTable(most, age, gone.append, times, times)
    backend.open()
    return Engine(backend, lambda: stored(path))


def tidied(engine: Engine) -> None:
    while engine.backend.tidy():
        pass


def test_what_is_unused_for_too_long_is_forgotten(tmp_path: Path) -> None:
    times, gone = Times(), list[int]()
    engine = aged(tmp_path / "lines.db", 86400.0, times, gone, most=2)
    engine.open("old")
    engine.open("used")
    for _ in range(2):
        times.now += 50_000
        stamp = int(times.now * 1_000_000)
        engine.open("used", received=stamp)
        tidied(engine)
    assert gone == [1]
    assert engine.open("used", received=stamp).epoch == 4
    # Its place is free.
    assert engine.open("old", received=stamp).new
    engine.backend.close()


def test_who_was_connected_when_its_session_was_removed_is_none_of_a_later_one(
    tmp_path: Path,
) -> None:
    times, gone = Times(), list[int]()
    path = tmp_path / "lines.db"
    engine = aged(path, 10.0, times, gone)
    assert engine.open().epoch == 1
    times.now += 20
    tidied(engine)
    assert gone == [1]
    denied = engine.commit(lines(1, 0, b"between"))
    assert denied == [Denied("it is not kept any more", permanent=True)]
    engine.backend.close()
    engine = aged(path, 10.0, times, gone)
    later = engine.open(received=int(times.now * 1_000_000))
    assert (later.new, later.epoch) == (True, 2)
    assert engine.commit(lines(1, 0, b"of the removed one"))[0] is not None
    assert engine.kept() == []
    engine.backend.close()


def test_without_an_age_nothing_is_forgotten(tmp_path: Path) -> None:
    times, gone = Times(), list[int]()
    engine = aged(tmp_path / "lines.db", 0.0, times, gone)
    engine.open()
    times.now += 1e9
    tidied(engine)
    assert gone == []
    assert not engine.open().new
    engine.backend.close()


def test_many_are_removed_in_steps(tmp_path: Path) -> None:
    times, gone = Times(), list[int]()
    engine = aged(tmp_path / "lines.db", 10.0, times, gone)
    engine.commit(*[claim(f"{n}") for n in range(2500)])
    times.now += 20
    tidied(engine)
    assert gone == [1000, 1000, 500]
    engine.backend.close()


# What goes into one commit.


def test_no_claim_overtakes_lines_of_its_session() -> None:
    turns = Turns()
    heavy = [Put([lines(1, n * 4000, *[b"x"] * 4000)], lambda _: None) for n in range(4)]
    rival, other = Put([claim()], lambda _: None), Put([claim("other")], lambda _: None)
    lone = Put([Batch(1, "lone", "", [b"x"])], lambda _: None)
    turns.add([*heavy, rival, other, lone])
    first = turns.take()
    assert sum(put.lines for put in first) <= COMMIT_LIMIT + 4000
    assert other in first
    assert lone in first
    assert rival not in first
    assert [*first, *turns.take()].index(rival) > 4


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("st"), st.integers(0, 6000)), max_size=30
    )
)
def test_what_concerns_a_session_stays_in_its_order(given: list[tuple[str, str, int]]) -> None:
    turns = Turns()
    puts = []
    for peer, name, count in given:
        item: Item = claim(name, peer=peer)
        if count:
            batch = Batch(1, peer, "", [b"x"] * count)
            item = Marked(batch, Mark(name, 1, 0))
        puts.append(Put([item], lambda _: None))
    turns.add(puts)
    taken: list[Put] = []
    while turns:
        commit = turns.take()
        assert commit
        taken += commit
    for name in "st":
        assert [p for p in taken if name in p.names] == [p for p in puts if name in p.names]


@pytest.mark.parametrize("count", [1, 2, 127, 128, 129, 300])
def test_any_number_of_sessions_moves_on_in_one_commit(tmp_path: Path, count: int) -> None:
    path = tmp_path / "lines.db"
    names = [f"{number}" for number in range(count)]
    with sqlite(path) as engine:
        engine.commit(*[claim(name, owner="o", note="n") for name in names])
        assert not any(engine.commit(*[lines(1, 0, name.encode(), name=name) for name in names]))
    with sqlite(path) as engine:
        for name in names:
            opened = engine.open(name, owner="o")
            assert (opened.position, opened.crc) == (1, crc32(name.encode() + b"\n"))
            assert opened[3:5] == (1000, 2)
            assert opened.note == "n"
