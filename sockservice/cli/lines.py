"""`sockservice lines`: print the lines in a store."""

import re
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv6Address
from typing import Any

import click

from sockservice.cli.output import Bulk, discard
from sockservice.cli.progress import Bar
from sockservice.cli.signals import quitting
from sockservice.cli.status import DONE, NOT_ALL, end, interrupted, leave
from sockservice.cli.storing import inNats, named, place, stream
from sockservice.cli.syslog import messageObjects, messages, selection
from sockservice.cli.text import printable
from sockservice.store.objects import COLUMNS, objects
from sockservice.store.reader import Query, Reader, Unreadable
from sockservice.wire.plurals import grouped
from sockservice.wire.syslogmessage import SEVERITIES

#: Seconds between looks for new lines.
FOLLOW_INTERVAL = 0.2
#: Seconds that may pass between the receipt of a line and its being in the store.
UNDER_WAY = 2.0
#: Seconds for which a reader that is slow may keep an interrupted command from its end.
_SETTLING = 1.0

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
@click.option("--json", "asJson", is_flag=True, help="Print an object a line, and a sum.")
@click.option("--since", type=_Moment(), help="Only lines received then or later.")
@click.option("--until", type=_Moment(), help="Only lines received before then.")
@click.option(
    "--peer",
    help="Only lines of this peer: an address, with or without its port, or the subject of "
    "its certificate.",
)
@click.option("--session", metavar="NAME", help="Only lines of this session.")
@click.option(
    "--syslog",
    is_flag=True,
    help="Take lines for syslog messages: say what their headers mean. A line that has none "
    "stays as it is.",
)
@click.option(
    "--severity",
    type=click.Choice(SEVERITIES),
    help="Only syslog messages that are so grave or graver.",
)
@click.option("--host", metavar="NAME", help="Only syslog messages that name this host.")
@click.option("--app", metavar="NAME", help="Only syslog messages that name this program.")
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
    session: str | None,
    syslog: bool,
    severity: str | None,
    host: str | None,
    app: str | None,
    after: int,
    limit: int | None,
    follow: bool,
) -> None:
    """Print the lines in STORE, in the order they came.

    STORE is sqlite:PATH, just the path, or nats://HOST[:PORT][,HOST...]/STREAM.

    Lines are printed as the bytes they are; on a terminal what could command it is
    escaped. The right to read the store is enough, also while a server writes to it.

    With --syslog lines are printed as TIME HOST PROGRAM[PROCESS] FACILITY.SEVERITY: TEXT, and
    objects have these in `syslog`.

    TIME is 2026-11-22 or 2026-11-22T17:30 (of this machine's zone),
    2026-11-22T17:30:00Z or 2026-11-22T17:30:00+01:00, or how long ago: 90s, 10m, 2h, 7d.

    Exit status: 0; 1 the store can't be read, or nothing can be printed; 2 usage; 130
    interrupted, 143 terminated, 129 hung up. It is 0 when nobody reads the output any more.
    """
    opening: Callable[[], Any]
    if inNats(store):
        path, opening = stream(store, since)
    else:
        path, opening = place(store), lambda: Reader(path)
    if sys.stdout is None:
        end(NOT_ALL, "Error: standard output is closed")
    query = wanted(since, until, peer, session)
    write: Callable[[list[Any]], bytes] = _plain
    if asJson:
        query = query._replace(columns=COLUMNS)
        write = _objects
    elif sys.stdout.isatty():
        write = _escaped
    if syslog:
        write = messageObjects if asJson else partial(messages, write)
    chosen = selection(severity, host, app)
    sum: dict[str, int | None] = {"lines": 0, "last": None}
    page: list[Any] = []  # that is being written
    before = 0  # lines before it
    bulk = Bulk()
    status, why = DONE, ""
    try:
        wait = _waiting(sys.stdout.fileno(), until) if follow else None
        with bulk.interruptible(), quitting(lambda: _said(sum)), closing(opening()) as reader:
            for page in pages(reader, query, min(after, _HIGHEST), limit, wait, chosen):
                before = bulk.lines
                bulk.write(write(page))
                sum = _more(sum, page)
                page = []
    except Unreadable as problem:
        status, why = NOT_ALL, f"Error: {named(path, problem)}"
    except BrokenPipeError:
        # The reader has closed the pipe.
        discard()
    except OSError as problem:
        discard()
        status, why = NOT_ALL, f"Error: standard output: {problem.strerror}"
    except KeyboardInterrupt as problem:
        status, why = interrupted(problem)
        Bar().interrupted()
        # The object goes behind a whole line, if anybody reads it.
        if not (asJson and bulk.finish(_SETTLING)):
            discard()
        sum = _more(sum, page[: bulk.lines - before])
        if not asJson:
            leave(status, f"{_said(sum)}: {why}")
    end(status, why, sum, quiet=True)


def _more(sum: dict[str, int | None], page: list[Any]) -> dict[str, int | None]:
    """Return the sum when the rows of `page` have been written, too."""
    if not page:
        return sum
    return {"lines": (sum["lines"] or 0) + len(page), "last": page[-1][0]}


def _said(sum: dict[str, int | None]) -> str:
    lines = sum["lines"] or 0
    last = f", last id {sum['last']}" if lines else ""
    return f"{grouped(lines, 'line')}{last}"


def wanted(
    since: int | None, until: int | None, peer: str | None, session: str | None = None
) -> Query:
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
    if session is not None:
        # It stands behind the peer, and neither has such a word.
        condition += " AND substr(peer, -?) = ?"
        behind = f" session {session}"
        values += len(behind), behind
    return Query(condition=condition, values=tuple(values))


def pages(
    reader: Any,
    query: Query,
    after: int,
    limit: int | None,
    wait: Callable[[], bool] | None = None,
    chosen: Callable[[bytes], bool] | None = None,
) -> Iterator[list[Any]]:
    """Yield the lines that `query` and, if given, `chosen` select, a page at a time.

    At the end `wait`, if given, is called: it waits, and returns whether to go on
    waiting after the next look.
    """
    ending = wait is None
    while limit is None or limit > 0:
        rows, last = reader.page(query, after, limit if chosen is None else None)
        if chosen is not None:
            rows = [row for row in rows if chosen(row[-1])][:limit]
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


def _objects(rows: list[Any]) -> bytes:
    return ("\n".join(objects(rows)) + "\n").encode()
