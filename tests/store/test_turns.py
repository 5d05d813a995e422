"""What goes into one commit, and whose lines come first."""

from hypothesis import given
from hypothesis import strategies as st

from sockservice.store.engine import Batch
from sockservice.store.turns import COMMIT_LIMIT, COMMIT_MOST, LATEST, Put, Turns


def put(peer: str, lines: int) -> Put:
    return Put([Batch(1, peer, "", [b"x"] * lines)], lambda _: None)


def test_a_commit_is_as_large_as_what_can_be_written_while_it_is_synced() -> None:
    turns = Turns()
    assert turns.limit == COMMIT_LIMIT
    for _ in range(LATEST):
        turns.took(8000, 0.216)
    assert 99_000 < turns.limit <= 100_000
    for _ in range(LATEST):
        turns.took(100_000, 60.0)
    assert turns.limit == COMMIT_MOST
    turns.took(1, 0.0005)
    assert turns.limit == COMMIT_LIMIT


def test_a_few_slow_syncs_make_no_large_commits() -> None:
    turns = Turns()
    for _ in range(LATEST - 1):
        turns.took(1, 20.0)
    assert turns.limit == COMMIT_LIMIT


def test_what_is_one_commit_is_in_the_order_it_came() -> None:
    turns = Turns()
    puts = [put("a", 5), put("b", 1), put("a", 1)]
    turns.add(puts)
    assert turns.take() == puts
    assert turns.take() == []


def test_who_has_sent_little_comes_before_who_has_sent_much() -> None:
    turns = Turns()
    heavy = [put("heavy", COMMIT_LIMIT // 2) for _ in range(6)]
    lone = put("lone", 1)
    turns.add([*heavy, lone])
    assert turns.take() == [heavy[0], heavy[1], lone]
    assert turns.take() == heavy[2:4]


def test_who_has_much_is_not_kept_waiting_by_many_who_have_little() -> None:
    turns = Turns()
    heavy = [put("heavy", 1000), put("heavy", 1000)]
    turns.add([put("first", 1), *heavy])
    for number in range(2):
        turns.add([put(f"{number} {n}", 1) for n in range(COMMIT_LIMIT)])
        taken = turns.take()
        assert heavy[0] in taken or number == 0
    assert heavy[0] in taken


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 6000)), max_size=40))
def test_all_is_taken_once_and_that_of_a_peer_in_its_order(given: list[tuple[str, int]]) -> None:
    turns = Turns()
    puts = [put(*each) for each in given]
    turns.add(puts)
    taken = []
    while turns:
        commit = turns.take()
        assert commit
        taken += commit
        # No more than the limit, but for the last put.
        assert sum(each.lines for each in commit[:-1]) <= COMMIT_LIMIT + 6000
    for peer in "abcd":
        assert [p for p in taken if p.peer == peer] == [p for p in puts if p.peer == peer]
