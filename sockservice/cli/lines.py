"""`sockservice lines`: what a store has kept."""

import base64
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

import click

from sockservice.cli.terminal import printable

#: Lines read in one short transaction, so that the server's log can be checkpointed.
PAGE = 1000
#: Seconds between looks for new lines.
FOLLOW_INTERVAL = 0.2

Row = tuple[int, int, str, str, bytes]  # id, received, peer, listener, line


class _Moment(click.ParamType):  # type: ignore[type-arg]
    """A time, as microseconds since 1970."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time like 2026-11-22T17:30 or 2026-11-22T17:30:00Z")
        # astimezone takes a time without a zone for one of this machine's.
        return int(moment.astimezone(UTC).timestamp() * 1_000_000)


@click.command()
@click.option("--json", "asJson", is_flag=True, help="Print all columns, an object a line.")
@click.option("--since", type=_Moment(), help="Only lines received then or later.")
@click.option("--until", type=_Moment(), help="Only lines received before then.")
@click.option("--peer", help="Only lines of this peer: an address, with or without its port.")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only ids greater than this.")
@click.option("--limit", type=click.IntRange(min=0), help="Print at most so many lines.")
@click.option("--follow", is_flag=True, help="Go on printing lines as they are stored.")
@click.argument("store")
def lines(
    store: str,
    asJson: bool,
    since: int | None,
    until: int | None,
    peer: str | None,
    after: int,
    limit: int | None,
    follow: bool,
) -> None:
    """Print the lines in STORE, sqlite:PATH or just the path, in the order they came.

    Lines are printed as the bytes they are; on a terminal what could command it is
    escaped. Exit status: 0; 1 the store can't be read; 2 usage.
    """
    path = store.removeprefix("sqlite:")
    wanted = _Wanted(since, until, peer)
    output = sys.stdout.buffer
    terminal = sys.stdout.isatty()
    try:
        database = _opened(path)
        if since is not None:
            after = max(after, _lastBefore(database, since))
        for page in _pages(database, wanted, after, limit, follow):
            if asJson:
                output.write(b"".join(map(_asJson, page)))
            elif terminal:
                output.write(b"".join(printable(row[4]) + b"\n" for row in page))
            else:
                output.write(b"".join(row[4] + b"\n" for row in page))
            output.flush()
    except sqlite3.Error as problem:
        raise click.ClickException(f"{path}: {problem}") from problem
    except BrokenPipeError:
        # Whoever read this has enough; nothing is left to fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class _Wanted:
    """Which lines are asked for, as a condition of SQL."""

    def __init__(self, since: int | None, until: int | None, peer: str | None) -> None:
        self.condition = ""
        self.values: list[int | str] = []
        if since is not None:
            self._add("received >= ?", since)
        if until is not None:
            self._add("received < ?", until)
        if peer is not None:
            # As the log writes it: IPv6 in brackets, a certificate's subject behind.
            if peer.count(":") > 1 and "[" not in peer:
                peer = f"[{peer}]"
            self._add(
                "(peer = ? OR substr(peer, 1, length(?) + 1) IN (? || ':', ? || ' '))",
                *(peer, peer, peer, peer),
            )

    def _add(self, condition: str, *values: int | str) -> None:
        self.condition += f" AND {condition}"
        self.values += values


def _opened(path: str) -> sqlite3.Connection:
    if not os.path.exists(path):
        raise click.ClickException(f"{path}: there is no such store")
    database = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version != 1:
        raise click.ClickException(f"{path}: no store that this program knows")
    return database


def _lastBefore(database: sqlite3.Connection, moment: int) -> int:
    """Give an id before which all lines were received before `moment`, by bisection.

    An index on the time would cost each commit more than this costs a reader.
    """
    (low,) = database.execute("SELECT min(id) FROM lines").fetchone()
    (high,) = database.execute("SELECT max(id) FROM lines").fetchone()
    if low is None:
        return 0
    low -= 1
    while high - low > 1:
        middle = (low + high) // 2
        (received,) = database.execute(
            "SELECT received FROM lines WHERE id >= ? ORDER BY id LIMIT 1", (middle,)
        ).fetchone()
        if received < moment:
            low = middle
        else:
            high = middle
    return int(low)


def _pages(
    database: sqlite3.Connection, wanted: _Wanted, after: int, limit: int | None, follow: bool
) -> Iterator[list[Row]]:
    """Read page after page; when following, wait for more at the end."""
    select = (
        "SELECT id, received, peer, listener, line FROM lines "
        f"WHERE id > ?{wanted.condition} ORDER BY id LIMIT ?"
    )
    while limit is None or limit > 0:
        most = PAGE if limit is None else min(limit, PAGE)
        page = database.execute(select, (after, *wanted.values, most)).fetchall()
        if page:
            yield page
            after = page[-1][0]
            if limit is not None:
                limit -= len(page)
        elif follow:
            time.sleep(FOLLOW_INTERVAL)
        else:
            return


def _asJson(row: Row) -> bytes:
    number, received, peer, listener, line = row
    # Not through a float, which does not hold the microseconds of today.
    seconds, micros = divmod(received, 1_000_000)
    moment = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06}Z"
    kept = {"id": number, "received": moment, "peer": peer, "listener": listener}
    try:
        kept["line"] = line.decode()
    except UnicodeDecodeError:
        kept["line_base64"] = base64.b64encode(line).decode()
    return json.dumps(kept).encode() + b"\n"
