"""When a sender gives up, and to which target it goes."""

from twisted.internet.error import ConnectionLost

from sockservice import Unanswered
from sockservice.client.failover import separated
from sockservice.net.tls.client import HandshakeError
from tests.client.test_sending import Endpoint, Sender, started
from tests.doubles import Outcome


def test_it_gives_up_after_so_many_attempts() -> None:
    sender = Sender(retryTimes=2)
    given: list[str] = []
    sender.gaveUp = lambda why, cause: given.append(why)  # type: ignore[method-assign]
    sender.endpoint.refusing = True
    reply = Outcome(sender.send(b"a"))
    sender.startService()
    for _ in range(5):
        sender.clock.advance(3)
    assert len(sender.heard) == 2
    assert isinstance(reply.error, Unanswered)
    assert given[0].endswith("; given up")
    assert sender.clock.getDelayedCalls() == []


def test_it_gives_up_when_the_time_is_over_and_not_before() -> None:
    sender = Sender(retryFor=10, backoff=lambda _: 60.0)
    sender.gaveUp = lambda why, cause: None  # type: ignore[method-assign]
    sender.endpoint.refusing = True
    reply = Outcome(sender.send(b"a"))
    sender.startService()
    for _ in range(99):
        sender.clock.advance(0.1)
    assert not reply.came
    # It has tried in the meantime, though the delay was longer than the time.
    assert 2 < len(sender.heard) < 12
    sender.clock.advance(0.2)
    assert isinstance(reply.error, Unanswered)
    assert sender.clock.getDelayedCalls() == []


def test_a_reply_begins_the_count_again() -> None:
    sender = started(retryTimes=1)
    for _ in range(5):
        reply = Outcome(sender.send(b"a"))
        sender.wire.answer(b"ok")
        assert reply.value == b"ok"
        sender.wire.lose(ConnectionLost())
        sender.clock.advance(1)


def test_a_certificate_that_is_refused_ends_it_at_once() -> None:
    sender = started()
    given: list[str] = []
    sender.gaveUp = lambda why, cause: given.append(why)  # type: ignore[method-assign]
    reply = Outcome(sender.send(b"a"))
    why = "the server's certificate is not for here"
    sender.wire.lose(HandshakeError(string=why))
    sender.clock.advance(0)
    assert (isinstance(reply.error, Unanswered), len(given)) == (True, 1)
    assert why in given[0]


def test_the_next_target_gets_what_has_no_reply() -> None:
    first, second = Endpoint(), Endpoint()
    sender = Sender()
    sender._targets._targets = [("one", first), ("two", second)]
    sender._targets._several = True
    sender.startService()
    reply = Outcome(sender.send(b"a"))
    assert first.wires[0].lines == [b"a"]
    first.wires[0].lose(ConnectionLost())
    sender.clock.advance(0)
    assert second.wires[0].lines == [b"a"]
    second.wires[0].answer(b"ok")
    assert reply.value == b"ok"


def test_commas_separate_targets() -> None:
    assert separated("a:1,b:2") == ["a:1", "b:2"]
    assert separated("unix:/a,b,tls:[::1]:2,unix:/c") == ["unix:/a,b", "tls:[::1]:2", "unix:/c"]
    assert separated("unix:/tmp/a,b") == ["unix:/tmp/a,b"]
