"""`sockservice bench`: how many lines a server answers, and how long that takes."""

import json
import math
import sys
from typing import Any

import click

from sockservice.cli.bench.parent import Benching
from sockservice.cli.bench.report import summary, table
from sockservice.cli.bench.settings import Settings, Unmeasured
from sockservice.cli.completion import targets
from sockservice.cli.options import inSeconds, seconds, sized, targeted
from sockservice.cli.output import Output
from sockservice.cli.status import INTERRUPTED, NOT_ALL, end

#: Bytes in flight on one connection.
IN_FLIGHT = 64 * 1024 * 1024


def _warmup(context: click.Context, option: click.Parameter, value: float) -> float:
    if not 0 <= value < math.inf:
        raise click.BadParameter("not a number of seconds, or 0")
    return value


@click.command()
@click.option(
    "--connections",
    type=click.IntRange(1, 100_000),
    default=10,
    show_default=True,
    help="Connections, or sockets that send datagrams.",
)
@click.option(
    "--pipeline",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    help="Lines in flight on each connection.",
)
@sized("Bytes of a line, without its ending, or of a datagram.")
@inSeconds("--duration", 10.0, "Seconds to measure.")
@click.option(
    "--warmup",
    type=float,
    callback=_warmup,
    default=0.0,
    show_default=True,
    help="Seconds to load the server before.",
)
@click.option(
    "--rate",
    type=float,
    callback=seconds,
    metavar="LINES/S",
    help="So many lines a second on all connections together, each at its time, whatever the "
    "server does; latency counts from the time a line was due.",
)
@inSeconds(
    "--timeout", 1.0, "Seconds after which a datagram is lost, and to wait for replies at the end."
)
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes that share the connections.",
)
@click.option("--json", "asJson", is_flag=True, help="Print one object.")
@click.option("--yes", is_flag=True, help="Load a target that is not on this machine.")
@targeted
@click.argument("target", shell_complete=targets)
def bench(asJson: bool, **given: Any) -> None:
    """Load TARGET, a line or echo server, and print its throughput and latencies.

    TARGET is what `sockservice send` takes. One that is neither a loopback address nor a UNIX
    socket is loaded with --yes only.

    Every reply is counted and checked. Ctrl-C prints what was measured so far.

    Exit status: 0 every line was answered as it should; 1 some were not; 2 usage; 3 could
    not connect, or nobody listens; 130 interrupted.
    """
    settings = Settings(**given)
    if settings.pipeline * (settings.size + 1) > IN_FLIGHT:
        raise click.UsageError(f"--pipeline times --size is more than {IN_FLIGHT} bytes")
    if settings.processes > settings.connections:
        raise click.UsageError("--processes: each needs one of the --connections")
    benching = Benching(settings)
    outcome = benching.run()
    if isinstance(outcome, Unmeasured):
        end(*outcome)
    tally, elapsed = outcome
    output = Output()
    if asJson:
        output.write(json.dumps(summary(settings, tally, elapsed)))
    else:
        terminal = sys.stdout is not None and sys.stdout.isatty()
        for line in table(settings, tally, elapsed, bars=terminal):
            output.write(line)
    if output.broken:
        end(NOT_ALL, output.broken)
    if benching.interrupted:
        end(INTERRUPTED, "interrupted")
    end(0 if tally.whole else NOT_ALL, "" if tally.answered else "nothing was answered")
