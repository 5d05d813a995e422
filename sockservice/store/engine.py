"""The interface of storage engines."""

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


#: No line is ever removed.
EVERYTHING = Retention()


class Backend(Protocol):
    """A storage engine: blocking, and called from one thread only."""

    def open(self) -> None:
        """Open what is there or make it; recover it.

        :raises ~sockservice.errors.CannotStart: It can't be opened, or can't promise durability.
        """

    def commit(self, batches: list[Batch]) -> None:
        """Store all lines of `batches`, in order. They are durable when it returns.

        :raises StoreError: None of them is stored; or, if it is not `certain`, nobody knows.
            After any other exception nobody knows either.
        """

    def tidy(self) -> bool:
        """Do one small step of maintenance, between commits; return whether there was any to do.

        :raises StoreError: The engine failed.
        """

    def close(self) -> None:
        """Close the store in good order; called once, after a failure too."""
