"""Choose what goes into the next commit: everything, or else a fair share of each peer's."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence

from sockservice.errors import StoreError
from sockservice.store.engine import Batch, Claim, Denied, Item, Marked, Outcome

#: Lines in one commit, about, at least and at most. Few, so that nobody waits long for the
#: lines of others; as many as can be written in the time that a sync takes, so that a slow
#: disk takes as much in a second as a quick one; at most what a second writes.
COMMIT_LIMIT, COMMIT_MOST = 8192, 262_144
#: Seconds that a line takes to be written, about.
LINE_TIME = 2e-6
#: A sync takes as long as the quickest of so many takes; a single one may be held up.
LATEST = 4

#: Called when lines are durable, or with the reason why they are not.
Settled = Callable[[StoreError | None], None]


class Arrival:
    """A turn of the reactor that brought something to store: its time, and how much is left."""

    __slots__ = ("left", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        #: Puts of it whose outcome has not been told.
        self.left = 0


class Put:
    """Items that are stored together, and what is called when they are."""

    __slots__ = ("items", "lines", "names", "outcomes", "settled", "size", "turn")

    #: The turn of the reactor in which it came.
    turn: "Arrival"

    def __init__(self, items: Sequence[Item], settled: Settled) -> None:
        self.items = items
        self.settled = settled
        #: What became of each item, where that may differ.
        self.outcomes: Sequence[Outcome] = ()
        #: The sessions that it concerns, whose order matters.
        self.names: frozenset[str] = frozenset()
        self.lines = self.size = 0
        first = items[0] if len(items) == 1 else None
        if type(first) is Batch:
            # The usual one, in a third of the time.
            lines = first.lines
            self.lines = count = len(lines)
            self.size = len(lines[0]) if count == 1 else sum(map(len, lines))
            return
        for item in items:
            if isinstance(item, Marked):
                self.names |= {item.mark.name}
                item = item.batch
            elif isinstance(item, Claim):
                self.names |= {item.name}
                continue
            self.lines += len(item.lines)
            self.size += sum(map(len, item.lines))

    @property
    def peer(self) -> str:
        """Whose lines they are; of several peers', the first."""
        first = self.items[0] if self.items else None
        if isinstance(first, Marked):
            first = first.batch
        return "" if first is None else first.peer

    @property
    def stored(self) -> int:
        """Lines that were stored, if nothing has failed."""
        if not self.outcomes:
            return self.lines
        return self.lines - sum(
            len(item.batch.lines)
            for item, outcome in zip(self.items, self.outcomes, strict=False)
            if isinstance(item, Marked) and isinstance(outcome, Denied)
        )


class Turns:
    """What waits to be committed, in the order it came."""

    def __init__(self) -> None:
        self._waiting: deque[Put] = deque()
        self._lines = 0
        self._syncs = deque([0.0] * LATEST, LATEST)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, puts: Iterable[Put]) -> None:
        """Let these wait."""
        for put in puts:
            self._waiting.append(put)
            self._lines += put.lines

    def all(self) -> list[Put]:
        """Take out all that waits."""
        puts = list(self._waiting)
        self._waiting.clear()
        self._lines = 0
        return puts

    def took(self, lines: int, seconds: float) -> None:
        """Note how long a commit of so many lines took."""
        self._syncs.append(seconds - lines * LINE_TIME)

    @property
    def limit(self) -> int:
        """Lines that one commit holds, about."""
        return min(max(COMMIT_LIMIT, int(min(self._syncs) / LINE_TIME)), COMMIT_MOST)

    def take(self) -> list[Put]:
        """Take out what goes into the next commit, in the order it came.

        If that is not all, peers take turns: who has little in it comes before who has much.
        The first in the line always goes, so nobody waits for ever. No put is divided, and
        none comes before an earlier one of the same session, whoever that is from.
        """
        limit = self.limit
        if self._lines <= limit:
            return self.all()
        waiting = self.all()
        taken: defaultdict[str, int] = defaultdict(int)
        order = []
        for number, put in enumerate(waiting):
            taken[put.peer] += put.lines
            order.append((taken[put.peer] if number else 0, number))
        order.sort()
        lines = 0
        chosen = set()
        for _, number in order:
            if lines >= limit:
                break
            chosen.add(number)
            lines += waiting[number].lines
        if any(put.names for put in waiting):
            left: set[str] = set()
            for number, put in enumerate(waiting):
                if not left.isdisjoint(put.names):
                    chosen.discard(number)
                if number not in chosen:
                    left |= put.names
        self.add(put for number, put in enumerate(waiting) if number not in chosen)
        return [put for number, put in enumerate(waiting) if number in chosen]
