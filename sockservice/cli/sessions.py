"""`sockservice sessions`: the sessions that a store holds."""

import json
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import click

from sockservice.cli.columns import span
from sockservice.cli.output import Output
from sockservice.cli.status import DONE, NOT_ALL, end, give
from sockservice.cli.storing import Steps, inNats, named, place, shown, stream, working
from sockservice.cli.text import printable
from sockservice.store.forgetting import forget, renew
from sockservice.store.nats.place import parsed
from sockservice.store.reader import Reader
from sockservice.store.sessions import Row
from sockservice.store.sessiontable import SessionRows
from sockservice.wire.plurals import plural


@click.command()
@click.option("--json", "asJson", is_flag=True, help="Print an object a session, and a sum.")
@click.option(
    "--forget",
    "name",
    metavar="NAME",
    help="Forget this session, not its lines. No server may be using the store, unless that is "
    "in NATS.",
)
@click.option(
    "--new-identity",
    "anew",
    is_flag=True,
    help="Give a copy of a store an identity of its own, so that senders that know the original "
    "notice. No server may be using it.",
)
@click.argument("store")
def sessions(store: str, asJson: bool, name: str | None, anew: bool) -> None:
    """Print the sessions in STORE: position, when used, name.

    STORE is sqlite:PATH, just the path, or nats://HOST[:PORT][,HOST...]/STREAM.

    The right to read the store is enough, also while a server writes to it.

    Exit status: 0; 1 the store can't be read, or there is no such session; 2 usage; 130
    interrupted, 143 terminated, 129 hung up.
    """
    if inNats(store):
        _inStream(store, asJson, name, anew=anew)
    path = place(store)
    if name is not None and anew:
        raise click.UsageError("--forget and --new-identity are two things")
    sum: dict[str, Any] = {"store": shown(path)}
    with working(path, path, Steps("reading")):
        with closing(Reader(path)) as reader:
            found = reader.sessions()
        if found is None and (anew or name is not None):
            end(NOT_ALL, named(path, "it has never held sessions"), sum)
        if name is not None:
            if not forget(path, name):
                end(NOT_ALL, named(path, f"there is no session {name}"), sum)
            end(DONE, "", sum | {"forgotten": name})
        if anew:
            sum["identity"] = renew(path)
            if not asJson:
                give(sum["identity"])
            end(DONE, "", sum)
    _tell(found, sum, asJson)


def _inStream(store: str, asJson: bool, name: str | None, *, anew: bool) -> None:
    if anew:
        raise click.UsageError(
            "--new-identity is not for a store in NATS: a stream that is made anew has an identity "
            "of its own"
        )
    path, opening = stream(store)
    sum: dict[str, Any] = {"store": path}
    if name is not None:
        from sockservice.store.nats.forgetting import forget as forgetInStream

        with working(path, path, Steps("waiting")):
            there = forgetInStream(parsed(store), name)
        if not there:
            end(NOT_ALL, named(path, f"there is no session {name}"), sum)
        end(DONE, "", sum | {"forgotten": name})
    with working(path, path, Steps("reading")), closing(opening()) as reader:
        found = reader.sessions()
    _tell(found, sum, asJson)


def _tell(found: SessionRows | None, sum: dict[str, Any], asJson: bool) -> None:
    rows = found.rows if found is not None else []
    output = Output()
    for row in rows:
        if asJson:
            output.write(_object(row))
            continue
        said = _said(row)
        if output.terminal and span(said) > output.columns:
            # Side by side no more.
            said = said.strip()
        output.fold(said)
    if output.broken:
        end(NOT_ALL, output.broken, sum)
    end(DONE, "", sum | {"sessions": len(rows), "identity": found and found.identity.hex()})


def _said(row: Row) -> str:
    owner = f"  of {printable(row.owner.encode()).decode()}" if row.owner else ""
    lines = plural(row.position, "line")
    return f"{row.position:>12,} {lines:5}  {_time(row.used)[:19]}Z  {row.name}{owner}"


def _object(row: Row) -> str:
    return json.dumps(
        {
            "session": row.name,
            "position": row.position,
            "crc": f"{row.crc:08x}",
            "epoch": row.epoch,
            "limit": row.limit,
            "owner": row.owner,
            "peer": row.peer,
            "created": _time(row.created),
            "used": _time(row.used),
            "note": row.note,
            "noted": row.noted if row.note is not None else None,
        }
    )


def _time(micros: int) -> str:
    """Return a time in microseconds since 1970 as `lines` writes it."""
    seconds, rest = divmod(micros, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:06}Z"
