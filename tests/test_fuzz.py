"""What random input found, replayed; and a little more of it each time, the same each time.

`python -m tests.fuzz` goes on from there.
"""

from random import Random

import pytest

from tests.fuzz.inputs import kept, mutated
from tests.fuzz.targets import TARGETS, Wrong, tried

#: Inputs made of the kept ones.
SOME = {"framing": 60, "telnet": 30, "proxy": 40, "server": 25, "syslog": 60, "relp": 60}


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_nothing_is_wrong_with_what_is_kept(target: str) -> None:
    seeds = kept(target)
    assert seeds
    for data in seeds:
        tried(target, data)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_nothing_is_wrong_with_some_random_input(target: str) -> None:
    seeds, chance = kept(target), Random(555)
    for _ in range(SOME[target]):
        tried(target, mutated(seeds, chance))


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_what_fails_is_told_with_its_target(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(data: bytes, chance: Random) -> None:
        raise ZeroDivisionError("it failed")

    monkeypatch.setitem(TARGETS, target, fails)
    with pytest.raises(Wrong, match="ZeroDivisionError: it failed"):
        tried(target, b"")
