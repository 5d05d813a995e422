"""Lines on their way from a worker to the process that stores them: frames, pipes, answers."""

import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from sockservice.errors import StoreError
from sockservice.store.engine import Batch, Claim, Denied, Item, Mark, Marked, Outcome
from sockservice.store.groupcommit import Store
from sockservice.store.memory import Memory
from sockservice.store.pipe import (
    Frames,
    Keeping,
    Remote,
    framed,
    heard,
    packed,
    told,
    unpacked,
)
from sockservice.store.turns import COMMIT_LIMIT
from sockservice.wire.session import Opened
from tests.conftest import Reactor, failure, turn

FULL = StoreError("disk full", retry=True)
GONE = StoreError("the file is gone", retry=False)

batches = st.builds(
    Batch,
    st.integers(0, 2**62),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.binary()),
)


numbers = st.integers(0, 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]))
marked = st.builds(Marked, batches, st.builds(Mark, texts, numbers, numbers))
claims = st.builds(
    Claim, texts, texts, numbers, st.none() | numbers, st.none() | texts, numbers, texts
)
opened = st.builds(
    Opened,
    st.booleans(),
    *[numbers] * 4,
    texts,
    st.none() | texts,
    numbers,
    numbers,
)
outcomes = st.none() | st.builds(Denied, texts, st.booleans()) | opened


@given(st.lists(batches | marked | claims))
def test_items_are_read_as_they_were_written(given: list[Item]) -> None:
    assert unpacked(packed(given)) == given


@given(st.lists(outcomes))
def test_outcomes_are_read_as_they_were_written(given: list[Outcome]) -> None:
    found = heard(told(given), len(given))
    assert (found or [None] * len(given)) == given
    assert [*map(type, found or [])] in ([], [*map(type, given)])


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
def test_frames_are_the_same_however_they_arrive(piece: int) -> None:
    payloads = [b"", b"a", b"\0" * 5, bytes(range(256)) * 3]
    stream = b"".join(map(framed, payloads))
    frames = Frames()
    cut = [stream[at : at + piece] for at in range(0, len(stream), piece)]
    assert [frame for data in cut for frame in frames.received(data)] == payloads


def test_a_frame_that_is_not_whole_is_none() -> None:
    assert list(Frames().received(framed(b"abc")[:-1])) == []


@implementer(IReadDescriptor)
class Reader:
    """Gives what comes from a pipe to `received`, in pieces of random lengths."""

    def __init__(self, descriptor: int, received: Callable[[bytes], None]) -> None:
        self._descriptor = descriptor
        self._received = received
        self._chance = Random(1)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "pipe"

    def doRead(self) -> None:
        self._received(os.read(self._descriptor, self._chance.randint(1, 20_000)))

    def connectionLost(self, reason: object) -> None:
        """The reactor is stopping."""


class Worker:
    """A worker's store, and the one behind it that it does not see."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.engine = Memory()
        self.parent = Store(reactor, self.engine)
        self.parent.start()
        there, back = self.pipes = os.pipe(), os.pipe()
        keeping = Keeping(self.parent, lambda answer: self.answered(back[1], answer))
        self._reader = Reader(there[0], keeping.received)
        reactor.addReader(self._reader)
        self.store = Store(reactor, Remote(there[1], back[0]))
        self.store.start()

    def answered(self, descriptor: int, answer: bytes) -> None:
        os.write(descriptor, answer)

    def put(self, *lines: bytes) -> Any:
        return self.store.append(Batch(1, "192.0.2.1:7", "tcp:192.0.2.9:555", list(lines)))

    @property
    def kept(self) -> list[bytes]:
        return [line for _, _, line in self.engine.kept]

    async def stop(self) -> None:
        await self.store.stop()
        self.reactor.removeReader(self._reader)
        await self.parent.stop()
        for pair in self.pipes:
            for each in pair:
                os.close(each)


@pytest.fixture
def worker(real: Reactor, ending: AsyncExitStack) -> Worker:
    made = Worker(real)
    ending.push_async_callback(made.stop)
    return made


async def test_lines_are_stored_elsewhere_in_order_before_they_are_said_to_be(
    worker: Worker,
) -> None:
    for number in range(50):
        lines = [b"%d" % number, b"", b"\0\n" * number]
        await worker.put(*lines)
        assert worker.kept[-3:] == lines
    assert worker.engine.kept[0] == ("192.0.2.1:7", "tcp:192.0.2.9:555", b"0")
    assert len(worker.kept) == 150
    assert worker.store.stored == worker.parent.stored == 150


async def stored(worker: Worker, line: bytes) -> bool:
    try:
        await worker.put(line)
    except StoreError:
        return False
    return True


async def test_a_refusal_comes_back_with_its_reason_and_passes(worker: Worker) -> None:
    worker.engine.problem = FULL
    problem = await failure(worker.put(b"a"))
    assert isinstance(problem, StoreError)
    assert (str(problem), problem.retry) == ("not stored: disk full", True)
    worker.engine.problem = None
    while not await stored(worker, b"b"):
        await turn()
    assert worker.kept == [b"b"]


async def test_a_store_that_has_failed_for_good_has_failed_for_workers_too(worker: Worker) -> None:
    worker.engine.problem = GONE
    await failure(worker.put(b"a"))
    assert (await worker.store.failed).reason == "the file is gone"
    assert (await worker.parent.failed).reason == "the file is gone"


@pytest.mark.parametrize("retry", [True, False])
async def test_an_unknown_outcome_is_unknown_to_workers_too(worker: Worker, retry: bool) -> None:
    worker.engine.problem = StoreError("no answer", retry=retry, certain=False)
    problem = await failure(worker.put(b"a"))
    assert isinstance(problem, StoreError)
    assert (str(problem), problem.retry) == ("unknown: no answer", retry)
    assert worker.kept == [b"a"]


async def test_what_a_worker_commits_is_stored_whole_or_not_at_all(worker: Worker) -> None:
    """Else a part of it would be refused that is stored."""
    commits: list[int] = []
    commit = worker.engine.commit

    def counted(batches: Sequence[Item]) -> Sequence[Outcome] | None:
        commits.append(len(batches))
        return commit(batches)

    worker.engine.commit = counted  # type: ignore[method-assign]
    half = [b"x"] * (COMMIT_LIMIT - 1)
    both = worker.put(*half), worker.put(*half)
    for each in both:
        await each
    assert commits == [2]
    assert len(worker.kept) == 2 * len(half)


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("what", ["packed", "unpacked"])
async def test_a_frame_that_finds_no_memory_is_refused_and_the_next_is_not(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(f"sockservice.store.pipe.{what}", raising(MemoryError()))
        problem = await failure(worker.put(b"a"))
    assert isinstance(problem, StoreError)
    assert (str(problem), problem.retry) == ("not stored: out of memory", True)
    while not await stored(worker, b"b"):
        await turn()
    assert worker.kept == [b"b"]


def test_an_answer_that_finds_no_memory_is_not_taken_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (kept, there), (back, answered) = os.pipe(), os.pipe()
    remote = Remote(there, back)
    monkeypatch.setattr(Remote, "_answer", raising(MemoryError()))
    with pytest.raises(StoreError, match=r"^unknown: ") as told:
        remote.commit([Batch(1, "", "", [b"a"])])
    assert not told.value.retry
    for each in (kept, there, back, answered):
        os.close(each)


def test_without_the_process_that_stores_lines_are_refused() -> None:
    (kept, there), (back, answered) = os.pipe(), os.pipe()
    os.close(answered)
    remote = Remote(there, back)
    # First the answer does not come, then nobody reads.
    for outcome in ("unknown", "not stored"):
        with pytest.raises(StoreError, match=f"^{outcome}: the process that stores has ") as told:
            remote.commit([Batch(1, "", "", [b"a"])])
        assert not told.value.retry
        if kept >= 0:
            os.close(kept)
            kept = -1
    os.close(there)
    os.close(back)
