"""The table of sessions in the SQLite engine: schema version 2, and what is kept in memory."""

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from itertools import repeat
from typing import NamedTuple

from twisted.logger import Logger

from sockservice.store.engine import Item
from sockservice.store.plausible import Plausible, elapsed
from sockservice.store.sessions import FIELDS, Decided, Ledger, Row
from sockservice.wire.plurals import plural

#: The schema's version, with sessions.
VERSION = 2

#: Rows that are kept in memory, at most.
KEPT = 20_000
#: Seconds between looks for sessions that are not used any more, at most and at least; and
#: rows looked at in one step.
MOST_LOOK, LEAST_LOOK, STEP = 3600.0, 1.0, 1000

SCHEMA = """
CREATE TABLE store(                       -- one row
    id BLOB NOT NULL,                     -- the identity, 16 random bytes
    floor INTEGER NOT NULL                -- highest epoch of a session that was removed
);
CREATE TABLE sessions(
    name TEXT PRIMARY KEY NOT NULL,
    owner TEXT NOT NULL,                  -- who may open it, '' for anybody
    line_limit INTEGER NOT NULL,          -- longest line in bytes
    created INTEGER NOT NULL,             -- microseconds since 1970-01-01T00:00:00Z
    used INTEGER NOT NULL,
    peer TEXT NOT NULL,                   -- that opened it last
    epoch INTEGER NOT NULL,               -- how often it was opened
    position INTEGER NOT NULL,            -- lines stored
    crc INTEGER NOT NULL,                 -- of these lines, each with an LF
    note TEXT, noted INTEGER NOT NULL, noted_crc INTEGER NOT NULL
);
"""

_COLUMNS = (
    "name, owner, line_limit, created, used, peer, epoch, position, crc, note, noted, noted_crc"
)
_SAVE = (
    f"INSERT INTO sessions({_COLUMNS}) VALUES({', '.join('?' * len(fields(Row)))}) "
    "ON CONFLICT(name) DO UPDATE SET used=excluded.used, peer=excluded.peer, "
    "epoch=excluded.epoch, position=excluded.position, crc=excluded.crc, note=excluded.note, "
    "noted=excluded.noted, noted_crc=excluded.noted_crc"
)

# What lines change, in few statements as for the lines themselves (`_INSERT` in linetable.py). All
# rows are there, so that nothing is ever inserted; an UPDATE … FROM would need SQLite 3.33.
_MOST = 128
_MOVE = {
    rows: "INSERT INTO sessions(name, owner, line_limit, created, used, peer, epoch, position, "
    "crc, noted, noted_crc) SELECT column1, '', 0, 0, column2, '', 0, column3, column4, 0, 0 "
    f"FROM (VALUES {','.join(repeat('(?,?,?,?)', rows))}) WHERE true LIMIT ? "
    "ON CONFLICT(name) DO UPDATE SET used=excluded.used, position=excluded.position, "
    "crc=excluded.crc"
    for rows in (1 << power for power in range(_MOST.bit_length()))
}

log = Logger()


class SessionRows(NamedTuple):
    """All that a database holds of sessions."""

    identity: bytes
    floor: int
    rows: list[Row]


def make(database: sqlite3.Connection, identity: bytes, floor: int = 0) -> None:
    """Make the tables, in the transaction that is open."""
    for statement in SCHEMA.split(";")[:-1]:
        database.execute(statement)
    database.execute("INSERT INTO store VALUES(?, ?)", (identity, floor))
    database.execute(f"PRAGMA user_version={VERSION}")


def identified(database: sqlite3.Connection) -> bytes | None:
    """Return the identity of the database; None if the schema has none."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version < VERSION:
        return None
    (identity,) = database.execute("SELECT id FROM store").fetchone()
    return bytes(identity)


def kept(database: sqlite3.Connection) -> SessionRows | None:
    """Return what there is of sessions, by their names; None if the schema has none."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version < VERSION:
        return None
    identity, floor = database.execute("SELECT id, floor FROM store").fetchone()
    found = database.execute(f"SELECT {_COLUMNS} FROM sessions ORDER BY name")
    return SessionRows(identity, floor, [Row(*row) for row in found])


def replace(database: sqlite3.Connection, new: SessionRows) -> None:
    """Have `new` stand in the place of what there was, in the transaction that is open."""
    database.execute("DROP TABLE IF EXISTS sessions")
    database.execute("DROP TABLE IF EXISTS store")
    make(database, new.identity, new.floor)
    save(database, new.rows)


def save(database: sqlite3.Connection, changed: Iterable[Row]) -> None:
    """Write rows as a whole, in the transaction that is open."""
    database.executemany(_SAVE, map(FIELDS, changed))


def moveOn(database: sqlite3.Connection, changed: Sequence[Row]) -> None:
    """Write the new positions of rows that are there, in the transaction that is open."""
    for at in range(0, len(changed), _MOST):
        some = changed[at : at + _MOST]
        size = 1 << (len(some) - 1).bit_length()
        values: list[object] = []
        for row in some:
            values += (row.name, row.used, row.position, row.crc)
        values += repeat(None, 4 * (size - len(some)))
        database.execute(_MOVE[size], [*values, len(some)])


def remove(database: sqlite3.Connection, name: str) -> bool:
    """Remove a session, in a transaction of its own; return whether it was there."""
    database.execute("BEGIN IMMEDIATE")
    database.execute(
        "UPDATE store SET floor = max(floor, "
        "ifnull((SELECT epoch FROM sessions WHERE name = ?), 0))",
        (name,),
    )
    gone = database.execute("DELETE FROM sessions WHERE name = ?", (name,)).rowcount
    database.execute("COMMIT")
    return bool(gone)


class SessionTable:
    """The sessions of a database, `most` at most; those not used for `age` seconds are removed.

    0 is no limit. `clock` gives seconds since 1970, `passed` seconds from anywhere.
    """

    def __init__(
        self,
        most: int,
        age: float,
        expired: Callable[[int], object],
        clock: Callable[[], float],
        passed: Callable[[], float] = elapsed,
    ) -> None:
        self._most = most
        self._age = age
        self._expired = expired
        self._time = Plausible(clock, passed)
        self._passed = passed
        # A short age is seen to in good time.
        self._pause = min(MOST_LOOK, max(LEAST_LOOK, age / 10))
        self._next = 0.0  # when to look for those not used
        self._at = 0  # the row from where to look on, if that goes on
        self._count = self._floor = 0
        self._kept: dict[str, Row] = {}
        self._database: sqlite3.Connection
        self._ledger: Ledger

    def open(self, database: sqlite3.Connection, version: int) -> None:
        """Make the tables if they are not there."""
        self._database = database
        if version < VERSION:
            database.execute("BEGIN IMMEDIATE")
            make(database, os.urandom(16))
            database.execute("COMMIT")
        identity, self._floor = database.execute("SELECT id, floor FROM store").fetchone()
        (self._count,) = database.execute("SELECT count(*) FROM sessions").fetchone()
        (last,) = database.execute("SELECT max(used) FROM sessions").fetchone()
        if last is not None:
            self._time.begin(last / 1_000_000)
        self._ledger = Ledger(
            identity.hex(), self._load, lambda: self._count, self._most, lambda: self._floor
        )

    def decide(self, items: Sequence[Item]) -> Decided:
        """As the ledger does."""
        return self._ledger.decide(items)

    def committed(self, decided: Decided) -> None:
        """Note that the rows are durable."""
        self._kept.update(decided.rows)
        self._count += decided.made
        if len(self._kept) > KEPT:
            self._kept = dict(decided.rows)

    def failed(self) -> None:
        """Forget what is in memory: nobody knows whether it is in the database, too."""
        self._kept.clear()

    def expire(self) -> bool:
        """Remove some of the sessions that are not used any more; return whether to go on."""
        if not self._age or (not self._at and self._passed() < self._next):
            return False
        execute = self._database.execute
        before = int((self._time.now() - self._age) * 1_000_000)
        (last,) = execute(
            "SELECT max(rowid) FROM (SELECT rowid FROM sessions WHERE rowid > ? "
            "ORDER BY rowid LIMIT ?)",
            (self._at, STEP),
        ).fetchone()
        if last is None:
            self._at, self._next = 0, self._passed() + self._pause
            return False
        unused = "rowid > ? AND rowid <= ? AND used < ?", (self._at, last, before)
        gone, floor = execute(
            f"SELECT count(*), ifnull(max(epoch), 0) FROM sessions WHERE {unused[0]}", unused[1]
        ).fetchone()
        if gone:
            execute("BEGIN IMMEDIATE")
            execute(f"DELETE FROM sessions WHERE {unused[0]}", unused[1])
            execute("UPDATE store SET floor = max(floor, ?)", (floor,))
            execute("COMMIT")
            self._count -= gone
            self._floor = max(self._floor, floor)
            self._kept.clear()
            self._expired(gone)
            log.info(
                "{gone} {were} removed: unused for too long",
                gone=gone,
                were=plural(gone, "session was", "sessions were"),
            )
        self._at = last
        return True

    def _load(self, name: str) -> Row | None:
        row = self._kept.get(name)
        if row is None:
            found = self._database.execute(
                f"SELECT {_COLUMNS} FROM sessions WHERE name = ?", (name,)
            ).fetchone()
            if found is not None:
                row = self._kept[name] = Row(*found)
        return row
