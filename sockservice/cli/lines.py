"""`sockservice lines`: print the lines in a store."""

import re
import select
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address
from json import JSONEncoder
from typing import Any

import click

from sockservice.cli.output import discard
from sockservice.cli.status import INTERRUPTED
from sockservice.cli.storing import named, place
from sockservice.cli.text import printable
from sockservice.store.reader import LINE, Query, Reader, Unreadable

#: Seconds between looks for new lines.
FOLLOW_INTERVAL = 0.2
#: Seconds that may pass between the receipt of a line and its being in the store.
UNDER_WAY = 2.0

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# The highest number that SQLite holds.
_HIGHEST = (1 << 63) - 1


class _Moment(click.ParamType):  # type: ignore[type-arg]
    """A time, as microseconds since 1970."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            if ago := re.fullmatch(r"([0-9]+)([smhd])", value):
                seconds = int(ago[1]) * _UNITS[ago[2]]
                return max(0, time.time_ns() // 1000 - seconds * 1_000_000)
            # astimezone takes a time without a zone for one of this machine's.
            moment = datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time like 2026-11-22T17:30, 2026-11-22T17:30:00Z or 10m")
        return (moment - _EPOCH) // timedelta(microseconds=1)


@click.command()
@click.option("--json", "asJson", is_flag=True, help="Print all columns, an object a line.")
@click.option("--since", type=_Moment(), help="Only lines received then or later.")
@click.option("--until", type=_Moment(), help="Only lines received before then.")
@click.option(
    "--peer",
    help="Only lines of this peer: an address, with or without its port, or the subject of "
    "its certificate.",
)
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    metavar="ID",
    help="Only lines with a higher id.",
)
@click.option(
    "--limit", type=click.IntRange(min=0), metavar="NUMBER", help="Print at most so many lines."
)
@click.option(
    "--follow",
    is_flag=True,
    help="Go on printing lines as they are stored; with --until, until then.",
)
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
    escaped. The right to read the store is enough, also while a server writes to it.

    TIME is 2026-11-22 or 2026-11-22T17:30 (of this machine's zone),
    2026-11-22T17:30:00Z or 2026-11-22T17:30:00+01:00, or how long ago: 90s, 10m, 2h, 7d.

    Exit status: 0; 1 the store can't be read, or nothing can be printed; 2 usage.
    """
    path = place(store)
    if sys.stdout is None:
        raise click.ClickException("standard output is closed")
    query = wanted(since, until, peer)
    write = _plain
    if asJson:
        query = query._replace(columns=f"id, received, peer, listener, {LINE}")
        write = objects
    elif sys.stdout.isatty():
        write = _escaped
    try:
        wait = _waiting(sys.stdout.fileno(), until) if follow else None
        with closing(Reader(path)) as reader:
            for page in pages(reader, query, min(after, _HIGHEST), limit, wait):
                sys.stdout.buffer.write(write(page))
                sys.stdout.buffer.flush()
    except Unreadable as problem:
        raise click.ClickException(named(path, problem)) from problem
    except BrokenPipeError:
        # The reader has closed the pipe.
        discard()
    except OSError as problem:
        discard()
        raise click.ClickException(f"standard output: {problem.strerror}") from problem
    except KeyboardInterrupt:
        discard()
        raise SystemExit(INTERRUPTED) from None


def wanted(since: int | None, until: int | None, peer: str | None) -> Query:
    """Return the query for the lines that the options select."""
    condition = ""
    values: list[int | str] = []
    if since is not None:
        condition += " AND received >= ?"
        values.append(since)
    if until is not None:
        condition += " AND received < ?"
        values.append(until)
    if peer is not None:
        with suppress(ValueError):
            address = IPv6Address(peer)
            peer = str(address.ipv4_mapped or f"[{address}]")
        # As the log writes it: `ADDRESS:PORT (SUBJECT)`, or `unix:pid=7,uid=0`.
        condition += (
            " AND (peer = ? OR substr(peer, 1, ?) IN (?, ?, ?)"
            " OR substr(peer, instr(peer, ' (')) = ?)"
        )
        values += peer, len(peer) + 1, f"{peer}:", f"{peer},", f"{peer} ", f" ({peer})"
    return Query(condition=condition, values=tuple(values))


def pages(
    reader: Reader,
    query: Query,
    after: int,
    limit: int | None,
    wait: Callable[[], bool] | None = None,
) -> Iterator[list[Any]]:
    """Yield the lines that `query` selects, a page at a time.

    At the end `wait`, if given, is called: it waits, and returns whether to go on
    waiting after the next look.
    """
    ending = wait is None
    while limit is None or limit > 0:
        rows, last = reader.page(query, after, limit)
        if rows:
            yield rows
            if limit is not None:
                limit -= len(rows)
        elif last == after:
            if ending or wait is None:
                return
            ending = not wait()
        after = last


def _waiting(output: int, until: int | None) -> Callable[[], bool]:
    """Return what waits for more lines, while they can be printed and until `until`."""
    poll = select.poll()
    # No events other than that the reader has gone.
    poll.register(output, 0)

    def wait() -> bool:
        if poll.poll(FOLLOW_INTERVAL * 1000):
            raise BrokenPipeError
        return until is None or time.time_ns() // 1000 < until + UNDER_WAY * 1_000_000

    return wait


def _plain(rows: list[Any]) -> bytes:
    return b"\n".join([row[1] for row in rows]) + b"\n"


def _escaped(rows: list[Any]) -> bytes:
    return b"".join([printable(row[1]) + b"\n" for row in rows])


def objects(rows: list[Any]) -> bytes:
    """Return rows of all columns as JSON objects, one per line."""
    encode = JSONEncoder().encode
    written = []
    # Lines that arrived together have most columns in common; these are encoded once.
    common: tuple[int, str, str] | None = None
    second = -1
    day = columns = ""
    for number, received, peer, listener, line in rows:
        if (received, peer, listener) != common:
            common = received, peer, listener
            # Not through a float, which does not hold the microseconds of today.
            seconds, micros = divmod(received, 1_000_000)
            if seconds != second:
                second = seconds
                day = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
            columns = (
                f'"received": "{day}.{micros:06}Z", "peer": {encode(peer)}, '
                f'"listener": {encode(listener)}'
            )
        try:
            kept = f'"line": {encode(line.decode())}'
        except UnicodeDecodeError:
            kept = f'"line_base64": "{b64encode(line).decode()}"'
        written.append(f'{{"id": {number}, {columns}, {kept}}}\n')
    return "".join(written).encode()
