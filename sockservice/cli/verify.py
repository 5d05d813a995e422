"""`sockservice verify`: look through a store for damage."""

from contextlib import closing

import click

from sockservice.cli.status import DONE, NOT_ALL, end, give
from sockservice.cli.storing import Steps, inJson, named, place, shown, working
from sockservice.store.reader import Reader
from sockservice.wire.plurals import grouped, ranged


@click.command()
@inJson
@click.argument("store")
def verify(store: str, asJson: bool) -> None:
    """Look through all of STORE, sqlite:PATH or just the path, for damage.

    The right to read the store is enough, also while a server writes to it; the server's
    log grows meanwhile.

    Exit status: 0 it is sound; 1 it is damaged, or can't be read; 2 usage; 130
    interrupted, 143 terminated, 129 hung up.
    """
    path = place(store, "each node checks its own files when it starts")
    steps = Steps("checking")
    with working(path, path, steps), closing(Reader(path)) as reader:
        found = reader.check(steps.show)
        if not found:
            first, last = reader.ids()
            sum = {"store": shown(path), "faults": [], "first": first, "last": last}
    if found:
        faults = [fault.replace("\n", "; ") for fault in found]
        if not asJson:
            for fault in faults:
                give(named(path, fault))
        why = named(path, grouped(len(faults), "fault"))
        end(NOT_ALL, why, {"store": shown(path), "faults": faults, "first": None, "last": None})
    if not asJson:
        give(named(path, f"sound, {ranged(first, last, 'id')}" if first else "sound, no lines"))
    end(DONE, "", sum)
