"""Whether peers should come, and why not."""

import json
from collections.abc import Callable
from pathlib import Path

from sockservice.errors import StoreError
from sockservice.status.health import LATE
from tests.status.conftest import Served


def why(served: Served, which: str = "ready") -> tuple[int, list[str]]:
    found = served.get(f"/health/{which}")
    return found.status, json.loads(found.body)["why"]


def test_all_is_well(served: Served) -> None:
    assert why(served) == why(served, "live") == (200, [])


def test_a_late_reactor_is_told_until_it_was_in_time_for_a_while(served: Served) -> None:
    served.reactor.advance(LATE + 2)
    late = [f"the reactor was late by {LATE + 1:.1f} s"]
    assert why(served) == why(served, "live") == (503, late)
    for _ in range(9):
        served.reactor.advance(1)
    assert why(served) == (503, late)
    served.reactor.advance(1)
    assert why(served) == (200, [])


def test_a_store_that_refuses_is_told(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve("--store", f"sqlite:{tmp_path / 'l.db'}")
    store = served.service._store
    store._note(StoreError("disk full", retry=True))
    assert why(served) == (503, ["the store refuses lines: disk full"])
    assert why(served, "live") == (200, [])
    assert served.ask(b"a\n") == b"error not stored: disk full\n"
    assert served.state()["store"]["failing"] == "disk full"
    served.reactor.advance(2)
    assert served.ask(b"a\n") == b"ok\n"
    assert why(served) == (200, [])
    assert served.state()["listeners"][0]["reasons"] == {"refused": {"store": 1}}


def test_lacking_descriptors_are_told(served: Served) -> None:
    [stream, _] = served.service.listeners()
    stream._port._lacking = True
    served.reactor.advance(1)
    assert why(served) == (503, ["no file descriptors left"])
