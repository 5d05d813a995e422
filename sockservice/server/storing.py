"""What a protocol needs of a store."""

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from sockservice.errors import StoreError
from sockservice.store.engine import Batch


class Storing(Protocol):
    """Where lines become durable: a service's :class:`~sockservice.store.groupcommit.Store`."""

    @property
    def full(self) -> bool:
        """Whether so much is waiting to be durable that no more should be read."""

    def room(self) -> Deferred[None]:
        """Return a Deferred that fires as soon as the store is not full."""

    def append(self, batch: Batch) -> Deferred[None]:
        """Store the lines of `batch`; fires when all are durable, fails with StoreError."""

    def put(self, batch: Batch, settled: Callable[[StoreError | None], None]) -> None:
        """Store the lines of `batch`, and call `settled`; it may be called at once."""
