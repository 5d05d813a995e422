"""What holds for any input whatever. An input alone decides all that is done with it."""

import re
from collections.abc import Callable
from random import Random
from typing import Any
from zlib import crc32

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol

from sockservice import Ack, LineServer
from sockservice.server.answers import Answer
from sockservice.server.builtin import EchoLines
from sockservice.wire.framer import Framer
from sockservice.wire.framing import Lines, Refusal
from sockservice.wire.proxyheader import Header, parsed
from sockservice.wire.relp import RelpFraming
from sockservice.wire.syslog import SyslogFraming
from sockservice.wire.telnet import SUBNEGOTIATION_LIMIT, Telnet
from tests.fuzz.inputs import bytewise, cuts
from tests.server.test_lines import Memory
from tests.server.test_proxy import Proxied
from tests.wire.test_framing import model

#: A line, a refusal, or what a telnet client is told.
Item = tuple[str, bytes, bytes]


class Wrong(Exception):
    """What does not hold for an input."""


def single(data: bytes) -> bytes:
    """Give what was sent with each 0xFF once.

    It is doubled from when a connection has shown itself to be a telnet client's, which
    depends on when the bytes come that show it.
    """
    return re.sub(rb"\xff+", b"\xff", data)


def agreed(what: str, one: object, other: object) -> None:
    """See that two ways come to the same.

    :raises Wrong: They do not.
    """
    if one != other:
        raise Wrong(f"{what}: {one!r:.1000} is not {other!r:.1000}")


def tried(target: str, data: bytes) -> None:
    """Try an input on a target.

    :raises Wrong: Something does not hold for it.
    """
    try:
        TARGETS[target](data, Random(crc32(data)))
    except Wrong:
        raise
    except Exception as problem:
        raise Wrong(f"{type(problem).__name__}: {problem}") from problem


def ways(data: bytes, chance: Random) -> list[list[bytes]]:
    """Give some ways to cut an input."""
    return [bytewise(data), cuts(data, chance), cuts(data, chance, 3)]


def held(thing: object) -> int:
    """Give how many bytes a framing keeps."""
    if isinstance(thing, (bytes, bytearray)):
        return len(thing)
    return sum(held(getattr(thing, name)) for name in getattr(thing, "__slots__", ()))


def taken(framing: Any, chunks: list[bytes], most: int, bound: int) -> list[Item]:
    """Give what comes of chunks. Of what is told in one place, the parts are joined."""
    items: list[Item] = []
    try:
        for chunk in chunks:
            framing.receive(chunk)
            while (item := framing.take(most)) is not None:
                if isinstance(item, Lines):
                    if not 1 <= len(item.lines) <= most:
                        raise Wrong(f"{len(item.lines)} lines taken at once, not 1 to {most}")
                    items += [("line", line, item.ending) for line in item.lines]
                elif isinstance(item, Refusal):
                    items.append(("refusal", *item))
                else:
                    told = items.pop()[1] if items and items[-1][0] == "told" else b""
                    items.append(("told", told + item.data, b""))
            if held(framing) > bound:
                raise Wrong(f"{held(framing)} bytes are kept, more than {bound}")
    except ValueError as problem:
        return [*items, ("given up", str(problem).encode(), b"")]
    end = framing.finish()
    return items if end is None else [*items, ("refusal", *end)]


def framing(data: bytes, chance: Random) -> None:
    """Any cuts give what a model gives for the whole, and no more than a line is kept."""
    limit, most = chance.choice((1, 2, 5, 9, 64)), chance.choice((1, 2, 1000))
    expected = model(data, limit)
    for chunks in [[data], *ways(data, chance)]:
        # A line, half an ending behind it, and the ending of the line before.
        got = taken(Framer(limit), chunks, most, limit + 1 + 2)
        agreed(f"in {len(chunks)} chunks", got, expected)


def telnet(data: bytes, chance: Random) -> None:
    """Any cuts give the same lines, the same refusals and tell the same."""
    limit, most = chance.choice((5, 64, 6000)), chance.choice((1, 2, 1000))
    # The longest that may still be shown to be a client's, behind a line begun.
    bound = limit + 2 * SUBNEGOTIATION_LIMIT
    first = chance.random() < 0.7

    def said(chunks: list[bytes]) -> list[Item]:
        framer = Framer(limit)
        if not first:
            framer.receive(b"begun")
        return taken(Telnet(framer, first=first), chunks or [b""], most, bound)

    expected = said([data])
    for chunks in ways(data, chance):
        agreed(f"in {len(chunks)} chunks", said(chunks), expected)


def proxy(data: bytes, chance: Random) -> None:
    """Each longer piece of an input says what the shorter ones said, or more."""
    before: Header | str | None = None
    for size in range(min(len(data), 400) + 1):
        now: Header | str | None
        try:
            now = parsed(data[:size])
        except ValueError as problem:
            now = str(problem)
        if before is not None:
            agreed(f"the header of {size} bytes", now, before)
        if isinstance(now, Header) and not 0 < now.length <= size:
            raise Wrong(f"a header of {now.length} bytes in {size}")
        before = now
    expected = relayed([data])
    for chunks in ways(data, chance):
        agreed(f"in {len(chunks)} chunks", relayed(chunks), expected)


def relayed(chunks: list[bytes]) -> bytes:
    """Give what a proxy gets."""
    proxied = Proxied()
    for chunk in chunks:
        proxied.send(chunk)
        if proxied.wire.disconnecting:
            # A real transport reads no more after it.
            break
    return single(proxied.sent)


class Later(LineServer):
    """Answers some lines at once, some later, some never before others."""

    answerLimit = 5

    def __init__(self) -> None:
        self.due: list[tuple[Deferred[bytes | None], bytes]] = []

    def answer(self, line: bytes) -> Answer:
        if len(line) % 3 == 0:
            return line
        answer = Deferred[bytes | None]()
        self.due.append((answer, line))
        return answer


def server(data: bytes, chance: Random) -> None:
    """However bytes come, replies are read and answers come: each line gets one, in order."""
    protocols: list[Callable[[], LineServer]] = [Ack, EchoLines, Later]
    protocol, limit = chance.choice(protocols), chance.choice((5, 64, 6000))
    expected = served(protocol, limit, [data], None)
    for chunks in ways(data, chance):
        agreed(f"in {len(chunks)} chunks", served(protocol, limit, chunks, chance), expected)
    if b"\xff" not in data:
        items = model(data, limit)
        replies = [
            (text if protocol is not Ack else b"ok") if kind == "line" else b"error " + text
            for kind, text, _ in items
        ]
        ends = [ending for _, _, ending in items]
        agreed("the replies", expected, b"".join(map(bytes.__add__, replies, ends)))


def served(
    protocol: Callable[[], LineServer], limit: int, chunks: list[bytes], chance: Random | None
) -> bytes:
    """Give all that a server replies to chunks, by chance read and answered late."""
    memory = Memory(protocol, lineLimit=limit)
    line: Any = memory.server
    waiting = list(chunks)
    unread = ended = False
    for _ in range(20 * len(data := b"".join(chunks)) + 100):
        does = chance.randrange(6) if chance is not None else 5
        if does == 0 and not unread and not memory.wire.disconnecting:
            unread = True
            memory.producer.pauseProducing()
        elif does in (1, 5) and unread:
            unread = False
            memory.producer.resumeProducing()
        elif does in (2, 5) and getattr(line, "due", None):
            at = 0 if chance is None else chance.randrange(len(line.due))
            answer, reply = line.due.pop(at)
            answer.callback(reply)
        elif waiting and not memory.paused:
            line.dataReceived(waiting.pop(0))
        elif not (waiting or ended or memory.paused):
            ended = True
            IHalfCloseableProtocol(line).readConnectionLost()
        if memory.wire.disconnecting and not getattr(line, "due", None):
            break
    else:
        raise Wrong(f"{len(data)} bytes are not served to their end")
    counters = memory.factory.counters
    agreed("the lines answered", counters.answered, counters.lines)
    reply = memory.wire.value()
    memory.lose()
    agreed("the connections", memory.factory._connections, set())
    assert isinstance(reply, bytes)
    return single(reply)


def frames(made: Callable[[int], Any]) -> Callable[[bytes, Random], None]:
    """Any cuts give the same messages, answers and end, and no more than a frame is kept."""

    def tries(data: bytes, chance: Random) -> None:
        limit, most = chance.choice((5, 64, 1000)), chance.choice((1, 2, 1000))
        # The longest frame there may be, a RELP command of 4096 bytes, with its header.
        bound = limit + 4096 + 60

        def said(chunks: list[bytes]) -> list[Item]:
            items = taken(made(limit), chunks, most, bound)
            # What comes of frames of which several were taken at once, each with its number.
            return [(kind, text, b"") for kind, text, _ in items]

        expected = said([data])
        for chunks in ways(data, chance):
            agreed(f"in {len(chunks)} chunks", said(chunks), expected)

    return tries


TARGETS: dict[str, Callable[[bytes, Random], None]] = {
    "framing": framing,
    "telnet": telnet,
    "proxy": proxy,
    "server": server,
    "syslog": frames(SyslogFraming),
    "relp": frames(RelpFraming),
}
