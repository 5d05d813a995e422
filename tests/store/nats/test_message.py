"""What stands in messages."""

from hypothesis import given
from hypothesis import strategies as st

from sockservice.store.engine import Batch
from sockservice.store.nats.message import divided, row, state, subject
from sockservice.store.nats.place import parsed
from sockservice.store.sessions import Row


@given(st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=12), max_size=8))
def test_messages_hold_all_lines_in_order_and_no_more_than_may_be(
    said: list[list[bytes]],
) -> None:
    batches = [Batch(1, f"p{number}", "l", lines) for number, lines in enumerate(said)]
    parts = list(divided(batches, 150))
    joined = [(batch.peer, line) for part in parts for batch in part for line in batch.lines]
    assert joined == [(batch.peer, line) for batch in batches for line in batch.lines]
    assert all(batch.lines for part in parts for batch in part)
    assert all(part for part in parts)
    for part in parts:
        lines = [line for batch in part for line in batch.lines]
        assert len(lines) == 1 or sum(map(len, lines)) <= 150


def test_a_session_is_in_its_header_whatever_its_words_are() -> None:
    kept = Row("a", "CN=Zoë\r\n\0", 7, 1, 2, "p", 3, 4, 5, "n", 6, 8)
    assert state(kept).isascii()
    assert "\n" not in state(kept)
    assert row(state(kept)) == kept
    assert row('{"name": "a", "owner": "", "limit": 1, "created": 2, "later": 1}').name == "a"


def test_each_session_has_a_subject_of_its_own() -> None:
    place = parsed("nats://h/S")
    subjects = {subject(place, name) for name in ("a", "b", "a.b", "*", ">", "x" * 255)}
    assert len(subjects) == 6
    assert all(each.count(".") == 3 and "*" not in each and ">" not in each for each in subjects)
