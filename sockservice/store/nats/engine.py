"""The storage engine over a stream: commits are messages, sessions compare and append."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from sockservice.errors import CannotStart, StoreError
from sockservice.store.engine import (
    EVERYTHING,
    SESSIONS,
    Batch,
    Claim,
    Denied,
    Item,
    Outcome,
    Retention,
)
from sockservice.store.nats.appending import Appender
from sockservice.store.nats.link import NoAnswer, NodeLink, Unreachable, Unsent
from sockservice.store.nats.message import OVERHEAD, WRITER, divided
from sockservice.store.nats.place import Place
from sockservice.store.nats.publishing import PATIENCE, Publisher
from sockservice.store.nats.removing import Remover
from sockservice.store.nats.watching import NoStream, Watch
from sockservice.store.pipe import packed
from sockservice.wire.plurals import counted


class JetStream:
    """Stores lines in the stream of `place`; removes what `retention` does not cover.

    `clock` gives seconds from anywhere, `wall` seconds since 1970.
    """

    #: Bytes of the longest line that the service takes; it is told by who makes the engine.
    longest = 0

    def __init__(
        self,
        place: Place,
        retention: Retention = EVERYTHING,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._place = place
        self._retention = retention
        self._clock = clock
        self._wall = wall
        self._sessions = False
        self._most, self._age = SESSIONS, 0.0
        self._expired: Callable[[int], object] = int
        self._link: NodeLink
        self._publisher: Publisher
        self._watch: Watch
        self._appender: Appender
        self._remover: Remover

    def keepSessions(
        self, most: int = SESSIONS, age: float = 0, expired: Callable[[int], object] = int
    ) -> None:
        """Keep sessions as well, `most` at most in the whole stream."""
        self._sessions = True
        self._most, self._age, self._expired = most, age, expired

    def check(self) -> str:
        """See whether it could be opened, without changing anything; return what is there.

        :raises CannotStart: It could not.
        """
        try:
            self._open(self._place._replace(create=False))
        except NoStream as problem:
            if self._place.create:
                return "to be created"
            raise CannotStart(f"{self._place}: {problem.reason}") from problem
        self.close()
        return "there"

    def open(self) -> None:
        """Connect, and see that the nodes and the stream are what they have to be.

        :raises CannotStart: They are not, or it can't be seen.
        """
        try:
            self._open(self._place)
        except NoStream as problem:
            raise CannotStart(f"{self._place}: {problem.reason}") from problem

    def _open(self, place: Place) -> None:
        self._link = NodeLink(place)
        try:
            self._link.open()
            self._publisher = Publisher(self._link, place, self._clock)
            self._watch = Watch(self._link, place, self._retention, self._clock)
            found = self._watch.open(sessions=self._sessions)
            if self.longest > (room := self._link.info["max_payload"] - OVERHEAD):
                most = f"its messages hold lines up to {counted(room, 'byte')}"
                raise StoreError(f"{most}, --line-limit is {self.longest}", retry=False)
        except NoStream:
            self._link.close()
            raise
        except (Unreachable, NoAnswer, Unsent, StoreError, OSError) as problem:
            self._link.close()
            reason = problem.reason if isinstance(problem, StoreError) else problem
            raise CannotStart(f"{place}: {reason}") from problem
        self._publisher.leader = self._watch.nodes.leader
        self._appender = Appender(
            self._link, place, self._publisher, self._watch.sessions, self._most, self._clock
        )
        self._appender.identity = self._watch.identity
        self._remover = Remover(
            self._link,
            place,
            self._appender,
            self._watch.sessions,
            self._retention,
            self._age,
            self._expired,
            self._clock,
            self._wall,
        )
        self._remover.begin(found["state"])

    @property
    def identity(self) -> str:
        """What no other stream has, nor this one once it was made anew."""
        return self._watch.identity

    def commit(self, batches: Sequence[Item]) -> Sequence[Outcome] | None:
        """Append all lines; those of a session only behind what its mark says.

        :raises StoreError: None of them is stored; or, if it is not `certain`, nobody knows.
        """
        return self._link.call(self._commit(batches))

    def tidy(self) -> bool:
        """See now and then, without waiting, that the stream is what it was; remove what is old.

        :raises StoreError: They are not.
        """
        self._publisher.leader = self._watch.nodes.leader
        self._watch.step()
        self._remover.step()
        return False

    def figures(self) -> dict[str, Any]:
        """Return the bytes of the stream, and what is known of its nodes."""
        link = self._link
        return {
            "file": self._watch.bytes,
            "connectionsLost": link.losses,
            **self._watch.nodes.figures(link.name if link.connected else ""),
        }

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    # What follows runs in the loop's thread.

    async def _commit(self, items: Sequence[Item]) -> Sequence[Outcome] | None:
        until = self._clock() + PATIENCE
        plain = [item for item in items if isinstance(item, Batch)]
        if len(plain) == len(items):
            await self._plain(plain, until)
            return None
        outcomes: list[Outcome] = [None] * len(items)
        sessions: dict[str, list[int]] = {}
        for at, item in enumerate(items):
            if not isinstance(item, Batch):
                name = item.name if isinstance(item, Claim) else item.mark.name
                sessions.setdefault(name, []).append(at)
        await self._appender.begin({each.name for each in items if isinstance(each, Claim)}, until)
        doing = [
            self._appender.carryOut(name, items, ats, outcomes, until)
            for name, ats in sessions.items()
        ]
        if plain:
            doing.append(self._plain(plain, until))
        ended = await asyncio.gather(*doing, return_exceptions=True)
        problems: list[StoreError | None] = []
        for each in ended:
            if each is not None and not isinstance(each, StoreError):
                raise each
            problems.append(each)
        failed = [each for each in problems if each is not None]
        if not failed:
            return outcomes
        worst = min(failed, key=lambda each: each.retry)
        if worst.retry and len(failed) < len(doing) and not (plain and problems[-1]):
            # Others' are stored: what failed is told to those that it concerns.
            for ats, problem in zip(sessions.values(), problems, strict=False):
                for at in ats if problem is not None else ():
                    outcomes[at] = Denied(str(problem), permanent=False)
            return outcomes
        certain = len(failed) == len(doing) and all(each.certain for each in failed)
        raise StoreError(worst.reason, retry=worst.retry, certain=certain)

    async def _plain(self, batches: list[Batch], until: float) -> None:
        """Append lines that are of no session, one message after the other.

        :raises StoreError: None of them is stored; or, if it is not `certain`, nobody knows.
        """
        stored = False
        for part in divided(batches):
            headers = {WRITER: self._publisher.identify()}
            try:
                await self._publisher.publish(self._place.subject, packed(part), headers, until)
            except StoreError as problem:
                if stored and problem.certain:
                    raise StoreError(problem.reason, retry=problem.retry, certain=False) from None
                raise
            stored = True
