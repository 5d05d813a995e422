"""What a protocol needs of a store."""

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from sockservice.errors import StoreError
from sockservice.store.engine import Batch, Item, Outcome

#: Called with the problem, or with what became of each item.
Heard = Callable[[StoreError | None, Sequence[Outcome]], object]


class SessionHolder(Protocol):
    """A connection that holds a session."""

    def takenOver(self, peer: str) -> None:
        """Another one, of `peer`, has opened it."""


class Storing(Protocol):
    """Where lines become durable: a service's :class:`~sockservice.store.groupcommit.Store`."""

    #: The connections of this process that hold a session, by its name.
    holders: dict[str, SessionHolder]

    @property
    def full(self) -> bool:
        """Whether so much is waiting to be durable that no more should be read."""

    def room(self) -> Deferred[None]:
        """Return a Deferred that fires as soon as the store is not full."""

    def append(self, batch: Batch) -> Deferred[None]:
        """Store the lines of `batch`; fires when all are durable, fails with StoreError."""

    def put(self, batch: Batch, settled: Callable[[StoreError | None], None]) -> None:
        """Store the lines of `batch`, and call `settled`; it may be called at once."""

    def putItems(self, items: Sequence[Item], heard: Heard) -> None:
        """Carry out `items`, all that are not denied or none, and call `heard`, perhaps at once."""
