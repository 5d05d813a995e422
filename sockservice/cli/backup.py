"""`sockservice backup`: copy a store while it is written to."""

import os
from contextlib import closing

import click

from sockservice.cli.storing import Steps, place, working
from sockservice.cli.text import printable, tell
from sockservice.store import copying
from sockservice.store.reader import Reader


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
@click.argument("store")
@click.argument("copy")
def backup(store: str, copy: str, since: int, append: bool) -> None:
    """Copy the lines in STORE, sqlite:PATH or just the path, to the new file COPY.

    The server may go on writing; what it stores from now on is not in the copy. COPY is a
    store itself. It is there when it is whole, has been checked and is on disk; if that is
    interrupted, the same command goes on where it was. The last id it holds is printed.

    Exit status: 0; 1 the store can't be read, or the copy can't be written or is not sound;
    2 usage.
    """
    path = place(store)
    if since and append:
        raise click.UsageError("--append knows itself since which id")
    if os.path.exists(copy) and os.path.exists(path) and os.path.samefile(path, copy):
        raise click.UsageError("COPY is STORE itself")
    steps = Steps("lines")
    with working(path, copy, steps), closing(Reader(path)) as reader:
        copied = copying.copy(reader, copy, since, append, steps.show)
    if copied.missing:
        tell(f"{copied.missing:,} lines between those of the copy and the rest are gone")
    lines = "1 line" if copied.lines == 1 else f"{copied.lines:,} lines"
    name = printable(os.fsencode(copy)).decode()
    click.echo(f"{name}: {lines}, last id {copied.last}")
