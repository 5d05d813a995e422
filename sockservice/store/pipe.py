"""The pipes between a worker and the process that stores its lines.

Two pipes carry frames: 4 bytes that say how many follow, and these. A frame to the store
holds the items of one commit, one after the other. A batch of lines is B; when it was received
(8 bytes), the lengths of the peer's and the listener's name, the number of lines (4 bytes each);
the two names; the length of each line (4 bytes each); the lines. Lines of a session are M; the
epoch and the position (8 bytes each), the length of the session's name (4 bytes), that name; then
a batch. A claim is C; the length of what follows (4 bytes); its fields as a list in JSON. The
frame that answers it is S when all that is not denied is durable, behind it, in JSON, a list of
[number of the item, kind, fields] where there is more to say: D denied, O opened; otherwise N when
nothing is stored or U when nobody knows, then R when it may be tried again or F when nothing will
ever be stored, and the reason. All numbers are in network byte order. The next commit is sent when
the last one is answered.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from struct import Struct, unpack_from
from struct import pack as packNumbers

from sockservice.errors import StoreError
from sockservice.store.engine import Batch, Claim, Denied, Item, Mark, Marked, Outcome
from sockservice.store.groupcommit import Store
from sockservice.wire.session import Opened

_LENGTH = Struct("!I")
_HEAD = Struct("!qIII")
_MARK = Struct("!qqI")
_ENDED = "the process that stores has ended"


def framed(payload: bytes) -> bytes:
    """Return `payload` as a frame, with its length in front."""
    return _LENGTH.pack(len(payload)) + payload


class Frames:
    """Splits a stream into frames, however it arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def received(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that `data` completes."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            frame = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield frame


def packed(items: Sequence[Item]) -> bytes:
    """Return items as the payload of a frame."""
    parts = []
    for item in items:
        if isinstance(item, Claim):
            claim = json.dumps(item).encode()
            parts += [b"C", _LENGTH.pack(len(claim)), claim]
            continue
        if isinstance(item, Marked):
            item, mark = item
            name = mark.name.encode()
            parts += [b"M", _MARK.pack(mark.epoch, mark.position, len(name)), name]
        received, peer, listener, lines = item
        names = peer.encode(), listener.encode()
        parts += [
            b"B",
            _HEAD.pack(received, len(names[0]), len(names[1]), len(lines)),
            *names,
            packNumbers(f"!{len(lines)}I", *map(len, lines)),
            *lines,
        ]
    return b"".join(parts)


def unpacked(frame: bytes) -> list[Item]:
    """Return the items that `packed` wrote."""
    items: list[Item] = []
    mark: Mark | None = None
    at = 0
    while at < len(frame):
        kind = frame[at]
        at += 1
        if kind == ord("C"):
            end = at + _LENGTH.size + _LENGTH.unpack_from(frame, at)[0]
            items.append(Claim(*json.loads(frame[at + _LENGTH.size : end])))
            at = end
            continue
        if kind == ord("M"):
            epoch, position, length = _MARK.unpack_from(frame, at)
            at += _MARK.size
            mark = Mark(frame[at : at + length].decode(), epoch, position)
            at += length
            continue
        received, peer, listener, count = _HEAD.unpack_from(frame, at)
        at += _HEAD.size
        names = frame[at : at + peer].decode(), frame[at + peer : at + peer + listener].decode()
        at += peer + listener
        lengths = unpack_from(f"!{count}I", frame, at)
        at += 4 * count
        lines = []
        for length in lengths:
            lines.append(frame[at : at + length])
            at += length
        batch = Batch(received, *names, lines)
        items.append(batch if mark is None else Marked(batch, mark))
        mark = None
    return items


def told(outcomes: Sequence[Outcome]) -> bytes:
    """Return outcomes as the payload of a frame."""
    others = [
        (at, "D" if isinstance(outcome, Denied) else "O", outcome)
        for at, outcome in enumerate(outcomes)
        if outcome is not None
    ]
    return b"S" + (json.dumps(others).encode() if others else b"")


def heard(answer: bytes, count: int) -> list[Outcome] | None:
    """Return the outcomes of `count` items that `told` wrote; None if all are stored."""
    if len(answer) == 1:
        return None
    outcomes: list[Outcome] = [None] * count
    for at, kind, fields in json.loads(answer[1:]):
        outcomes[at] = Denied(*fields) if kind == "D" else Opened(*fields)
    return outcomes


class Remote:
    """The engine of a worker: another process stores what is written to the pipe `there`.

    The outcome comes back through the pipe `back`; both are descriptors.
    """

    def __init__(self, there: int, back: int) -> None:
        self._there = there
        self._back = back
        self._frames = Frames()

    def open(self) -> None:
        """Do nothing: the other process has opened the store."""

    def keepSessions(self, *_: object) -> None:
        """Do nothing: the other process keeps them."""

    def commit(self, batches: Sequence[Item]) -> list[Outcome] | None:
        """Let the other process store `batches`; return what it says of each.

        :raises StoreError: It says so, or has ended; nobody knows if it has the whole frame.
        """
        try:
            rest = memoryview(framed(packed(batches)))
        except MemoryError as problem:
            raise StoreError("out of memory", retry=True) from problem
        try:
            while rest:
                rest = rest[os.write(self._there, rest) :]
        except OSError as problem:
            # What is not whole is never stored.
            raise StoreError(_ENDED, retry=False) from problem
        try:
            answer = self._answer()
        except (OSError, MemoryError) as problem:
            # Never tried again: an answer that is left in the pipe would be taken for the next.
            raise StoreError(_ENDED, retry=False, certain=False) from problem
        if answer[:1] != b"S":
            retry, certain = answer[1:2] == b"R", answer[:1] == b"N"
            raise StoreError(answer[2:].decode(), retry=retry, certain=certain)
        return heard(answer, len(batches))

    def _answer(self) -> bytes:
        while data := os.read(self._back, 65536):
            for frame in self._frames.received(data):
                return frame
        raise BrokenPipeError

    def tidy(self) -> bool:
        """Do nothing: the other process maintains the store."""
        return False

    def close(self) -> None:
        """Do nothing: the other process closes the store."""


class Keeping:
    """Stores in `store` what a worker sends; `answer` takes the frame that goes back."""

    def __init__(self, store: Store, answer: Callable[[bytes], None]) -> None:
        self._store = store
        self._answer = answer
        self._frames = Frames()

    def received(self, data: bytes) -> None:
        """Store the frames that `data` completes."""
        for frame in self._frames.received(data):
            try:
                items = unpacked(frame)
            except MemoryError:
                self._settled(StoreError("out of memory", retry=True), ())
            else:
                self._store.putItems(items, self._settled)

    def _settled(self, problem: StoreError | None, outcomes: Sequence[Outcome]) -> None:
        if problem is None:
            said = told(outcomes)
        else:
            said = b"N" if problem.certain else b"U"
            said += (b"R" if problem.retry else b"F") + problem.reason.encode()
        self._answer(framed(said))
