"""What stands in the messages of a stream: lines, and the state of the session they are of.

Lines are a payload of :mod:`sockservice.store.pipe`, batches one after the other. A message
of a session has its state after these lines in the header `Session-State`, the fields of a
:class:`~sockservice.store.sessions.Row` as an object in JSON: the last message of its subject
is what is kept of the session.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from hashlib import sha256

from sockservice.store.engine import Batch, Item, Marked
from sockservice.store.nats.place import Place
from sockservice.store.sessions import FIELDS, Row

#: Headers: the state of a session, whether it was forgotten, and the message's own id.
STATE, FORGOTTEN, WRITER = "Session-State", "Session-Forgotten", "Nats-Msg-Id"
#: The header by which a message is stored only behind that one of its subject.
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
#: Bytes of lines in a message, about; a single line may be longer.
LONGEST = 512 * 1024
#: Bytes that a message holds besides a line: the rest of its batch, and the headers.
OVERHEAD = 16 * 1024
#: An id is the number of a message in the stream, then the line's in the message.
INDEX_BITS = 20
_MOST = 1 << INDEX_BITS

_NAMES = [field.name for field in fields(Row)]


def subject(place: Place, name: str) -> str:
    """Return the subject of a session: any name makes one, spread over 256 groups."""
    digest = sha256(name.encode()).hexdigest()
    return f"{place.stream}.s.{digest[:2]}.{digest[:32]}"


def group(place: Place, number: int) -> str:
    """Return the subjects of one of the 256 groups of sessions."""
    return f"{place.stream}.s.{number:02x}.*"


def state(row: Row) -> str:
    """Return the header of a session."""
    return json.dumps(dict(zip(_NAMES, FIELDS(row), strict=True)), separators=(",", ":"))


def row(header: str) -> Row:
    """Return the session that `state` wrote; fields that a newer version added are left out."""
    found = json.loads(header)
    return Row(**{name: found[name] for name in _NAMES if name in found})


def divided(batches: Iterable[Batch], longest: int = LONGEST) -> Iterator[list[Batch]]:
    """Yield batches, and parts of batches, that fit into a message each, in order."""
    part: list[Batch] = []
    size = lines = 0
    for batch in batches:
        first = 0
        size += len(batch.peer) + len(batch.listener) + 64
        for at, line in enumerate(batch.lines):
            length = len(line) + 4
            if (part or at > first) and (size + length > longest or lines == _MOST - 1):
                if at > first:
                    part.append(batch._replace(lines=batch.lines[first:at]))
                yield part
                part, first = [], at
                size = lines = 0
            size += length
            lines += 1
        part.append(batch if not first else batch._replace(lines=batch.lines[first:]))
    if part:
        yield part


def chunks(items: Sequence[Item], ats: list[int]) -> list[list[tuple[int, Item]]]:
    """Return the items of a session, with their numbers, as they fit into a message each.

    Lines that do not fit are divided.
    """
    found: list[list[tuple[int, Item]]] = [[]]
    size = 0
    for at in ats:
        item = items[at]
        parts: list[tuple[Item, int]] = []
        if isinstance(item, Marked):
            position = item.mark.position
            for [part] in divided([item.batch]):
                length = sum(map(len, part.lines)) + 4 * len(part.lines)
                parts.append((Marked(part, item.mark._replace(position=position)), length))
                position += len(part.lines)
        else:
            parts.append((item, 0))
        for each, length in parts:
            if found[-1] and size + length > LONGEST:
                found.append([])
                size = 0
            found[-1].append((at, each))
            size += length + 64
    return found
