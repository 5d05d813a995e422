"""`sockservice backup`: copy a store while it is written to."""

import os
from collections.abc import Callable
from contextlib import closing
from typing import Any

import click

from sockservice.cli.status import DONE, end, give
from sockservice.cli.storing import Steps, inJson, inNats, named, place, shown, stream, working
from sockservice.cli.text import tell
from sockservice.store import copying
from sockservice.store.reader import Reader
from sockservice.wire.plurals import grouped, plural


@click.command()
@click.option(
    "--since-id",
    "since",
    type=click.IntRange(0, (1 << 63) - 1),
    default=0,
    metavar="ID",
    help="Copy only lines with a higher id: an increment.",
)
@click.option("--append", is_flag=True, help="Append to COPY, which is there, what it lacks.")
@inJson
@click.argument("store")
@click.argument("copy")
def backup(store: str, copy: str, since: int, append: bool, asJson: bool) -> None:
    """Copy the lines in STORE to the new file COPY.

    STORE is sqlite:PATH, just the path, or nats://HOST[:PORT][,HOST...]/STREAM.

    The server may go on writing; what it stores from now on is not in the copy. COPY is a
    store itself, in SQLite. It is there when it is whole, has been checked and is on disk; if
    that is interrupted, the same command goes on where it was. The last id it holds is printed.

    Exit status: 0; 1 the store can't be read, or the copy can't be written or is not sound;
    2 usage; 130 interrupted, 143 terminated, 129 hung up.
    """
    opening: Callable[[], Any]
    if inNats(store):
        path, opening = stream(store)
    else:
        path, opening = place(store), lambda: Reader(path)
    if since and append:
        raise click.UsageError("--append knows itself since which id")
    if os.path.exists(copy) and os.path.exists(path) and os.path.samefile(path, copy):
        raise click.UsageError("COPY is STORE itself")
    steps = Steps("lines")
    with working(path, copy, steps), closing(opening()) as reader:
        copied = copying.copy(reader, copy, since, append, steps.show)
    if copied.missing:
        gone, are = plural(copied.missing, "line"), plural(copied.missing, "is", "are")
        # In a stream ids are not in a row.
        count = "" if inNats(store) else f"{copied.missing:,} "
        tell(f"{count}{gone} between those of the copy and the rest {are} gone")
    if not asJson:
        lines = grouped(copied.lines, "line")
        give(named(copy, f"{lines}, last id {copied.last}"))
    sum = {"store": shown(path), "copy": shown(copy), "lines": copied.lines, "last": copied.last}
    end(DONE, "", sum | {"missing": copied.missing})
