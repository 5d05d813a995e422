"""`sockservice compact`: give back the space that removed lines have left."""

import click

from sockservice.cli.storing import Steps, named, place, working
from sockservice.store.compacting import compact as compacted


@click.command()
@click.argument("store")
def compact(store: str) -> None:
    """Make the file of STORE, sqlite:PATH or just the path, as small as its lines permit.

    No server may be using it. Killing this leaves the file as it was. It takes as much free
    space as the lines do.

    Exit status: 0; 1 the file is as it was; 2 usage.
    """
    path = place(store)
    steps = Steps("compacting")
    with working(path, path, steps):
        before, after = compacted(path, steps.show)
    freed = max(0, before - after)
    click.echo(named(path, f"{freed:,} bytes freed, {after:,} left"))
