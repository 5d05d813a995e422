"""Remove the lines of a stream that are not retained, but no session's position with them.

The stream could do it by itself, and would: the position of an idle session is in its last
message. So each session whose last message is next is written again first, without lines.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from twisted.logger import Logger

from sockservice.errors import StoreError
from sockservice.store.engine import Retention
from sockservice.store.nats.appending import Appender, Counted
from sockservice.store.nats.link import NO_MESSAGE, NoAnswer, NodeLink, Unsent
from sockservice.store.nats.listing import lasts
from sockservice.store.nats.message import FORGOTTEN, STATE, row
from sockservice.store.nats.place import Place
from sockservice.store.nats.publishing import PATIENCE
from sockservice.store.plausible import Plausible
from sockservice.wire.plurals import plural

#: Seconds between looks at what is to be removed, at least and at most; a fiftieth of its age.
LEAST, MOST, PART = 5.0, 3600.0, 50
#: Seconds until the next look where a session found no place.
SOON = 10.0
#: Sessions that are written again, or forgotten, at once.
TOGETHER = 128

log = Logger()


class Remover:
    """Removes what `retention` does not cover, and sessions unused for `age` seconds; 0 is never.

    `expired` is called in the loop's thread with how many were forgotten. `clock` gives seconds
    from anywhere, `wall` seconds since 1970.
    """

    def __init__(
        self,
        link: NodeLink,
        place: Place,
        appender: Appender,
        count: Callable[[float], Awaitable[Counted]],
        retention: Retention,
        age: float = 0,
        expired: Callable[[int], object] = int,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._link = link
        self._place = place
        self._appender = appender
        self._count = count
        self._retention = retention
        self._age = age
        self._expired = expired
        self._clock = clock
        self._time = Plausible(wall)
        self._look: Future[float] | None = None
        self._next = self._looked = 0.0
        self._allNext = 0.0  # when to look at all sessions again
        self._said = ""  # why nothing was removed, as logged last

    def begin(self, state: dict[str, Any]) -> None:
        """Begin with a stream that is like this by its STREAM.INFO."""
        if state.get("messages"):
            self._time.begin(_seconds(state["last_ts"]))

    def step(self) -> None:
        """Look at what is to be removed when it is time for that; never waits for an answer."""
        if self._look is None:
            if self._appender.full:
                # One that was forgotten by another server, or by hand, may have made room.
                self._next = self._allNext = min(self._next, self._looked + SOON)
            if self._clock() >= self._next:
                self._looked = self._clock()
                self._look = self._link.begin(self.look())
        elif self._look.done():
            look, self._look = self._look, None
            self._next = self._clock() + look.result()

    # What follows runs in the loop's thread.

    async def look(self) -> float:
        """Remove what is to be removed; return the seconds until the next look."""
        try:
            pause = await self._removed()
        except (Unsent, NoAnswer, StoreError) as problem:
            reason = problem.reason if isinstance(problem, StoreError) else str(problem)
            if reason != self._said:
                log.warn(
                    "nothing is removed from the stream {stream}: {reason}; trying again",
                    stream=self._place.stream,
                    reason=reason,
                )
            self._said = reason
            return LEAST
        self._said = ""
        return pause

    async def _removed(self) -> float:
        found = await self._asked("STREAM.INFO")
        state, config = found["state"], found["config"]
        age, size = self._retention
        own = config.get("max_age", 0) / 10**9
        end, step = state["first_seq"], MOST
        now = self._time.now()
        if age is not None:
            end = await self._since(now - age, state)
            step = min(step, age / PART)
        if size is not None and state["bytes"] > size:
            # Half the way to a little less, since messages differ; then it is looked at again.
            excess = (state["bytes"] - size + size // 32) / state["bytes"] / 2
            end = max(end, state["first_seq"] + int(state["messages"] * excess) + 1)
        if size is not None:
            step = LEAST
        fresh = end
        if own:
            # The stream's own limit takes the rest of it, and asks nobody.
            fresh = max(end, await self._since(now - own / 2, state))
            step = min(step, own / PART)
        all_ = self._clock() >= self._allNext
        if fresh > state["first_seq"] or all_:
            end = min(end, await self._sessions(now, end, fresh, all_=all_))
        if all_:
            self._appender.full = False
            pause = max(LEAST, self._age / PART) if self._age else MOST
            self._allNext = self._clock() + min(MOST, pause)
        if end > state["first_seq"]:
            await self._asked("STREAM.PURGE", seq=min(end, state["last_seq"] + 1))
            left = (await self._asked("STREAM.INFO"))["state"]["bytes"]
            if size is not None and size < left < state["bytes"]:
                return 0.0
        return max(LEAST, min(step, self._allNext - self._clock()))

    async def _asked(self, what: str, **given: Any) -> dict[str, Any]:
        found = await self._link.ask(f"{what}.{self._place.stream}", **given)
        if "error" in found and found["error"].get("err_code") != NO_MESSAGE:
            raise NoAnswer(f"NATS says: {found['error'].get('description')}", certain=True)
        return found

    async def _since(self, moment: float, state: dict[str, Any]) -> int:
        """Return the sequence of the first message since then, or behind the last."""
        if not state["messages"] or _seconds(state["first_ts"]) >= moment:
            return int(state["first_seq"])
        begin = datetime.fromtimestamp(max(0.0, moment), UTC).isoformat()
        found = await self._asked("STREAM.MSG.GET", start_time=begin, next_by_subj=">")
        return int(found["message"]["seq"] if "message" in found else state["last_seq"] + 1)

    async def _sessions(self, now: float, end: int, fresh: int, *, all_: bool) -> int:
        """Forget unused sessions, and write those again whose last message is below `fresh`.

        Give the sequence up to which no last message stands any more, `end` at most.
        """
        before = int((now - self._age) * 1_000_000)
        renewed: list[tuple[int, str]] = []
        unused: list[str] = []
        forgotten = 0
        until = self._clock() + PATIENCE
        least, _ = await self._count(until)
        async with aclosing(lasts(self._link, self._place, least)) as found:
            async for sequence, headers in found:
                if not all_ and sequence >= fresh:
                    break
                kept = row(headers[STATE]) if STATE in headers else None
                if kept is None or FORGOTTEN in headers:
                    forgotten += FORGOTTEN in headers
                elif all_ and self._age and kept.used < before:
                    unused.append(kept.name)
                elif sequence < fresh:
                    renewed.append((sequence, kept.name))
        if all_:
            self._appender.forgotten = forgotten
        await self._forget(unused, before)
        for at in range(0, len(renewed), TOGETHER):
            some = renewed[at : at + TOGETHER]
            until = self._clock() + PATIENCE
            told = await asyncio.gather(
                *(self._appender.renew(name, fresh, until) for _, name in some),
                return_exceptions=True,
            )
            for (sequence, _), problem in zip(some, told, strict=True):
                if isinstance(problem, BaseException):
                    if not isinstance(problem, StoreError) or sequence >= end:
                        raise problem
                    log.warn(
                        "sessions cannot be written again ({reason}): older lines are removed, "
                        "others stay",
                        reason=problem.reason,
                    )
                    return sequence
        return end

    async def _forget(self, names: list[str], before: int) -> None:
        gone = 0
        for at in range(0, len(names), TOGETHER):
            until = self._clock() + PATIENCE
            some = names[at : at + TOGETHER]
            told = await asyncio.gather(
                *(self._appender.forget(name, before, until) for name in some)
            )
            gone += sum(told)
        if gone:
            self._expired(gone)
            log.info(
                "{gone} {were} removed: unused for too long",
                gone=gone,
                were=plural(gone, "session was", "sessions were"),
            )


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
