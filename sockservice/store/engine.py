"""What a storage engine is given, and what it has to offer."""

from typing import NamedTuple, Protocol


class Batch(NamedTuple):
    """Lines of one peer that arrived in one read."""

    #: When, by the server's clock: microseconds since 1970-01-01T00:00:00Z.
    received: int
    peer: str
    listener: str
    lines: list[bytes]


class Retention(NamedTuple):
    """How long lines are kept; both limits hold if both are given."""

    #: Seconds since a line was received.
    age: float | None = None
    #: Bytes that the stored lines take up in their file.
    size: int | None = None


#: What is kept for good.
EVERYTHING = Retention()


class Backend(Protocol):
    """A storage engine: blocking, and called from one thread only."""

    def open(self) -> None:
        """Open what is there or make it; recover it.

        :raises ~sockservice.errors.CannotStart: It can't be opened, or can't promise durability.
        """

    def commit(self, batches: list[Batch]) -> None:
        """Store all lines of `batches`, in order. They are durable when it returns.

        :raises StoreError: None of them is stored.
        """

    def tidy(self) -> bool:
        """Do one small step of upkeep; called between commits. False: nothing was left to do.

        :raises StoreError: The engine failed.
        """

    def close(self) -> None:
        """Leave everything in good order; called once, also after a failure."""
