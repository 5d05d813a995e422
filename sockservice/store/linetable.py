"""The table of lines in the SQLite engine: schema version 1, and what inserts into it."""

import sqlite3
from collections.abc import Iterable
from itertools import chain, repeat

from sockservice.store.engine import Batch

#: The schema's version, without sessions.
SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE lines(
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- only grows, and is never used twice
    received INTEGER NOT NULL,            -- microseconds since 1970-01-01T00:00:00Z
    peer TEXT NOT NULL,
    listener TEXT NOT NULL,
    line BLOB NOT NULL                    -- the exact bytes, without line ending
);
CREATE VIEW readable AS SELECT
    id,
    strftime('%Y-%m-%dT%H:%M:%f', received / 1000000.0, 'unixepoch') || 'Z' AS received,
    peer, listener, CAST(line AS TEXT) AS line
FROM lines;
"""

# Lines in one statement. Executing a statement for each line would release and acquire
# the interpreter's lock each time, which halves the speed. Few sizes, so that each is
# prepared once; surplus rows are cut off by LIMIT.
_MOST = 4096
_INSERT = {
    rows: "INSERT INTO lines(received, peer, listener, line) SELECT * FROM (VALUES "
    + ",".join(repeat("(?,?,?,?)", rows))
    + ") LIMIT ?"
    for rows in (1 << power for power in range(_MOST.bit_length()))
}


def isOurs(database: sqlite3.Connection) -> bool:
    """Whether the table of that name has these columns."""
    columns = database.execute("SELECT name FROM pragma_table_info('lines')")
    return {"id", "received", "peer", "listener", "line"} <= {name for (name,) in columns}


def rows(batches: Iterable[Batch]) -> list[object]:
    """Return the values of the rows of all lines, four for each."""
    values: list[object] = []
    for received, peer, listener, lines in batches:
        if len(lines) == 1:
            # Of those who wait for each reply: a quarter of the time.
            values += (received, peer, listener, lines[0])
        else:
            same = repeat(received), repeat(peer), repeat(listener)
            values += chain.from_iterable(zip(*same, lines, strict=False))
    return values


def insert(database: sqlite3.Connection, values: list[object]) -> None:
    """Insert the rows that `rows` has made, in one transaction, or in the one that is open."""
    execute = database.execute
    # A statement is a transaction of its own.
    alone = len(values) <= _MOST * 4 or database.in_transaction
    if not alone:
        execute("BEGIN IMMEDIATE")
    for at in range(0, len(values), _MOST * 4):
        some = values[at : at + _MOST * 4]
        count = len(some) // 4
        size = 1 << (count - 1).bit_length()
        some += repeat(None, (size - count) * 4)
        some.append(count)
        execute(_INSERT[size], some)
    if not alone:
        execute("COMMIT")


def last(database: sqlite3.Connection) -> int:
    """Return the highest id that was ever used; 0 if none was."""
    (found,) = database.execute(
        "SELECT max(seq) FROM sqlite_sequence WHERE name = 'lines'"
    ).fetchone()
    return found or 0
