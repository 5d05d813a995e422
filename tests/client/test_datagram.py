"""The datagram client in memory: what is taken for a reply, and what never is."""

import errno
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from sockservice import DatagramClient, TimedOut, Unanswered
from sockservice.client.datagram import SETTLING, Resting
from sockservice.client.line import UNASKED_LIMIT
from sockservice.client.question import Question
from tests.doubles import DatagramWire, Outcome

PEER = ("192.0.2.1", 5555)


class Sent:
    """The socket of one question."""

    def __init__(self, network: "Network", question: Question) -> None:
        self.question = question
        self.network = network
        self.open = True

    def send(self, datagram: bytes) -> None:
        self.network.sent.append(self)
        if self.network.problem is not None:
            raise self.network.problem

    def close(self) -> None:
        self.open = False


class Network:
    """A client, its clock, and the sockets it has opened, in the order of sending."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.sent: list[Sent] = []
        self.problem: OSError | None = None
        self.refusals: list[Exception] = []
        self.client = DatagramClient(self.clock, PEER, self.opened)
        self.wire = DatagramWire()
        self.client.makeConnection(self.wire)

    def opened(self, question: Question) -> Sent:
        if self.refusals:
            raise self.refusals.pop(0)
        return Sent(self, question)

    def ask(self, *datagrams: bytes, timeout: float | None = 5.0) -> list[Outcome]:
        return [Outcome(self.client.ask(each, timeout)) for each in datagrams]

    def arrive(self, place: int, *datagrams: bytes) -> None:
        """Datagrams from the peer arrive at the socket of a question, if it is open still."""
        for each in datagrams:
            if self.sent[place].open:
                self.sent[place].question.received(each)

    @property
    def surplus(self) -> Counter[str]:
        return self.client.surplusCounts


def test_echoes_come_in_any_order() -> None:
    network = Network()
    outcomes = network.ask(b"a", b"b", b"", b"a")
    assert network.client.outstanding == 4
    for place in (3, 2, 0, 1):
        network.arrive(place, network.sent[place].question.datagram)
    assert [each.value for each in outcomes] == [b"a", b"b", b"", b"a"]
    assert network.client.outstanding == 0


def test_duplicates_of_one_acknowledge_no_other() -> None:
    network = Network()
    first, second, third = network.ask(b"a", b"a", b"c")
    network.arrive(0, b"a", b"a", b"a")
    assert (first.value, second.came, third.came) == (b"a", False, False)
    assert network.surplus == {"duplicated": 2}


def test_a_reply_that_is_no_echo_is_held_until_no_echo_has_come() -> None:
    network = Network()
    first, second = network.ask(b"a", b"ok")
    network.arrive(0, b"ok", b"more")
    network.clock.advance(SETTLING / 2)
    assert not (first.came or second.came)
    network.clock.advance(SETTLING)
    assert (first.value, second.came) == (b"ok", False)
    # From now on none is held.
    [third] = network.ask(b"c")
    network.arrive(2, b"C")
    assert third.value == b"C"
    assert network.surplus == {"unasked": 1}


def test_a_reply_held_when_its_time_is_over_is_one() -> None:
    network = Network()
    [only] = network.ask(b"a", timeout=SETTLING / 2)
    network.arrive(0, b"ok")
    network.clock.pump([SETTLING / 2, 0])
    assert only.value == b"ok"


def test_what_came_from_a_server_that_echoes_was_no_reply() -> None:
    network = Network()
    first, second = network.ask(b"a", b"b")
    network.arrive(0, b"news")
    network.arrive(1, b"b")
    assert (first.came, second.value) == (False, b"b")
    network.arrive(0, b"more news")
    network.clock.pump([5, 0])
    assert isinstance(first.error, TimedOut)
    why = "no echo within 5 seconds: the server echoes, and sent something else"
    assert str(first.error) == why
    assert network.surplus == {"unasked": 2}


def test_a_server_that_echoes_may_refuse() -> None:
    network = Network()
    first, second = network.ask(b"a", b"b")
    network.arrive(0, b"a")
    network.arrive(1, b"error busy")
    assert (first.value, second.value) == (b"a", b"error busy")


def test_what_a_refusal_is_can_be_said() -> None:
    network = Network()
    network.client.refusals = (b"nak", b"no ")
    first, second, third, fourth = network.ask(b"a", b"b", b"c", b"d")
    for place, reply in enumerate((b"a", b"nak", b"no way", b"error busy")):
        network.arrive(place, reply)
    assert (first.value, second.value, third.value) == (b"a", b"nak", b"no way")
    assert not fourth.came
    network.clock.pump([5, 0])
    assert isinstance(fourth.error, TimedOut)


def test_a_late_reply_is_nobody_elses() -> None:
    network = Network()
    first, second = network.ask(b"a", timeout=1) + network.ask(b"a", timeout=10)
    network.clock.pump([1, 0])
    assert isinstance(first.error, TimedOut)
    network.arrive(0, b"a", b"a")
    assert not second.came
    assert network.surplus == {"late": 1, "duplicated": 1}


def test_datagrams_that_answer_none_are_iterated_until_the_end() -> None:
    network = Network()
    got: list[bytes] = []

    async def read() -> None:
        async for datagram in network.client.datagrams():
            got.append(datagram)

    done = Outcome(Deferred.fromCoroutine(read()))
    network.ask(b"a", b"b")
    network.arrive(0, b"a", b"a", b"news")
    assert (got, done.came) == ([b"a", b"news"], False)
    network.client.stopProtocol()
    assert done.value is None
    assert not any(each.open for each in network.sent)


def test_the_latest_are_kept_for_a_slow_reader() -> None:
    network = Network()
    datagrams = network.client.datagrams()
    first = Outcome(Deferred.fromCoroutine(anext(datagrams)))  # type: ignore[arg-type]
    network.ask(b"a")
    network.arrive(0, b"a", *(b"%d" % number for number in range(UNASKED_LIMIT + 5)))
    following = Outcome(Deferred.fromCoroutine(anext(datagrams)))  # type: ignore[arg-type]
    assert (first.value, following.value) == (b"0", b"5")


def test_time_counts_from_sending_and_the_window_holds_back() -> None:
    network = Network()
    window = DatagramClient.WINDOW
    outcomes = network.ask(*[b"x"] * (window + 2))
    assert (len(network.sent), network.client.outstanding) == (window, window + 2)
    network.clock.advance(4.9)
    network.arrive(0, b"x")
    assert len(network.sent) == window + 1
    network.clock.pump([0.2, 0])
    assert len(network.sent) == window + 2
    assert [each.came for each in outcomes[-2:]] == [False, False]
    assert str(outcomes[1].error) == "no reply within 5 seconds"
    assert network.client.outstanding == 2


def test_a_bounded_number_of_sockets_stays_open() -> None:
    network = Network()
    for place in range(1000):
        network.ask(b"x")
        network.arrive(place, b"x")
    still = [each for each in network.sent if each.open]
    assert still == network.sent[-DatagramClient.KEPT :]


@pytest.mark.parametrize("problem", [Resting(), OSError(errno.EMFILE, "Too many open files")])
def test_what_finds_no_socket_waits_for_one(problem: Exception) -> None:
    network = Network()
    network.ask(b"a")
    network.refusals = [problem]
    [second] = network.ask(b"b", timeout=1)
    assert len(network.sent) == 1
    network.clock.advance(0.1)
    network.arrive(1, b"b")
    assert second.value == b"b"


def test_a_socket_that_rests_makes_room() -> None:
    network = Network()
    network.ask(b"a")
    network.arrive(0, b"a")
    network.refusals = [OSError(errno.EMFILE, "Too many open files")]
    network.ask(b"b")
    assert [each.open for each in network.sent] == [False, True]


def test_a_datagram_without_a_socket_fails() -> None:
    network = Network()
    network.refusals = [OSError(errno.EMFILE, "Too many open files")]
    [only] = network.ask(b"a")
    assert str(only.error) == "not sent: Too many open files"


def test_a_datagram_that_cannot_be_sent_fails_at_once() -> None:
    network = Network()
    network.problem = OSError(90, "Message too long")
    # Many, for one failure must not stand on another's.
    outcomes = network.ask(*[b"a"] * 2000)
    assert {str(each.error) for each in outcomes} == {"not sent: Message too long"}
    assert network.clock.getDelayedCalls() == []


def test_a_refusal_fails_the_datagram_that_was_refused() -> None:
    network = Network()
    first, second = network.ask(b"a", b"b")
    network.sent[0].question.refused()
    assert isinstance(first.error, Unanswered)
    assert str(first.error) == "connection refused: nobody listens there"
    assert not second.came


def test_a_refusal_that_the_system_tells_of_at_once_is_told() -> None:
    network = Network()
    network.problem = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    [only] = network.ask(b"a")
    assert str(only.error) == "connection refused: nobody listens there"


def test_a_datagram_cancelled_is_awaited_no_more() -> None:
    network = Network()
    deferred = network.client.ask(b"a")
    outcome = Outcome(deferred)
    deferred.cancel()
    assert outcome.came
    network.arrive(0, b"a")
    assert network.surplus == {"late": 1}


# Against a model: the server may do anything but answer from elsewhere.

PAYLOADS = st.sampled_from([b"a", b"A", b"b", b"ok", b"", b"abc"])
REPLY = st.sampled_from(["echo", "upper", "ok", "empty", "cut"])


def replied(how: str, datagram: bytes) -> bytes:
    made = {"echo": datagram, "upper": datagram.upper(), "ok": b"ok", "empty": b""}
    return made.get(how, datagram[:1])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), PAYLOADS, st.sampled_from([0.1, 1.0, 5.0])),
        st.tuples(st.just("reply"), st.integers(0, 30), REPLY),
        st.tuples(st.just("wait"), st.sampled_from([0.05, 0.3, 1.0, 5.0]), st.none()),
    ),
    max_size=60,
)


@given(STEPS)
def test_nothing_is_acknowledged_that_was_not_answered(steps: list[tuple[str, Any, Any]]) -> None:
    network = Network()
    outcomes: list[Outcome] = []
    answered: dict[int, list[bytes]] = {}
    arrived = 0
    for what, one, other in steps:
        if what == "ask":
            outcomes += network.ask(one, timeout=other)
        elif what == "wait":
            network.clock.pump([one, 0])
        elif network.sent:
            place = one % len(network.sent)
            reply = replied(other, network.sent[place].question.datagram)
            if not outcomes[place].came:
                answered.setdefault(place, []).append(reply)
            network.arrive(place, reply)
            arrived += 1
    # A pause in which all is decided and given up.
    network.clock.pump([10, 0, 10, 0])
    acknowledged = 0
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome.results[0], bytes):
            acknowledged += 1
            # In time, to this one, and in these words.
            assert outcome.value in answered[place]
        else:
            assert isinstance(outcome.error, TimedOut)
    # All that came is either a reply or counted.
    assert acknowledged + network.surplus.total() == arrived
