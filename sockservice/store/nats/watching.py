"""See that a stream and its nodes are what is demanded of them, at the start and later."""

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from http.client import HTTPException
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from twisted.logger import Logger

from sockservice.errors import StoreError
from sockservice.store.engine import Retention
from sockservice.store.nats import demands
from sockservice.store.nats.appending import Counted
from sockservice.store.nats.link import NoAnswer, NodeLink, Unsent
from sockservice.store.nats.nodes import Nodes
from sockservice.store.nats.place import Place
from sockservice.store.nats.publishing import PAUSE

#: Seconds for which nodes that have just started may elect leaders.
ELECTION = 30.0
#: Seconds between looks while the service runs, and while there is no leader.
INTERVAL, SOON = 5.0, 1.0
#: Seconds between looks at the monitoring: a node may be started anew with other settings.
MONITORED = 60.0
#: Seconds for a node's monitoring to answer.
MONITOR = 2.0

_NOT_FOUND, _NOT_FOR_ACCOUNT = 10059, 10039

log = Logger()


class NoStream(StoreError):
    """There is no such stream."""


class Watch:
    """Looks at the stream of `place` through `link`."""

    def __init__(
        self,
        link: NodeLink,
        place: Place,
        retention: Retention,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self._place = place
        self._retention = retention
        self._clock = clock
        self._gone = 0  # looks in a row that found no stream
        self._unanswered = False  # whether the last look found no leader
        self._unseen: set[str] = set()  # nodes not known to sync
        self._look: Future[str] | None = None
        self._next = 0.0
        #: What no other stream has.
        self.identity = ""
        self._monitoredNext = 0.0
        #: Bytes of the stream.
        self.bytes = 0
        self._names: dict[str, str] = {}  # of nodes, by their monitoring
        #: What is known of the stream's nodes.
        self.nodes = Nodes(place.stream, clock)

    def open(self, *, sessions: bool) -> dict[str, Any]:
        """Look at everything, and make the stream if that is wished; return its STREAM.INFO.

        :raises StoreError: Something is not as it has to be; the reason says what.
        """
        wrong = demands.outdated(self._link.info)
        if wrong:
            raise StoreError(wrong, retry=False)
        if not self._place.monitors and not self._place.unchecked:
            raise StoreError(
                "cannot see whether its nodes sync what they acknowledge: name the monitoring of "
                "each, as ?monitor=http://HOST:8222,…, or do without, as ?unchecked",
                retry=False,
            )
        if self._place.unchecked:
            log.warn("{place}: not checked whether its nodes sync", place=str(self._place))
        found = self._link.call(self._found())
        wrong = demands.unfit(found, self._place) or demands.unremovable(found, self._retention)
        if wrong:
            raise StoreError(wrong, retry=False)
        self.identity = demands.identity(found)
        self._note(found)
        if self._place.monitors:
            self._unseen = demands.members(found) or {self._link.info.get("server_name", "")}
            held = len(self._unseen)
            wrong, silent = self._link.call(self._monitored())
            if not wrong and 2 * len(self._unseen) >= max(held, 2) and not silent:
                wrong = f"monitor= names none of {', '.join(sorted(self._unseen))}"
            elif not wrong and 2 * (held - len(self._unseen)) <= held:
                wrong = f"cannot see whether its nodes sync: {'; '.join(silent.values())}"
            if wrong:
                raise StoreError(wrong, retry=False)
            if self._unseen:
                why = "; ".join(silent.values()) or "monitor= does not name them"
                if not silent:
                    raise StoreError(
                        f"monitor= does not name {', '.join(sorted(self._unseen))}", retry=False
                    )
                log.warn(
                    "{place}: not seen yet whether {nodes} sync: {why}",
                    place=str(self._place),
                    nodes=", ".join(sorted(self._unseen)),
                    why=why,
                )
        if not found["config"].get("max_bytes", -1) > 0:
            log.warn(
                "{place} has no max_bytes: a node whose disk is full has to be restarted",
                place=str(self._place),
            )
        if sessions and (age := found["config"].get("max_age", 0) / 10**9):
            log.warn(
                "{place} has max_age {age:g}s of its own: positions of sessions are lost if no "
                "server runs for half of that; --retain-age without it keeps them",
                place=str(self._place),
                age=age,
            )
        return found

    def step(self) -> None:
        """Look again every few seconds; never waits for an answer.

        :raises StoreError: Something is not as it has to be any more; nothing can be stored.
        """
        if self._look is None:
            if self._clock() >= self._next:
                self._look = self._link.begin(self._again())
        elif self._look.done():
            look, self._look = self._look, None
            self._next = self._clock() + (SOON if self._unanswered else INTERVAL)
            wrong = look.result()
            if wrong:
                raise StoreError(wrong, retry=False)

    async def sessions(self, until: float) -> Counted:
        """Return how many sessions the stream has, forgotten ones included.

        :raises StoreError: It does not say.
        """
        while True:
            with suppress(Unsent, NoAnswer):
                found = await self._link.ask(f"STREAM.INFO.{self._place.stream}")
                if "state" in found:
                    plain = await self._link.ask(
                        f"STREAM.MSG.GET.{self._place.stream}", last_by_subj=self._place.subject
                    )
                    count = int(found["state"].get("num_subjects", 0)) - ("message" in plain)
                    return Counted(count, int(found["state"]["first_seq"]))
            if self._clock() >= until:
                raise StoreError("no answer from NATS", retry=True)
            await asyncio.sleep(PAUSE)

    async def _found(self) -> dict[str, Any]:
        """Return STREAM.INFO, once there is a leader.

        :raises StoreError: There is no stream, or no leader.
        """
        until = self._clock() + ELECTION
        reason = ""
        while self._clock() < until:
            try:
                found = await self._link.ask(f"STREAM.INFO.{self._place.stream}")
            except (Unsent, NoAnswer) as problem:
                reason = str(problem)
            else:
                error = found.get("error") or {}
                if error.get("err_code") == _NOT_FOUND:
                    if not self._place.create:
                        raise NoStream(
                            f"there is no stream {self._place.stream}; "
                            "?create&max_bytes=20G makes it",
                            retry=False,
                        )
                    reason = await self._create()
                elif error.get("err_code") == _NOT_FOR_ACCOUNT:
                    raise StoreError(str(error.get("description")), retry=False)
                elif error.get("code") == 503 or (not error and not self._led(found)):
                    reason = str(error.get("description") or "it has no leader")
                elif error:
                    raise StoreError(str(error.get("description")), retry=False)
                else:
                    return found
            await asyncio.sleep(PAUSE)
        raise StoreError(f"no answer: {reason}", retry=False)

    async def _create(self) -> str:
        """Have the stream made; return what it lacks yet.

        :raises StoreError: It cannot be made.
        """
        config = demands.configuration(self._place)
        with suppress(Unsent, NoAnswer):
            made = await self._link.ask(f"STREAM.CREATE.{self._place.stream}", **config)
            error = made.get("error")
            # In use: another instance has made it meanwhile.
            if error and error.get("err_code") != 10058 and error.get("code") != 503:
                text = error.get("description", "")
                if "offline" in text:
                    # A node that has just started is not known to the others yet.
                    return str(text)
                if error.get("err_code") in (10005, 10023, 10047):
                    text += f": each node reserves max_bytes={self._place.maxBytes} on its disk"
                raise StoreError(f"the stream cannot be made: {text}", retry=False)
        return "it has no leader yet"

    @staticmethod
    def _led(found: dict[str, Any]) -> bool:
        return "cluster" not in found or bool(found["cluster"].get("leader"))

    def _note(self, found: dict[str, Any]) -> None:
        self._unanswered = False
        self.bytes = int(found["state"]["bytes"])
        self.nodes.seen(found.get("cluster") or {})

    async def _again(self) -> str:
        """Return what is not as it has to be, if that can be seen."""
        reason = ""
        found: dict[str, Any] = {}
        try:
            found = await self._link.ask(f"STREAM.INFO.{self._place.stream}")
        except (Unsent, NoAnswer) as problem:
            reason = str(problem)
        error = found.get("error") or {}
        if error.get("err_code") == _NOT_FOUND:
            # Nodes that have just started may not know it yet.
            self._gone += 1
            return f"the stream {self._place.stream} is gone" if self._gone >= 3 else ""
        if error or reason or not self._led(found):
            self._unanswered = True
            _, silent = await self._monitored()
            names = [self._names.get(monitor, monitor) for monitor in silent]
            self.nodes.unanswered(reason or str(error.get("description") or "no leader"), names)
            return ""
        self._gone = 0
        if demands.identity(found) != self.identity:
            return f"the stream {self._place.stream} is another one: it was made anew"
        self._note(found)
        wrong = demands.unfit(found, self._place) or demands.outdated(self._link.info)
        if not wrong and (self._unseen or self._clock() >= self._monitoredNext):
            wrong, _ = await self._monitored()
        return wrong

    async def _monitored(self) -> tuple[str, dict[str, str]]:
        """Ask the monitoring of all nodes; return what is wrong, and why which do not answer."""
        silent: dict[str, str] = {}
        self._monitoredNext = self._clock() + MONITORED
        answers = await asyncio.gather(
            *(asyncio.to_thread(_varz, monitor) for monitor in self._place.monitors),
            return_exceptions=True,
        )
        for monitor, answer in zip(self._place.monitors, answers, strict=True):
            if isinstance(answer, dict):
                wrong = demands.unsynced(answer)
                if wrong:
                    return wrong, silent
                self._names[monitor] = str(answer.get("server_name", ""))
                self._unseen.discard(self._names[monitor])
            elif isinstance(answer, OSError | ValueError | HTTPException):
                reason = answer.reason if isinstance(answer, URLError) else answer
                silent[monitor] = f"{monitor}: {reason}"
            elif isinstance(answer, BaseException):
                raise answer
        return "", silent


def _varz(monitor: str) -> dict[str, Any]:
    with urlopen(f"{monitor}/varz", timeout=MONITOR) as answer:
        found: dict[str, Any] = json.load(answer)
    return found
