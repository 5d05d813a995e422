"""A store for what serves lines, with a gate before its commits."""

from collections.abc import Iterator

import pytest

from sockservice.store.groupcommit import Store
from tests.conftest import HandReactor
from tests.server.gate import Gate


@pytest.fixture
def engine() -> Gate:
    return Gate()


@pytest.fixture
def store(reactor: HandReactor, engine: Gate) -> Iterator[Store]:
    made = Store(reactor, engine)
    made.start()
    yield made
    engine.open_.set()
    reactor.result(made.stop())
