"""The files of a spool: what is in them after whatever end."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from sockservice.client.spool.slots import SLOT, Entry, Slots
from sockservice.client.spool.spool import (
    LEAST,
    MOST,
    SEGMENT,
    NoRoom,
    Spool,
    SpoolError,
)
from sockservice.client.spool.system import sourceOf
from tests.soak.disks import inMemory


class Pipe:
    """A pipe, and what it is called."""

    def __init__(self, opened: ExitStack) -> None:
        self.end, self._begin = os.pipe()
        opened.callback(os.close, self.end)
        opened.callback(os.close, self._begin)
        self.name = sourceOf(self.end)

    def write(self, data: bytes) -> None:
        os.write(self._begin, data)


@pytest.fixture
def pipe(opened: ExitStack) -> Pipe:
    return Pipe(opened)


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Callable[..., Spool]]:
    made: list[Spool] = []

    def make(source: str = "-", session: str | None = None) -> Spool:
        made.append(Spool(str(tmp_path / "spool"), LEAST, session, source))
        return made[-1]

    yield make
    for each in made:
        with suppress(OSError):
            each.close()


def whole(spool: Spool) -> bytes:
    data, offset = b"", spool.begin
    while part := spool.read(offset, 1000):
        data, offset = data + part, offset + len(part)
    return data


def killed(spool: Spool) -> None:
    """Leave a spool as kill -9 does: nothing is written any more."""
    os.close(spool._folder)


def elsewhere(spool: Spool) -> None:
    """Have it be of another run of the system."""
    slots = Slots(os.path.join(spool.path, "place"))
    assert slots.entry is not None
    slots.write(slots.entry._replace(boot="another"))
    slots.close()


def test_what_a_pipe_holds_is_taken_and_read(at: Callable[..., Spool], pipe: Pipe) -> None:
    spool = at()
    pipe.write(b"one\ntwo\n")
    assert spool.take(pipe.end) == 8
    assert whole(spool) == b"one\ntwo\n"
    with pytest.raises(BlockingIOError):
        spool.take(pipe.end)


def test_a_file_is_taken_up_to_its_end(at: Callable[..., Spool], tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"a\nb")
    spool = at()
    with open(tmp_path / "lines", "rb") as file:
        assert [spool.take(file.fileno()), spool.take(file.fileno())] == [3, 0]
    spool.finish()
    spool.finish()
    assert whole(spool) == b"a\nb\n"


def test_a_line_goes_on_if_the_pipe_is_the_same(at: Callable[..., Spool], pipe: Pipe) -> None:
    spool = at(pipe.name)
    pipe.write(b"one\ntw")
    spool.take(pipe.end)
    killed(spool)
    spool = at(pipe.name)
    pipe.write(b"o\n")
    spool.take(pipe.end)
    assert whole(spool) == b"one\ntwo\n"
    assert spool.dropped == 0


def test_a_line_that_had_not_ended_is_dropped_if_the_pipe_is_another(
    at: Callable[..., Spool], pipe: Pipe
) -> None:
    spool = at(pipe.name)
    pipe.write(b"one\ntw")
    spool.take(pipe.end)
    killed(spool)
    spool = at("another")
    assert (whole(spool), spool.dropped) == (b"one\n", 2)


def test_what_was_not_counted_when_the_power_failed_is_dropped(
    at: Callable[..., Spool], pipe: Pipe
) -> None:
    """There may be anything in it: even what seem to be lines."""
    spool = at(pipe.name)
    pipe.write(b"one\ntw")
    spool.take(pipe.end)
    killed(spool)
    elsewhere(spool)
    with open(f"{spool.path}/{0:020}.lines", "ab") as file:
        file.write(b"\0\0\0\nx\n")
    spool = at(pipe.name)
    assert (whole(spool), spool.dropped) == (b"one\n", 8)
    pipe.write(b"two\n")
    spool.take(pipe.end)
    assert whole(spool) == b"one\ntwo\n"


def test_what_was_taken_and_not_counted_stays_if_the_system_ran_on(
    at: Callable[..., Spool], pipe: Pipe
) -> None:
    spool = at(pipe.name)
    pipe.write(b"one\n")
    spool.take(pipe.end)
    killed(spool)
    with open(f"{spool.path}/{0:020}.lines", "ab") as file:
        file.write(b"two\n")
    assert whole(at(pipe.name)) == b"one\ntwo\n"


def test_the_place_is_kept_and_a_settled_spool_has_no_files(
    at: Callable[..., Spool], pipe: Pipe
) -> None:
    spool = at(session="demo")
    pipe.write(b"one\ntwo\n")
    spool.take(pipe.end)
    spool.settle(4, 1, 77)
    spool.close()
    spool = at()
    assert (spool.session, spool.position, spool.crc, whole(spool)) == ("demo", 1, 77, b"two\n")
    spool.settle(8, 2, 78)
    spool.close()
    assert os.listdir(spool.path) == ["place"]
    spool = at()
    assert (spool.begin, spool.position, whole(spool)) == (8, 2, b"")


def test_files_are_bounded_and_removed_when_they_are_settled(
    at: Callable[..., Spool], tmp_path: Path
) -> None:
    (tmp_path / "lines").write_bytes(b"%099d\n" % 1 * (LEAST // 100 + 1000))
    spool = at()
    with open(tmp_path / "lines", "rb") as file:
        while not spool.full:
            assert 0 < spool.take(file.fileno()) <= MOST
    assert spool.size == LEAST
    names = sorted(os.listdir(spool.path))
    assert [os.path.getsize(f"{spool.path}/{each}") for each in names[:2]] == [SEGMENT, SEGMENT]
    assert not spool.settles(SEGMENT - 1)
    assert spool.settles(SEGMENT)
    # The line that both files have a part of.
    place = SEGMENT // 100 * 100
    spool.settle(place, place // 100, 0)
    assert spool.size == LEAST
    spool.settle(place + 100, place // 100 + 1, 0)
    assert (spool.size, spool.full) == (SEGMENT, False)
    killed(spool)
    spool = at()
    assert (spool.begin, spool.read(spool.begin, 200)) == (place + 100, b"%099d\n" % 1 * 2)


def test_one_process_has_it_and_one_session(at: Callable[..., Spool]) -> None:
    spool = at(session="demo")
    with pytest.raises(SpoolError, match="another process is using this spool"):
        at()
    spool.close()
    with pytest.raises(SpoolError, match="this spool is of session demo"):
        at(session="other")


def test_lines_that_are_missing_are_noticed(at: Callable[..., Spool], pipe: Pipe) -> None:
    spool = at()
    pipe.write(b"one\ntwo\n")
    spool.take(pipe.end)
    spool.close()
    os.truncate(f"{spool.path}/{0:020}.lines", 4)
    with pytest.raises(SpoolError, match="lines are missing that were in this spool"):
        at()
    os.unlink(f"{spool.path}/place")
    with pytest.raises(SpoolError, match="the file place is not whole"):
        at()


def test_a_full_disk_takes_nothing_from_a_pipe(tmp_path: Path, pipe: Pipe) -> None:
    with inMemory(tmp_path / "disk", 64) as problem:
        if problem:
            pytest.skip(problem)
        spool = Spool(str(tmp_path / "disk" / "spool"), LEAST)
        written, taken = b"", 0
        with pytest.raises(NoRoom):
            while True:
                line = b"%099d\n" % len(written)
                pipe.write(line * 40)
                written += line * 40
                taken += spool.take(pipe.end)
        assert whole(spool) == written[:taken]
        # What is not in the one is in the other.
        assert os.read(pipe.end, 65536) == written[taken:]
        # What is stored elsewhere makes room, though the file has a part of a line behind it.
        assert spool.settles(taken // 100 * 100)
        spool.settle(taken // 100 * 100, 1, 2)
        pipe.write(written[taken:])
        assert spool.take(pipe.end) == len(written) - taken
        assert whole(spool) == written[taken // 100 * 100 :]
        spool.close()
        spool = Spool(str(tmp_path / "disk" / "spool"), LEAST, None, "-")
        assert spool.position == 1
        spool.close()


ENTRY = Entry("demo", 1, 2, 3, 4, "boot", "-")


@pytest.mark.parametrize("torn", range(2))
def test_of_two_slots_one_is_whole(tmp_path: Path, torn: int) -> None:
    slots = Slots(str(tmp_path / "place"))
    assert slots.entry is None
    slots.write(ENTRY)
    slots.write(ENTRY._replace(position=9))
    slots.close()
    with open(tmp_path / "place", "r+b") as file:
        file.seek(torn * SLOT + 10)
        file.write(b"?")
    slots = Slots(str(tmp_path / "place"))
    assert slots.entry == (ENTRY._replace(position=9) if torn else ENTRY)
    slots.close()
