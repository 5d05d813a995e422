"""The limits against models that are plainly right, in any order of events."""

import ipaddress
from collections import OrderedDict
from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.address import IPv4Address, IPv6Address

from sockservice.limits import tokenbucket
from sockservice.limits.access import Access
from sockservice.limits.admission import Admission, Limits, source
from sockservice.limits.tokenbucket import Rate
from sockservice.net.addresses import LocalPeer
from sockservice.wire.plurals import counted

#: Pauses whose sums are exact.
PAUSES = st.integers(0, 24).map(lambda eighths: eighths / 8)


def permitted(taken: list[float], now: float, most: int) -> bool:
    """Whether one more keeps every span of time below what it may hold.

    A span of s seconds may hold `most` that were saved up, and `most` times s.
    """
    spans = [*taken, now]
    return all(
        len([when for when in taken if when >= start]) + 1 <= most + (now - start) * most
        for start in spans
    )


class Rating(RuleBasedStateMachine):
    """Each source has its own rate; those not heard of longest are forgotten."""

    KNOWN = 3

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.taken: OrderedDict[str, list[float]] = OrderedDict()

    @initialize(most=st.integers(1, 3))
    def start(self, most: int) -> None:
        self.rate = Rate(most)

    @rule(pause=PAUSES)
    def wait(self, pause: float) -> None:
        self.now += pause

    @rule(whose=st.sampled_from("abcde"))
    def take(self, whose: str) -> None:
        taken = self.taken.pop(whose, [])
        expected = permitted(taken, self.now, self.rate.most)
        with patch.object(tokenbucket, "SOURCES", self.KNOWN):
            assert self.rate.take(whose, self.now) is expected
        self.taken[whose] = [*taken, self.now] if expected else taken
        if len(self.taken) > self.KNOWN:
            self.taken.popitem(last=False)


class Admitting(RuleBasedStateMachine):
    """However connections come and go, who is refused is refused for the first limit it meets."""

    PEERS = [
        IPv4Address("TCP", "192.0.2.1", 40000),
        IPv4Address("TCP", "192.0.2.2", 40000),
        IPv6Address("TCP", "::ffff:192.0.2.1", 40000),
        IPv6Address("TCP", "2001:db8::1", 40000),
        IPv6Address("TCP", "2001:db8::2", 40000),
        IPv4Address("TCP", "198.51.100.1", 40000),
        LocalPeer(1, 1000, 1000),
        LocalPeer(2, 1000, 1000),
        None,
    ]

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.inside: list[Any] = []
        self.rated: dict[str, list[float]] = {}

    @initialize(connections=st.integers(0, 5), ofOne=st.integers(0, 2), rate=st.integers(0, 2))
    def start(self, connections: int, ofOne: int, rate: int) -> None:
        self.limits = Limits(
            Access(deny=[ipaddress.ip_network("198.51.100.0/24")]),
            connections=connections,
            connectionsPerSource=ofOne,
            connectionRate=rate,
        )
        self.admission = Admission(self.limits)

    @rule(pause=PAUSES)
    def wait(self, pause: float) -> None:
        self.now += pause

    @rule(peer=st.sampled_from(PEERS))
    def come(self, peer: Any) -> None:
        refusal = self.admission.refusal(peer, self.now)
        assert refusal == self._expected(peer)
        if refusal is None:
            self.inside.append(peer)

    def _expected(self, peer: Any) -> str | None:
        allowed, whose = self.limits, source(peer)
        if peer in self.PEERS[5:6]:
            return "not allowed: 198.51.100.1"
        most = allowed.connections
        if most and len(self.inside) == most:
            return f"busy: {counted(most, 'connection')}, the limit; try again later"
        if whose is None:
            return None
        most = allowed.connectionsPerSource
        if most and len([each for each in self.inside if source(each) == whose]) == most:
            held = f"{counted(most, 'connection')} from {whose}"
            return f"busy: {held}, the limit; try again later"
        most, taken = allowed.connectionRate, self.rated.setdefault(whose, [])
        if most and not permitted(taken, self.now, most):
            rate = f"{counted(most, 'connection')} a second from {whose}"
            return f"busy: {rate}, the limit; try again later"
        taken.append(self.now)
        return None

    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        if self.inside:
            peer = self.inside.pop(data.draw(st.integers(0, len(self.inside) - 1)))
            self.admission.left(source(peer))

    @invariant()
    def limited(self) -> None:
        if hasattr(self, "limits") and self.limits.connections:
            assert len(self.inside) <= self.limits.connections

    def teardown(self) -> None:
        """When all have gone, as many may come as in the beginning."""
        for peer in self.inside:
            self.admission.left(source(peer))
        self.inside.clear()
        self.now += 10
        self.rated.clear()
        self.come(self.PEERS[0])


TestRating = Rating.TestCase
TestAdmitting = Admitting.TestCase
TestRating.settings = TestAdmitting.settings = settings(max_examples=60)
