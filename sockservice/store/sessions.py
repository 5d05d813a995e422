"""Decide on the items of sessions in one commit: who may go on, and from where."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import NamedTuple

from sockservice.store.engine import SESSIONS, Batch, Claim, Denied, Item, Marked, Outcome
from sockservice.wire.plurals import counted
from sockservice.wire.session import Opened, folded


@dataclass(slots=True)
class Row:
    """What is kept of a session. Times are in microseconds since 1970."""

    name: str
    owner: str
    limit: int
    created: int
    used: int = 0
    peer: str = ""  # that opened it last
    epoch: int = 0
    position: int = 0
    crc: int = 0
    note: str | None = None
    noted: int = 0
    notedCrc: int = 0

    def opened(self, new: bool, store: str) -> Opened:
        """Return what its sender is told."""
        return Opened(
            new,
            self.position,
            self.crc,
            self.limit,
            self.epoch,
            store,
            self.note,
            self.noted,
            self.notedCrc,
        )


#: Gives the fields of a row in their order: `replace` of dataclasses takes ten times as long.
FIELDS = attrgetter(*(field.name for field in fields(Row)))


class Decided(NamedTuple):
    """What is to be done with the items of a commit; it holds only if all of that is done."""

    batches: list[Batch]
    outcomes: list[Outcome]
    #: The sessions that change, by their names.
    rows: dict[str, Row]
    #: How many of them are new.
    made: int
    #: The names of those that were claimed, and have more that is new than their lines.
    claimed: set[str]


class Ledger:
    """Decides on items by the rows that `load` finds; `count` says how many there are.

    These rows are changed: forget them when what was decided is not done.

    `store` is the identity of the store, `most` how many sessions it may have, 0 for any
    number. A new session's epochs begin behind `floor`, the highest of those removed: a
    connection that was open when its session was removed is none of a later one.
    """

    def __init__(
        self,
        store: str,
        load: Callable[[str], Row | None],
        count: Callable[[], int],
        most: int = SESSIONS,
        floor: Callable[[], int] = int,
    ) -> None:
        self._store = store
        self._load = load
        self._count = count
        self._most = most
        self._floor = floor

    def decide(self, items: Sequence[Item]) -> Decided:
        """Return what to store, what to tell, and the rows that change, as they are then."""
        batches: list[Batch] = []
        outcomes: list[Outcome] = []
        rows: dict[str, Row] = {}
        claimed: set[str] = set()
        made = 0
        for item in items:
            if isinstance(item, Batch):
                batches.append(item)
                outcomes.append(None)
                continue
            outcome: Outcome
            if isinstance(item, Marked):
                name = item.mark.name
                row = rows.get(name) or self._load(name)
                outcome = self._appended(row, item, batches)
                if row is not None and outcome is None:
                    rows[name] = row
                outcomes.append(outcome)
                continue
            name = item.name
            row = rows.get(name) or self._load(name)
            new = row is None
            if row is None and 0 < self._most <= self._count() + made:
                outcome = Denied(
                    f"busy: {counted(self._most, 'session')}, the limit", permanent=False
                )
            else:
                if row is None:
                    row = Row(name, item.owner, item.limit, item.received, epoch=self._floor())
                outcome = self._claimed(row, item, new=new)
                if isinstance(outcome, Opened):
                    rows[name] = row
                    claimed.add(name)
                    made += new
            outcomes.append(outcome)
        return Decided(batches, outcomes, rows, made, claimed)

    def _claimed(self, row: Row, claim: Claim, *, new: bool) -> Opened | Denied:
        if row.owner not in ("", claim.owner):
            return Denied("it belongs to another", permanent=True)
        if claim.at is not None and claim.at != row.position:
            return Denied(f"its position is {row.position}, not {claim.at}", permanent=True)
        if row.limit > claim.limit:
            why = f"lines up to {counted(row.limit, 'byte')}, the limit is {claim.limit}"
            return Denied(why, permanent=True)
        row.epoch += 1
        row.peer = claim.peer
        row.used = claim.received
        if claim.note is not None:
            row.note, row.noted, row.notedCrc = claim.note, row.position, row.crc
        return row.opened(new, self._store)

    def _appended(self, row: Row | None, marked: Marked, batches: list[Batch]) -> Denied | None:
        batch, mark = marked
        if row is None:
            return Denied("it is not kept any more", permanent=True)
        if row.epoch != mark.epoch:
            return Denied(f"taken over by {row.peer}", permanent=True)
        if row.position != mark.position:
            why = f"not stored: line {row.position + 1} of the session was not"
            return Denied(why, permanent=False)
        row.position += len(batch.lines)
        row.crc = folded(batch.lines, row.crc)
        row.used = batch.received
        # `_replace` takes four times as long.
        peer = f"{batch.peer} session {row.name}"
        batches.append(Batch(batch.received, peer, batch.listener, batch.lines))
        return None
