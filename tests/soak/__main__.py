"""Run a scenario: `python -m tests.soak crash --rounds 200`, `… storm --seconds 30`, `… all`."""

import os
import resource
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from time import monotonic

import click

from tests.conftest import Children
from tests.soak import floods
from tests.soak import rounds as one
from tests.soak.disks import Disk


@click.group()
def main() -> None:
    """Break the server under load, many times, and count what it had promised; or flood it,
    and see what that costs a bystander and the server.

    A flood fails when the bystander's median round trip takes more than 3 times its quiet
    value, memory grows beyond the bound stated with the flood, anything is not released
    afterwards, the server logs a failure, or replies are miscounted. Medians are taken of
    half seconds, and of these the median; if that is too slow, all is measured again, up to
    --tries in all. Only the loopback is used.
    """


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


def onOneFile(
    rounds: int,
    seed: int,
    minutes: float,
    do: Callable[[Children, Path, Random], tuple[int, int]],
) -> None:
    """Do a round again and again, with servers that follow one another on the same file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)

        def once(chance: Random) -> tuple[int, int]:
            with ExitStack() as stack:
                return do(Children(path, stack), path / "lines.db", chance)

        repeated(rounds, seed, minutes, once)


SEED = click.option("--seed", default=555, show_default=True, help="Of the random moments.")
MINUTES = click.option("--minutes", default=30.0, show_default=True, help="No round begins later.")


@main.command()
@click.option("--rounds", default=200, show_default=True)
@SEED
@MINUTES
def crash(rounds: int, seed: int, minutes: float) -> None:
    """Kill -9 at random moments, and start again on the same file."""
    onOneFile(rounds, seed, minutes, one.crash)


@main.command()
@click.option("--rounds", default=100, show_default=True)
@SEED
@MINUTES
def workers(rounds: int, seed: int, minutes: float) -> None:
    """Kill -9 of one worker of two at random moments, while the others go on."""
    onOneFile(rounds, seed, minutes, one.workers)


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


TRIES = click.option(
    "--tries", default=3, show_default=True, help="Measurements, if a round trip is too slow."
)


def seconds(default: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give the option for how long a load lasts."""
    return click.option("--seconds", default=default, show_default=True, help="Of the load.")


def peers(default: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give the option for how many peers a load has."""
    return click.option("--peers", default=default, show_default=True)


RATE = click.option("--rate", default=0, show_default=True, help="A second; 0: as it can.")


def flooded(tries: int, *each: floods.Flood) -> None:
    """Measure floods; end with status 1 if one went wrong."""
    # A descriptor for each peer, here and in the server.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    results = [floods.tried(flood, tries, click.echo) for flood in each]
    sys.exit(0 if all(results) else 1)


@main.command()
@peers(1000)
@seconds(15)
@TRIES
def unread(peers: int, seconds: float, tries: int) -> None:
    """Peers that send lines and never read."""
    flooded(tries, floods.unread(peers, seconds))


@main.command()
@peers(200)
@seconds(10)
@TRIES
def slow(peers: int, seconds: float, tries: int) -> None:
    """Peers that send a byte a second."""
    flooded(tries, floods.slow(peers, seconds))


@main.command()
@peers(10_000)
@seconds(10)
@TRIES
def idle(peers: int, seconds: float, tries: int) -> None:
    """Connections that say nothing, until they are told to make room."""
    flooded(tries, floods.idle(peers, seconds))


@main.command()
@RATE
@seconds(10)
@TRIES
def storm(rate: int, seconds: float, tries: int) -> None:
    """Connections closed at once, reset, or left in the middle of a line."""
    flooded(tries, floods.storm(rate, seconds))


@main.command()
@peers(2000)
@seconds(10)
@TRIES
def refused(peers: int, seconds: float, tries: int) -> None:
    """Peers that are one too many and do not close."""
    flooded(tries, floods.refused(peers, seconds))


@main.command()
@RATE
@seconds(10)
@TRIES
def tls(rate: int, seconds: float, tries: int) -> None:
    """TLS handshakes: garbage, begun and left, whole."""
    flooded(tries, floods.tls(rate, seconds))


@main.command()
@RATE
@seconds(10)
@TRIES
def forged(rate: int, seconds: float, tries: int) -> None:
    """Datagrams with forged sources; needs root."""
    if os.geteuid() != 0:
        sys.exit("only root can forge datagrams")
    flooded(tries, floods.forged(rate, seconds))


@main.command()
@peers(50)
@seconds(10)
@TRIES
def telnet(peers: int, seconds: float, tries: int) -> None:
    """Telnet clients that negotiate without end."""
    flooded(tries, floods.telnet(peers, seconds))


@main.command("all")
@TRIES
def every(tries: int) -> None:
    """Every flood, as it is by default."""
    flooded(
        tries,
        floods.unread(1000, 15),
        floods.slow(200, 10),
        floods.idle(10_000, 10),
        floods.storm(0, 10),
        floods.refused(2000, 10),
        floods.tls(0, 10),
        *([floods.forged(0, 10)] if os.geteuid() == 0 else []),
        floods.telnet(50, 10),
    )


@main.command()
@click.option("--minutes", default=10.0, show_default=True)
def mixed(minutes: float) -> None:
    """All floods at once, for long: nothing may grow."""
    sys.exit(0 if floods.mixed(minutes, click.echo) else 1)


if __name__ == "__main__":
    main()
