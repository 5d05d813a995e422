"""A storage engine in memory, for tests of protocols that store lines."""

from sockservice.errors import StoreError
from sockservice.store.engine import Batch


class Memory:
    """Keeps lines in the list `kept`.

    Set `problem` to make commits fail with it, and to None to make them work again. The lines
    are kept all the same if it is one after which nobody knows.
    """

    def __init__(self) -> None:
        self.kept: list[tuple[str, str, bytes]] = []  # peer, listener, line
        self.problem: StoreError | None = None
        self.opened = False

    def open(self) -> None:
        """Open."""
        self.opened = True

    def commit(self, batches: list[Batch]) -> None:
        """Keep all lines of `batches`.

        :raises StoreError: As `problem` says.
        """
        problem = self.problem
        if problem is None or not problem.certain:
            for batch in batches:
                self.kept += [(batch.peer, batch.listener, line) for line in batch.lines]
        if problem is not None:
            raise problem

    def tidy(self) -> bool:
        """Nothing is ever removed."""
        return False

    def close(self) -> None:
        """Close."""
        self.opened = False
