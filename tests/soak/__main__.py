"""Run many rounds: `python -m tests.soak crash --rounds 200`, or `workers`, or `power`."""

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from time import monotonic

import click

from tests.conftest import Children
from tests.soak import rounds as one
from tests.soak.disks import Disk


@click.group()
def main() -> None:
    """Break the server under load, many times, and count what it had promised."""


def repeated(
    rounds: int, seed: int, minutes: float, do: Callable[[Random], tuple[int, int]]
) -> None:
    """Do a round again and again, and say what came of it."""
    chance = Random(seed)
    ends = monotonic() + minutes * 60
    acknowledged = stored = 0
    for number in range(1, rounds + 1):
        oks, kept = do(chance)
        acknowledged += oks
        stored += kept
        click.echo(f"{number}: {oks} acknowledged, {kept} stored, none lost, none torn")
        if monotonic() > ends:
            click.echo(f"{minutes:g} minutes are over")
            break
    click.echo(f"in all: {acknowledged} acknowledged, {stored} stored, none lost, none torn")


SEED = click.option("--seed", default=555, show_default=True, help="Of the random moments.")
MINUTES = click.option("--minutes", default=30.0, show_default=True, help="No round begins later.")


@main.command()
@click.option("--rounds", default=200, show_default=True)
@SEED
@MINUTES
def crash(rounds: int, seed: int, minutes: float) -> None:
    """Kill -9 at random moments, and start again on the same file."""
    with tempfile.TemporaryDirectory() as folder:

        def do(chance: Random) -> tuple[int, int]:
            with ExitStack() as stack:
                path = Path(folder)
                return one.crash(Children(path, stack), path / "lines.db", chance)

        repeated(rounds, seed, minutes, do)


@main.command()
@click.option("--rounds", default=100, show_default=True)
@SEED
@MINUTES
def workers(rounds: int, seed: int, minutes: float) -> None:
    """Kill -9 of one worker of two at random moments, while the others go on."""
    with tempfile.TemporaryDirectory() as folder:

        def do(chance: Random) -> tuple[int, int]:
            with ExitStack() as stack:
                path = Path(folder)
                return one.workers(Children(path, stack), path / "lines.db", chance)

        repeated(rounds, seed, minutes, do)


@main.command()
@click.option("--rounds", default=20, show_default=True)
@SEED
@MINUTES
def power(rounds: int, seed: int, minutes: float) -> None:
    """Lose what is not synced at random moments; needs root and a loop device."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        disk = Disk(path)
        if problem := disk.make():
            sys.exit(f"no disk to cut the power of: {problem}")

        def do(chance: Random) -> tuple[int, int]:
            with ExitStack() as stack:
                return one.power(Children(path, stack), disk, chance)

        try:
            repeated(rounds, seed, minutes, do)
        finally:
            disk.unmount()


if __name__ == "__main__":
    main()
