"""`sockservice verify`: look through a store for damage."""

from contextlib import closing

import click

from sockservice.cli.status import NOT_ALL
from sockservice.cli.storing import Steps, named, place, working
from sockservice.store.reader import Reader


@click.command()
@click.argument("store")
def verify(store: str) -> None:
    """Look through all of STORE, sqlite:PATH or just the path, for damage.

    The right to read the store is enough, also while a server writes to it; the server's
    log grows meanwhile.

    Exit status: 0 it is sound; 1 it is damaged, or can't be read; 2 usage.
    """
    path = place(store)
    steps = Steps("checking")
    with working(path, path, steps), closing(Reader(path)) as reader:
        found = reader.check(steps.show)
        if not found:
            first, last = reader.ids()
    if found:
        for fault in found:
            click.echo(named(path, fault.replace("\n", "; ")))
        raise SystemExit(NOT_ALL)
    click.echo(named(path, f"sound, ids {first} to {last}" if first else "sound, no lines"))
