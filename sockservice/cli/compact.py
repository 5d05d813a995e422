"""`sockservice compact`: give back the space that removed lines have left."""

import click

from sockservice.cli.status import DONE, end, give
from sockservice.cli.storing import Steps, inJson, named, place, shown, working
from sockservice.store.compacting import compact as compacted
from sockservice.wire.plurals import grouped


@click.command()
@inJson
@click.argument("store")
def compact(store: str, asJson: bool) -> None:
    """Make the file of STORE, sqlite:PATH or just the path, as small as its lines permit.

    No server may be using it. Killing this leaves the file as it was. It takes as much free
    space as the lines do.

    Exit status: 0; 1 the file is as it was; 2 usage; 130 interrupted, 143
    terminated, 129 hung up.
    """
    path = place(store, "each node compacts its own files")
    steps = Steps("compacting")
    with working(path, path, steps):
        before, after = compacted(path, steps.show)
    freed = max(0, before - after)
    if not asJson:
        give(named(path, f"{grouped(freed, 'byte')} freed, {after:,} left"))
    end(DONE, "", {"store": shown(path), "freed": freed, "left": after})
