"""At most so many lines a second, whatever happened before."""

import pytest

from sockservice.client.pacing import Pacing
from tests.client.test_sending import started


def test_a_pause_is_not_caught_up_on() -> None:
    pacing = Pacing(100, 0.0)
    sent = 0
    for now in (0.0, 5.0):
        count = pacing.allowed(1000, now)
        pacing.take(count)
        sent += count
    assert sent == 20
    assert pacing.wait(5.0) == pytest.approx(0.01)
    # A clock that is set back gives nothing.
    assert pacing.allowed(1000, 4.0) == 0


@pytest.mark.parametrize(("rate", "first"), [(0.5, 1), (100, 10), (None, 1000)])
def test_the_burst_is_a_tenth_of_a_second_or_one_line(rate: float | None, first: int) -> None:
    assert Pacing(rate, 0.0).allowed(1000, 0.0) == first


def test_lines_sent_again_count_for_the_rate() -> None:
    sender = started(rate=10)
    sender.sendAll([b"%d" % number for number in range(30)], lambda replies: None)
    for _ in range(105):
        sender.clock.advance(0.01)
    assert len(sender.wire.lines) == 11
    sender.wire.lose(ConnectionResetError())
    sender.clock.advance(1.0)
    # The delay is a second; one line may be sent at once.
    assert sender.wire.lines == [b"0"]
    for _ in range(99):
        sender.clock.advance(0.01)
    assert sender.wire.lines == [b"%d" % number for number in range(10)]
