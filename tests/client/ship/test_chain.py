"""What a log file was rotated to, in its order, whatever the names are."""

import os
from pathlib import Path

import pytest

from sockservice.client.ship.chain import chain, older


@pytest.mark.parametrize(
    "names",
    [
        ["app.log.12", "app.log.2", "app.log.1", "app.log"],
        ["app.log-20251231", "app.log-20260101", "app.log"],
        ["app.log.2026-11-26_10.gz", "app.log.2026-11-26_11", "app.log"],
        ["app-20260101.log", "app-20260102.log", "app.log"],
        # Words have no order: the one that was written to last is the newest.
        ["app.log.previous", "app.log.1", "app.log.old", "app.log"],
        ["app.log.2", "app.log.1"],
        [],
    ],
)
def test_the_oldest_comes_first(tmp_path: Path, names: list[str]) -> None:
    for age, name in enumerate(names):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    # What is no log, or another's, is not among them.
    for name in ("app.log.swp", "app.log.1.tmp", "app.log~", "other.log", "other.log.1"):
        (tmp_path / name).touch()
    assert [Path(path).name for path in chain(str(tmp_path / "app.log"))] == names


def test_a_file_that_is_being_compressed_counts_once(tmp_path: Path) -> None:
    for name in ("app.log", "app.log.1", "app.log.1.gz", "app.log.2.gz"):
        (tmp_path / name).touch()
    found = [Path(path).name for path in chain(str(tmp_path / "app.log"))]
    assert found == ["app.log.2.gz", "app.log.1", "app.log"]


def test_a_folder_that_is_not_there_holds_none(tmp_path: Path) -> None:
    assert chain(str(tmp_path / "nowhere" / "app.log")) == []


def test_predecessors_are_told_by_their_names() -> None:
    assert older("app.log", "app.log.1")
    assert not older("app.log", "app.log")
    assert not older("app.log", "app.log.pid")
