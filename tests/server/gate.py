"""An engine of a store whose commits a test lets through."""

import threading
from collections.abc import Sequence

from sockservice.store.engine import Batch, Item, Outcome
from sockservice.store.memory import Memory
from tests.conftest import PATIENCE


class Gate(Memory):
    """The memory engine, with a gate that commits wait at while it is shut."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[int] = []
        self.open_ = threading.Event()
        self.open_.set()
        self.reached = threading.Event()

    def commit(self, batches: Sequence[Item]) -> Sequence[Outcome] | None:
        self.reached.set()
        assert self.open_.wait(PATIENCE)
        outcomes = super().commit(batches)
        self.received += [batch.received for batch in batches if isinstance(batch, Batch)]
        return outcomes

    @property
    def lines(self) -> list[bytes]:
        return [line for _, _, line in self.kept]
