"""The datagram client against a server that doubles, drops, reorders and answers late."""

import json
import socket
from collections import Counter
from contextlib import ExitStack, closing, suppress
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from sockservice import DatagramClient, Unanswered, connect
from sockservice.client.datagram import Resting
from sockservice.client.ports import REST, Ports
from tests.client.adversary import Adversary
from tests.conftest import PATIENCE, Child, Children, Reactor, until


def echo(datagram: bytes) -> bytes:
    return datagram


SERVERS: dict[str, list[Any]] = {
    "echo": [echo],
    "uppercase": [bytes.upper],
    "ok": [lambda _: b"ok"],
    "empty": [lambda _: b""],
    "mixed": [echo, bytes.upper, lambda _: b"ok", lambda datagram: datagram[:1]],
}


@pytest.mark.parametrize("kind", SERVERS)
async def test_no_acknowledgement_is_false(kind: str, real: Reactor, opened: ExitStack) -> None:
    server = opened.enter_context(closing(Adversary(7, SERVERS[kind], latest=0.4)))
    client = await connect(real, server.target, DatagramClient)
    random = Random(7)
    acknowledged: Counter[bytes] = Counter()
    # Many alike, and some that are another's reply.
    sent = [random.choice([b"a", b"A", b"ok", b"", b"b%d" % each]) for each in range(600)]

    async def ask(datagram: bytes) -> None:
        try:
            await client.ask(datagram, timeout=0.1)
        except Unanswered:
            return
        acknowledged[datagram] += 1

    for each in sent:
        Deferred.fromCoroutine(ask(each))
    await until(lambda: not client.outstanding)
    await client.close()
    assert acknowledged.total()
    assert not acknowledged - server.answered
    assert client.surplusCounts.total()


def test_send_acknowledges_what_was_answered_and_counts_the_rest(
    children: Children, opened: ExitStack
) -> None:
    bound = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    bound.settimeout(PATIENCE)
    bound.bind(("127.0.0.1", 0))
    target = f"udp:127.0.0.1:{bound.getsockname()[1]}"
    process = children.start("sockservice", "send", "--json", "--timeout", "1", target, *"abca")
    heard = [bound.recvfrom(100) for _ in range(4)]
    assert [datagram for datagram, _ in heard] == [b"a", b"b", b"c", b"a"]
    assert len({source for _, source in heard}) == 4
    # The first twice, the second once, the others never.
    for place in (0, 0, 1):
        bound.sendto(*heard[place])
    sending = Child(process)
    status, said = sending.end()
    *replies, summed = map(json.loads, sending.output.splitlines())
    assert (status, [each["line"] for each in replies]) == (4, [1, 2])
    counts = [summed[each] for each in ("acknowledged", "unacknowledged", "duplicated", "late")]
    assert counts == [2, 2, 1, 0]
    first, last = said.decode().splitlines()
    assert first == "answers none: a"
    assert last.endswith("3 to 4 are unacknowledged; datagrams that answered none: 1 duplicated")


def test_a_port_rests_before_it_is_used_again(opened: ExitStack) -> None:
    bound = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    bound.bind(("127.0.0.1", 0))
    wanted = 0

    def connected() -> socket.socket:
        made = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.setblocking(False)
        with suppress(OSError):
            # As if the system chose this one whenever it is free.
            made.bind(("127.0.0.1", wanted))
        made.connect(bound.getsockname())
        return made

    clock: Any = MemoryReactorClock()
    ports = Ports(clock, connected)
    question: Any = None

    def used() -> int:
        opened = ports.open(question)
        opened.send(b"")
        opened.close()
        port: int = bound.recvfrom(1)[1][1]
        return port

    wanted = used()
    assert used() != wanted
    clock.advance(REST)
    assert used() == wanted


def test_sending_waits_when_all_ports_rest(opened: ExitStack) -> None:
    made = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.setblocking(False)
    made.bind(("127.0.0.1", 0))
    clock: Any = MemoryReactorClock()
    ports = Ports(clock, made.dup)
    question: Any = None
    ports.open(question).close()
    with pytest.raises(Resting):
        ports.open(question)
    clock.advance(REST)
    ports.open(question).close()
