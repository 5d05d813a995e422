"""Read the lines and the sessions in a stream, while servers append to it."""

import asyncio
import sqlite3
import time
from base64 import b64decode
from collections.abc import Callable, Coroutine
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, TypeVar

from nats.aio.msg import Msg

from sockservice.store.engine import Batch
from sockservice.store.nats import demands
from sockservice.store.nats.link import NO_MESSAGE, NoAnswer, NodeLink, Unreachable, Unsent
from sockservice.store.nats.message import FORGOTTEN, INDEX_BITS, STATE, group, row
from sockservice.store.nats.place import Place
from sockservice.store.pipe import unpacked
from sockservice.store.reader import Query, Unreadable
from sockservice.store.sessions import Row
from sockservice.store.sessiontable import SessionRows

#: Messages, and bytes of them, that are asked for at once.
BATCH, BYTES = 256, 4 << 20
#: Seconds until an answer has to have come, elections included; and between tries.
PATIENCE, PAUSE = 30.0, 0.2
#: Seconds until all messages that were asked for have come.
ARRIVAL = 10.0
#: Seconds by which the clocks of machines may differ where lines are found by time.
SLACK = 3600
#: Sessions whose last messages are asked for at once; a node gives 1,024.
AT_ONCE = 500

_NO_STREAM = 10059

Found = TypeVar("Found")
#: A message: its sequence, its subject, its headers, what is in it.
Stored = tuple[int, str, dict[str, str], bytes]


class StreamReader:
    """Reads the stream of `place`; never writes.

    :raises Unreadable: It can't be reached.
    """

    def __init__(self, place: Place, since: int | None = None) -> None:
        self._place = place
        self._since = since
        self._link = NodeLink(place)
        self._last = 0  # the sequence up to which all messages are known to be there
        try:
            self._link.open()
        except (Unreachable, OSError) as problem:
            self._link.close()
            raise Unreadable(str(problem)) from problem

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def page(self, query: Query, after: int, limit: int | None = None) -> tuple[list[Any], int]:
        """Return the next lines after the id `after`, and the id up to which there are no others.

        There may be none in that range. If the id is `after`, it is the last.

        :raises Unreadable: The nodes do not answer, or the stream is gone.
        """
        # The next message, or the rest of this one.
        first = (after + 1) >> INDEX_BITS
        messages = self._link.call(self._patiently(lambda: self._from(first)))
        rows: list[Any] = []
        last = after
        for number, _, _, payload in messages:
            # None of a message has the index 0.
            at = number << INDEX_BITS
            for batch in unpacked(payload):
                assert isinstance(batch, Batch)
                for line in batch.lines:
                    at += 1
                    if at > after:
                        rows.append((at, batch.received, batch.peer, batch.listener, line))
            # As high as the message goes: it was read to its end.
            last = max(last, (number << INDEX_BITS) + (1 << INDEX_BITS) - 1)
        selected = _selected(query, rows)
        if limit is not None and len(selected) > limit:
            selected = selected[:limit]
            last = selected[-1][0] if limit else after
        return selected, last

    def sessions(self) -> SessionRows:
        """Return the sessions, by their names.

        :raises Unreadable: As `page`.
        """
        return self._link.call(self._patiently(self._sessions))

    def snapshot(self) -> tuple[int, int, SessionRows]:
        """Return the lowest id that may be there, the highest, and the sessions as of that line.

        :raises Unreadable: As `page`.
        """

        async def snapshot() -> tuple[int, int, SessionRows]:
            state = (await self._info())["state"]
            last = int(state["last_seq"])
            sessions = await self._sessions(last)
            highest = ((last + 1) << INDEX_BITS) - 1 if last else 0
            return int(state["first_seq"]) << INDEX_BITS, highest, sessions

        return self._link.call(self._patiently(snapshot))

    def since(self) -> int:
        """Return the id behind which it begins: 0, for it is whole."""
        return 0

    # What follows runs in the loop's thread.

    async def _patiently(self, ask: Callable[[], Coroutine[Any, Any, Found]]) -> Found:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return await ask()
            except (Unsent, NoAnswer) as problem:
                if time.monotonic() > until:
                    raise Unreadable(str(problem)) from problem
            await asyncio.sleep(PAUSE)

    async def _info(self) -> dict[str, Any]:
        found = await self._link.ask(f"STREAM.INFO.{self._place.stream}")
        if "error" in found:
            if found["error"].get("err_code") == _NO_STREAM:
                raise Unreadable(f"there is no stream {self._place.stream}")
            raise NoAnswer(str(found["error"].get("description")), certain=True)
        return found

    async def _from(self, first: int) -> list[Stored]:
        """Return some messages, from the one numbered `first` on; nothing if there are none."""
        if first > self._last:
            # Of the leader: another node may not have the last ones yet.
            found = await self._info()
            if not found["config"].get("allow_direct"):
                raise Unreadable(f"the stream {self._place.stream} has no allow_direct")
            self._last = found["state"]["last_seq"]
        if first > self._last:
            return []
        asked: dict[str, Any] = {"batch": BATCH, "max_bytes": BYTES, "next_by_subj": ">"}
        if self._since is not None and not first:
            begin = max(0.0, self._since / 1_000_000 - SLACK)
            asked["start_time"] = datetime.fromtimestamp(begin, UTC).isoformat()
        else:
            asked["seq"] = max(first, 1)
        answers = await self._link.several(
            f"$JS.API.DIRECT.GET.{self._place.stream}", ARRIVAL, **asked
        )
        messages = [_stored(each) for each in answers[:-1]]
        if messages and messages[0][0] <= self._last:
            return [each for each in messages if each[0] <= self._last]
        if "start_time" in asked:
            # Nothing is as new, or the node has not caught up.
            self._since = None
            return await self._from(0)
        # A node that has not caught up, or what comes then was removed: the leader knows.
        found = await self._link.ask(
            f"STREAM.MSG.GET.{self._place.stream}",
            seq=max(first, 1),
            next_by_subj=f"{self._place.stream}.>",
        )
        if "message" in found:
            return [_got(found["message"])]
        if found["error"].get("err_code") != NO_MESSAGE:
            raise NoAnswer(str(found["error"].get("description")), certain=True)
        return []

    async def _sessions(self, last: int = 0) -> SessionRows:
        """Return the sessions as they were at the message `last`, or are."""
        asked: dict[str, Any] = {"batch": 1024} | ({"up_to_seq": last} if last else {})
        info = await self._info()
        subjects = [self._place.sessions]
        if info["state"].get("num_subjects", 0) > AT_ONCE:
            subjects = [group(self._place, number) for number in range(256)]
        rows = []
        for each in subjects:
            answers = await self._link.several(
                f"$JS.API.DIRECT.GET.{self._place.stream}", ARRIVAL, multi_last=[each], **asked
            )
            for message in answers[:-1]:
                headers = message.headers or {}
                if STATE in headers and FORGOTTEN not in headers:
                    rows.append(row(headers[STATE]))
            status = (answers[-1].headers or {}).get("Status")
            if status not in ("204", "404"):
                raise Unreadable(f"NATS says: {(answers[-1].headers or {}).get('Description')}")
        rows.sort(key=_name)
        return SessionRows(bytes.fromhex(demands.identity(info)), 0, rows)


def _name(row: Row) -> str:
    return row.name


def _stored(message: Msg) -> Stored:
    headers = message.headers or {}
    return int(headers["Nats-Sequence"]), headers["Nats-Subject"], headers, message.data


def _got(message: dict[str, Any]) -> Stored:
    return message["seq"], message["subject"], {}, b64decode(message.get("data", ""))


def _selected(query: Query, rows: list[Any]) -> list[Any]:
    """Return what `query` selects of rows of all columns: SQL is asked by SQLite."""
    if query == Query():
        return [(number, line) for number, _, _, _, line in rows]
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(
            "CREATE TABLE lines(id INTEGER PRIMARY KEY, received, peer, listener, line)"
        )
        database.executemany("INSERT INTO lines VALUES(?, ?, ?, ?, ?)", rows)
        return database.execute(
            f"SELECT {query.columns} FROM lines WHERE true{query.condition} ORDER BY id",
            query.values,
        ).fetchall()
