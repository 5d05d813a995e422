"""Append to the sessions in a stream, each message only behind the last one of its subject."""

import asyncio
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from sockservice.errors import StoreError
from sockservice.store.engine import Claim, Item, Outcome
from sockservice.store.nats.link import NO_MESSAGE, NoAnswer, NodeLink, Unsent
from sockservice.store.nats.message import (
    EXPECTED,
    FORGOTTEN,
    STATE,
    WRITER,
    chunks,
    row,
    state,
    subject,
)
from sockservice.store.nats.place import Place
from sockservice.store.nats.publishing import PAUSE, Publisher, WrongSequence
from sockservice.store.pipe import packed
from sockservice.store.sessions import Ledger, Row

#: Sessions that are kept in memory.
KEPT = 20_000


class Last(NamedTuple):
    """The last message of a session's subject: its sequence, the session, and whose it is."""

    sequence: int
    row: Row | None
    #: The highest epoch of a session of that name which was forgotten.
    floor: int
    writer: str


class Counted(NamedTuple):
    """How many sessions a stream has, and the sequence of its first message."""

    sessions: int
    first: int


class Appender:
    """Appends to the sessions of `place` by `publisher`; all of it runs in the loop's thread.

    `count` gives how many sessions there are, about, until a moment by `clock`; `most` is how
    many there may be, 0 for any number.
    """

    def __init__(
        self,
        link: NodeLink,
        place: Place,
        publisher: Publisher,
        count: Callable[[float], Awaitable[Counted]],
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self._place = place
        self._publisher = publisher
        self._counted = count
        self._most = most
        self._clock = clock
        self._last: dict[str, Last] = {}
        # Of this commit: how many sessions there were before, once asked, and how many are new.
        self._before: asyncio.Task[Counted] | None = None
        self._made = 0
        # What each session that is claimed in this commit was, until it is decided on.
        self._claimed: dict[str, Last] = {}
        #: What the store is known by.
        self.identity = ""
        #: Forgotten sessions of which messages are left: `count` has them, too.
        self.forgotten = 0
        #: Whether a session could not be made since, for there were too many.
        self.full = False

    async def begin(self, claimed: set[str], until: float) -> None:
        """Begin a commit in which these sessions are claimed.

        They are decided on in the order they came in, whichever answer is first.
        """
        self._before, self._made = None, 0
        self._claimed.clear()
        found = await asyncio.gather(
            *(self._load(name, until) for name in claimed), return_exceptions=True
        )
        for name, last in zip(claimed, found, strict=True):
            # One of which nobody tells is asked for again, and says so then.
            if isinstance(last, Last):
                self._claimed[name] = last

    async def carryOut(
        self,
        name: str,
        items: Sequence[Item],
        ats: list[int],
        outcomes: list[Outcome],
        until: float,
    ) -> None:
        """Carry out the items of one session, those numbered `ats`, in order.

        :raises StoreError: None of them is carried out; or, if it is not `certain`, nobody knows.
        """
        stored = False
        try:
            for chunk in chunks(items, ats):
                told = await self._append(name, [item for _, item in chunk], until)
                for (at, _), outcome in zip(chunk, told, strict=True):
                    # Of an item that was divided, what was denied is what is told.
                    if outcome is not None:
                        outcomes[at] = outcome
                stored = True
        except StoreError as problem:
            self._last.pop(name, None)
            if stored and problem.certain:
                raise StoreError(problem.reason, retry=problem.retry, certain=False) from None
            raise

    async def renew(self, name: str, below: int, until: float) -> None:
        """Write the session again, if its last message has a sequence below `below`.

        :raises StoreError: It cannot be told whether it is.
        """
        while True:
            last = await self._read(name, until)
            if last.row is None or last.sequence >= below:
                return
            if await self._write(name, last, last.row, {}, until):
                return

    async def forget(self, name: str, before: int | None, until: float) -> bool:
        """Forget a session, unless it was used since `before`; return whether it was there.

        Its lines stay. Whoever has it open is none of a later one of that name.

        :raises StoreError: It cannot be told whether it is forgotten.
        """
        while True:
            last = await self._read(name, until)
            if last.row is None or (before is not None and last.row.used >= before):
                return False
            if await self._write(name, last, last.row, {FORGOTTEN: "1"}, until):
                self._last.pop(name, None)
                self.forgotten += 1
                return True

    async def _append(self, name: str, items: list[Item], until: float) -> Sequence[Outcome]:
        """Carry out items that fit into one message; return what became of each."""
        # What another instance has done since would make a refusal untrue.
        fresh = any(isinstance(item, Claim) for item in items)
        while True:
            last = self._claimed.pop(name, None)
            if last is None and not fresh:
                last = self._last.get(name)
            if last is None:
                last = await self._load(name, until)
            count = 0
            if last.row is None:
                if self._before is None:
                    self._before = asyncio.ensure_future(self._counted(until))
                before = await self._before
                count = max(0, before.sessions - self.forgotten) + self._made
                self.full = self.full or 0 < self._most <= count
                if not last.sequence:
                    # Each opening is a message: none that was removed had a higher epoch.
                    last = last._replace(floor=max(0, before.first - 1))
            decided = self._ledger(last, count).decide(items)
            if name not in decided.rows:
                return decided.outcomes
            self._made += decided.made
            if await self._write(name, last, decided.rows[name], {}, until, decided.batches):
                if decided.made and last.sequence:
                    self.forgotten = max(0, self.forgotten - 1)
                return decided.outcomes
            self._made -= decided.made

    async def _write(
        self,
        name: str,
        last: Last,
        new: Row,
        more: dict[str, str],
        until: float,
        batches: Sequence[Any] = (),
    ) -> bool:
        """Append a message behind `last`; return whether that was still the last one.

        :raises StoreError: It cannot be told whether it is stored.
        """
        headers = {
            WRITER: self._publisher.identify(),
            EXPECTED: str(last.sequence),
            STATE: state(new),
            **more,
        }
        at = subject(self._place, name)
        try:
            sequence = await self._publisher.publish(at, packed([*batches]), headers, until)
        except WrongSequence:
            # Another instance was quicker, or an acknowledgement was lost.
            self._last.pop(name, None)
            found = await self._read(name, until)
            if found.writer == headers[WRITER]:
                self._keep(name, found)
                return True
            if self._clock() >= until:
                raise StoreError("others go on with the session", retry=True) from None
            await asyncio.sleep(PAUSE / 10)
            return False
        self._keep(name, Last(sequence, new, 0, headers[WRITER]))
        return True

    def _keep(self, name: str, last: Last) -> None:
        known = self._last.get(name)
        # Of what the loop does at once, another may have got further.
        if known is None or known.sequence < last.sequence:
            if len(self._last) >= KEPT:
                self._last.clear()
            self._last[name] = last

    def _ledger(self, last: Last, count: int) -> Ledger:
        return Ledger(
            self.identity, lambda _: last.row, lambda: count, self._most, lambda: last.floor
        )

    async def _load(self, name: str, until: float) -> Last:
        """Return what the leader has of a session, and keep it.

        :raises StoreError: It does not say.
        """
        last = await self._read(name, until)
        if last.sequence:
            self._keep(name, last)
        return last

    async def _read(self, name: str, until: float) -> Last:
        """Return what the leader has of a session.

        :raises StoreError: It does not say.
        """
        while True:
            try:
                found = await self._link.ask(
                    f"STREAM.MSG.GET.{self._place.stream}",
                    last_by_subj=subject(self._place, name),
                )
            except (Unsent, NoAnswer) as problem:
                reason = str(problem)
            else:
                if "message" in found:
                    return remembered(found["message"])
                error = found.get("error") or {}
                if error.get("err_code") == NO_MESSAGE:
                    return Last(0, None, 0, "")
                reason = f"NATS says: {error.get('description')}"
            if self._clock() >= until:
                raise StoreError(reason, retry=True)
            await asyncio.sleep(PAUSE)


def remembered(message: dict[str, Any]) -> Last:
    """Return what a stored message says of its session."""
    headers = _headers(message.get("hdrs", ""))
    kept = row(headers[STATE]) if STATE in headers else None
    sequence, writer = message["seq"], headers.get(WRITER, "")
    if kept is not None and FORGOTTEN in headers:
        return Last(sequence, None, kept.epoch, writer)
    return Last(sequence, kept, 0, writer)


def _headers(encoded: str) -> dict[str, str]:
    found = {}
    for line in b64decode(encoded).decode("utf-8", "replace").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        found[key] = value.strip()
    return found
