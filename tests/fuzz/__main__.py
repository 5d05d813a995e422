"""Try inputs made of the kept ones: `python -m tests.fuzz telnet --seconds 60 --seed 1`."""

import sys
from pathlib import Path
from random import Random
from time import monotonic
from zlib import crc32

import click

from tests.fuzz.inputs import kept, mutated
from tests.fuzz.targets import TARGETS, Wrong, tried


@click.command()
@click.argument("target", type=click.Choice(sorted(TARGETS)))
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--seed", default=555, show_default=True, help="Of the random choices.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("."),
    show_default=True,
    help="Folder for an input that something is wrong with.",
)
def main(target: str, seconds: float, seed: int, keep: Path) -> None:
    """Feed TARGET random inputs until one of them goes wrong, and keep that one.

    Moved to tests/fuzz/seeds/TARGET, it is replayed in the suite from then on.
    """
    chance = Random(seed)
    seeds = kept(target)
    ends = monotonic() + seconds
    count = 0
    while monotonic() < ends:
        data = mutated(seeds, chance)
        count += 1
        try:
            tried(target, data)
        except Wrong as wrong:
            path = keep / f"{target}-{crc32(data):08x}"
            path.write_bytes(data)
            sys.exit(f"{target}: input {count}, kept as {path}: {wrong}")
    click.echo(f"{target}: {count} inputs, nothing wrong")


if __name__ == "__main__":
    main()
