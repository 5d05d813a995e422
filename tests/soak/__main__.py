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

from sockservice.store.nats.cluster import Cluster
from tests.conftest import Children
from tests.soak import clustered, faults, floods, outages, shipped, syslogged
from tests.soak import rounds as one
from tests.soak.carried import carried
from tests.soak.disks import Disk, inMemory
from tests.soak.networks import Network


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


FAULTS_OF_ROOT = ("fill", "partition", "partitions", "power")
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
@click.option("--rounds", default=10, show_default=True)
@click.option(
    "--fault",
    "only",
    type=click.Choice([*clustered.FAULTS, *FAULTS_OF_ROOT]),
    multiple=True,
    help="Only these, in turn.",
)
@SEED
@MINUTES
def cluster(rounds: int, only: tuple[str, ...], seed: int, minutes: float) -> None:
    """Kill, stop, wipe, fill, cut off nodes of NATS under two servers; root can do it all.

    Root cuts networks, too, and the power of all nodes at once.
    """
    if not os.geteuid() and "SOCKSERVICE_APART" not in os.environ:
        # Nothing of this machine's network is touched.
        os.environ["SOCKSERVICE_APART"] = "1"
        own = ("unshare", "--net", "--mount", sys.executable, "-m", "tests.soak", *sys.argv[1:])
        os.execvp(own[0], own)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        known = dict(clustered.FAULTS)
        place = Path(folder) / "nodes"
        if os.geteuid():
            nodes = Cluster(place, space="2G")
        else:
            disks = clustered.onDisks(place, stack)
            nodes = clustered.separated(place, stack)
            known |= clustered.ofRoot(disks)
        stack.callback(nodes.stop)
        nodes.start()
        number = iter(range(rounds))

        def do(chance: Random) -> tuple[int, int]:
            which = next(number)
            names = [only[(2 * which + at) % len(only)] for at in range(2)] if only else []
            names = names or chance.choices([*known], k=2)
            click.echo(", ".join(names))
            children = Children(Path(folder), stack)
            faults = [known[name] for name in names]
            return clustered.clustered(children, nodes, f"SOAK{which}", faults, chance)

        repeated(rounds, seed, minutes, do)


@main.command()
@click.option("--rounds", default=100, show_default=True)
@SEED
@MINUTES
def workers(rounds: int, seed: int, minutes: float) -> None:
    """Kill -9 of one worker of two at random moments, while the others go on."""
    onOneFile(rounds, seed, minutes, one.workers)


@main.command()
@click.option("--rounds", default=100, show_default=True)
@SEED
@MINUTES
def parent(rounds: int, seed: int, minutes: float) -> None:
    """Kill -9 of the process that stores for two workers, and start again on the same file."""
    onOneFile(rounds, seed, minutes, one.parent)


@main.command()
@click.option("--rounds", default=100, show_default=True)
@SEED
@MINUTES
def failing(rounds: int, seed: int, minutes: float) -> None:
    """Have syncs fail once or always, and kill -9 at random steps; needs a C compiler."""
    with tempfile.TemporaryDirectory() as folder:
        library = faults.built(Path(folder))
        if library is None:
            sys.exit("there is no C compiler")

        def do(children: Children, _: Path, chance: Random) -> tuple[int, int]:
            return faults.failing(children, library, chance)

        onOneFile(rounds, seed, minutes, do)


@main.command()
@click.option("--rounds", default=200, show_default=True)
@SEED
@MINUTES
def sessions(rounds: int, seed: int, minutes: float) -> None:
    """Send files in sessions; kill server, sender or both, or start a rival, at random moments."""
    chance = Random(seed)
    ends = monotonic() + minutes * 60
    sent = broken = done = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        for number in range(1, rounds + 1):
            with ExitStack() as stack:
                children = Children(path, stack)
                lines, breaks = carried(children, path / "lines.db", chance, f"round{number}")
            sent, broken, done = sent + lines, broken + breaks, number
            click.echo(f"{number}: {lines} lines, {breaks} breaks, none lost, none twice")
            if monotonic() > ends:
                click.echo(f"{minutes:g} minutes are over")
                break
    click.echo(f"in all: {done} rounds, {sent} lines, {broken} breaks, none lost, none twice")


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


@main.command("sessions-power")
@click.option("--rounds", default=20, show_default=True)
@SEED
@MINUTES
def sessionsPower(rounds: int, seed: int, minutes: float) -> None:
    """Send files in sessions, and lose what is not synced at random moments; needs root."""
    chance = Random(seed)
    ends = monotonic() + minutes * 60
    sent = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        disk = Disk(path, 512)
        if problem := disk.make():
            sys.exit(f"no disk to cut the power of: {problem}")
        try:
            for number in range(1, rounds + 1):
                with ExitStack() as stack:
                    children = Children(path, stack)
                    lines, failures = outages.power(children, disk, chance, f"round{number}")
                sent, failed = sent + lines, failed + failures
                click.echo(f"{number}: {lines} lines, {failures} failures, none lost, none twice")
                if monotonic() > ends:
                    click.echo(f"{minutes:g} minutes are over")
                    break
        finally:
            disk.unmount()
    click.echo(f"in all: {sent} lines, {failed} failures, none lost, none twice")


@main.command("sessions-network")
@click.option("--rounds", default=2, show_default=True)
@SEED
def sessionsNetwork(rounds: int, seed: int) -> None:
    """Send files in sessions over a network that is cut; needs root, ip and tc."""
    link = Network()
    if problem := link.make():
        sys.exit(f"no network to cut: {problem}")
    if link.perfect:
        click.echo(f"no packets are lost or late: {link.perfect}")
    chance = Random(seed)
    try:
        for number in range(1, rounds + 1):
            with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
                children = Children(Path(folder), stack)
                lines, cuts, taken = outages.network(children, link, chance, f"round{number}")
            click.echo(
                f"{number}: {lines} lines, {cuts} cuts, {taken} times taken over from an open "
                "connection, none lost, none twice"
            )
    finally:
        link.remove()


@main.command()
@click.option("--rounds", default=20, show_default=True)
@click.option("--lines", default=50_000, show_default=True, help="Of a round.")
@click.option("--relay", is_flag=True, help="And relay what is stored to another server.")
@SEED
@MINUTES
def ship(rounds: int, lines: int, relay: bool, seed: int, minutes: float) -> None:
    """Rotate a log file and kill -9 its sender, its server and others at random moments."""
    chance = Random(seed)
    ends = monotonic() + minutes * 60
    total = killed = 0
    for number in range(1, rounds + 1):
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            path = Path(folder)
            kills, stored = shipped.ship(Children(path, stack), path, chance, lines, relay)
        total += stored
        killed += kills
        click.echo(f"{number}: {kills} kills, {stored} lines, none lost, none twice, in order")
        if monotonic() > ends:
            click.echo(f"{minutes:g} minutes are over")
            break
    click.echo(f"in all: {killed} kills, {total} lines, none lost, none twice, in order")


@main.command()
@click.argument("ways", nargs=-1, type=click.Choice([*syslogged.WAYS]))
@click.option("--messages", default=100_000, show_default=True, help="In each of the ways.")
@click.option("--kills", default=10, show_default=True)
@click.option("--fills", default=2, show_default=True, help="Of the disk; root can.")
@click.option("--rounds", default=1, show_default=True)
@SEED
@MINUTES
def syslog(
    ways: tuple[str, ...],
    messages: int,
    kills: int,
    fills: int,
    rounds: int,
    seed: int,
    minutes: float,
) -> None:
    """Kill -9 the server under rsyslog and syslog-ng, and fill its disk; all WAYS at once.

    What RELP is told has to be stored, or it fails. What comes otherwise is never acknowledged:
    how much of it is lost is told.
    """
    chance = Random(seed)
    ends = monotonic() + minutes * 60
    for missing in filter(None, (syslogged.WAYS[way].missing for way in ways)):
        sys.exit(f"{missing} is not installed")
    here = ways or [way for way, each in syslogged.WAYS.items() if not each.missing]
    for number in range(1, rounds + 1):
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            path = Path(folder)
            identities = syslogged.identities(path)
            problem = stack.enter_context(inMemory(path / "small", 16_000 + messages * len(here)))
            came = syslogged.syslogged(
                *(Children(path, stack), path / "small" / "logs.db", here, identities, chance),
                *(messages, kills, 0 if problem else fills),
            )
        for way, each in came.items():
            click.echo(
                f"{number}: {way}: {each.stored} messages, {each.lost} lost, {each.twice} twice, "
                f"{each.connections} connections"
            )
        lost = [w for w, each in came.items() if each.lost and syslogged.WAYS[w].acknowledged]
        if lost:
            sys.exit(f"lost, though never acknowledged: messages of {', '.join(lost)}")
        if monotonic() > ends:
            click.echo(f"{minutes:g} minutes are over")
            break


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
