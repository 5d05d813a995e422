"""Clients of a RELP server: ends of sessions in its words, and messages sent again."""

from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.test import iosim

from sockservice import LineClient, LineFactory, ReliableSender, StoreError, Unanswered
from sockservice.client.failover import Failover
from sockservice.client.parting import part
from sockservice.server.relp import Relp
from sockservice.testing import MemoryStore
from sockservice.wire.relpclient import RelpReplies
from tests.client.test_sending import started
from tests.conftest import HandReactor
from tests.doubles import Outcome
from tests.wire.test_relp import WELCOME, frame


class Pair:
    """A client and a RELP server, joined in memory."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.client = LineClient(self.clock, RelpReplies)
        factory = LineFactory(self.clock, Relp, store=self.store, lineLimit=10)
        self.server = factory.buildProtocol(None)
        self._pump = iosim.connect(
            self.server,
            iosim.makeFakeServer(self.server),
            self.client,
            iosim.makeFakeClient(self.client),
        )

    def asked(self, *lines: bytes) -> list[Outcome]:
        outcomes = [Outcome(self.client.ask(line)) for line in lines]
        self._pump.flush()
        return outcomes


def test_messages_are_acknowledged_or_refused_each_for_itself() -> None:
    pair = Pair()
    one, long, two = pair.asked(b"one", b"x" * 11, b"two\nlines")
    assert (one.value, long.value, two.value) == (b"ok", b"error line longer than 10 bytes", b"ok")
    assert pair.store.lines == [b"one", b"two\nlines"]


def test_a_message_that_is_not_stored_is_unanswered_and_the_server_says_why() -> None:
    pair = Pair()
    pair.asked(b"one")
    pair.store.problem = StoreError("disk full", retry=True)
    [two] = pair.asked(b"two")
    assert isinstance(two.error, Unanswered)
    assert str(two.error).startswith("the server ended the connection: ")
    assert "disk full" in pair.client.refusal


def test_the_session_is_closed_before_the_connection_is() -> None:
    pair = Pair()
    pair.asked(b"one")
    part(pair.client, pair.clock)
    wire: Any = pair.client.transport
    assert b"".join(wire.stream).endswith(frame(3, b"close"))
    pair._pump.flush()
    assert pair.client.refusal == ""


def test_each_connection_numbers_anew_what_has_no_answer() -> None:
    sender = started(framing=RelpReplies)
    outcomes = [Outcome(sender.send(line)) for line in (b"a", b"b")]
    sender.wire.answer(WELCOME[:-1], b"2 rsp 6 200 OK")
    sender.wire.answer(b"0 serverclose 10 error busy")
    [(why, delay, outstanding)] = sender.heard
    assert (why, outstanding) == ("the server ended the connection: error busy", 1)
    sender.wire.lose(ConnectionDone())
    sender.clock.advance(delay)
    assert sender.wire.value().endswith(frame(2, b"syslog", b"b"))
    sender.wire.answer(WELCOME[:-1], b"2 rsp 6 200 OK")
    assert [each.value for each in outcomes] == [b"ok", b"ok"]


def test_relp_targets_go_together_and_with_no_others(reactor: HandReactor) -> None:
    both = Failover.of(reactor, ["relp:127.0.0.1:1", "relp:[::1]:2"])
    assert both.framing is RelpReplies
    with pytest.raises(ValueError, match="relp: and other targets don't go together"):
        ReliableSender(reactor, ["relp:127.0.0.1:1", "127.0.0.1:2"])
