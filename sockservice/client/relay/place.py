"""The place of a relay in its store: the note that keeps it, and the rows that prove it."""

import re
from collections.abc import Sequence
from typing import NamedTuple, Self
from zlib import crc32

from sockservice.store.objects import Stored, objects

#: What lines travel as: as they are, or as JSON objects with all columns.
PLAIN, JSON = "plain", "json"

_NOTE = re.compile(r"relay/1:(plain|json):([0-9]{1,19}):([0-9a-f]{8}|-)")


class RelayNote(NamedTuple):
    """The id up to which the store was relayed at one position of the session.

    Behind it ids and positions go on in step, until the next note.
    """

    form: str
    id: int
    #: Checksum of the row with this id; "-" if there was none.
    witness: str

    def encode(self) -> str:
        return f"relay/1:{self.form}:{self.id}:{self.witness}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a note.

        :raises ValueError: It is none.
        """
        found = _NOTE.fullmatch(text)
        if found is None:
            raise ValueError("no note of a relay")
        return cls(found[1], int(found[2]), found[3])


def witness(row: Stored | None) -> str:
    """Return what tells this row from one that another store has by the same id."""
    if row is None:
        return "-"
    *columns, line = row
    text = "\0".join(map(str, columns)).encode("utf-8", "surrogateescape")
    return f"{crc32(line, crc32(text)):08x}"


def rendered(rows: Sequence[Stored], form: str) -> list[bytes]:
    """Return rows as the lines that they travel as."""
    if form == JSON:
        return [each.encode() for each in objects(rows)]
    return [row[-1] for row in rows]


def inStep(rows: Sequence[Stored], after: int) -> bool:
    """Return whether the ids of `rows` follow on `after` without a gap."""
    return bool(rows) and rows[0][0] == after + 1 and rows[-1][0] == after + len(rows)
