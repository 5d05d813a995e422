"""How late the lines of a file are, by a clock of the test's."""

from sockservice.cli.ship.lateness import Lateness


def test_it_is_0_when_all_is_acknowledged() -> None:
    late = Lateness()
    assert late.seconds(0, "a", 0, 0, 0, 0) == 0
    assert late.seconds(9, "a", 100, 0, 5, 0) == 0


def test_it_grows_until_what_was_seen_is_acknowledged() -> None:
    late = Lateness()
    assert late.seconds(0, "a", 0, 100, 0, 0) == 0
    assert late.seconds(1, "a", 50, 70, 0, 5) == 1
    assert late.seconds(2, "a", 120, 30, 5, 7) == 2  # its bytes are read, 12 lines
    assert late.seconds(3, "a", 150, 0, 11, 4) == 3
    # Acknowledged; what has come since then is followed.
    assert late.seconds(4, "a", 150, 0, 12, 3) == 4
    assert late.seconds(5, "a", 150, 0, 14, 1) == 4
    assert late.seconds(6, "a", 150, 0, 15, 1) == 2  # from 4 on
    assert late.seconds(7, "a", 150, 0, 16, 0) == 0


def test_a_file_that_gives_way_to_the_next_has_been_read() -> None:
    late = Lateness()
    late.seconds(0, "a", 0, 100, 0, 0)
    assert late.seconds(5, "b", 10, 20, 8, 2) == 5
    assert late.seconds(6, "b", 30, 9, 10, 3) == 6
    assert late.seconds(7, "b", 30, 9, 13, 1) == 6
