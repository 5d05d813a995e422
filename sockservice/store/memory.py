"""A storage engine in memory, for tests of protocols that store lines."""

import os
from collections.abc import Callable, Sequence

from sockservice.errors import StoreError
from sockservice.store.engine import SESSIONS, Item, Outcome
from sockservice.store.sessions import Ledger, Row


class Memory:
    """Keeps lines in the list `kept`.

    Set `problem` to make commits fail with it, and to None to make them work again. The lines
    are kept all the same if it is one after which nobody knows.
    """

    def __init__(self) -> None:
        self.kept: list[tuple[str, str, bytes]] = []  # peer, listener, line
        self.problem: StoreError | None = None
        self.opened = False
        #: The sessions, by their names.
        self.sessions: dict[str, Row] = {}
        self.keepSessions()

    def keepSessions(
        self, most: int = SESSIONS, age: float = 0, expired: Callable[[int], object] = int
    ) -> None:
        """Keep at most so many sessions; they do not age here."""
        identity = os.urandom(16).hex()
        self._ledger = Ledger(identity, self.sessions.get, self.sessions.__len__, most)

    def open(self) -> None:
        """Open."""
        self.opened = True

    def commit(self, batches: Sequence[Item]) -> Sequence[Outcome] | None:
        """Keep all lines of `batches`, but for those that are denied.

        :raises StoreError: As `problem` says.
        """
        problem = self.problem
        if problem is not None and problem.certain:
            raise problem
        decided = self._ledger.decide(batches)
        self.sessions.update(decided.rows)
        for batch in decided.batches:
            self.kept += [(batch.peer, batch.listener, line) for line in batch.lines]
        if problem is not None:
            raise problem
        return decided.outcomes

    def tidy(self) -> bool:
        """Nothing is ever removed."""
        return False

    def close(self) -> None:
        """Close."""
        self.opened = False
