"""`sockservice bench`: how many lines a server answers, and how long that takes."""

import math
import os
from collections.abc import Callable
from typing import Any

import click

from sockservice.cli.bench.parent import Benching
from sockservice.cli.bench.report import faulty, summary, table
from sockservice.cli.bench.settings import Settings, Unmeasured
from sockservice.cli.options import answerable, framed, rated, refusing, seconds, sized, timed
from sockservice.cli.output import Output
from sockservice.cli.reaching import targeted
from sockservice.cli.status import DONE, NOT_ALL, end, signalled
from sockservice.client.line import REPLY_LIMIT
from sockservice.client.targets import isDatagram
from sockservice.measure.probes import DIGITS
from sockservice.wire.chunks import Chunks
from sockservice.wire.framing import Framing

#: Bytes in flight on one connection.
IN_FLIGHT = 64 * 1024 * 1024
#: Seconds to measure, if nothing else is said; and with a number of lines, which end it.
DURATION, FOREVER = 10.0, 86400.0


def _warmup(context: click.Context, option: click.Parameter, value: float) -> float:
    if not 0 <= value < math.inf:
        raise click.BadParameter("not a number of seconds, or 0")
    return value


def _line(context: click.Context, option: click.Parameter, value: str | None) -> bytes | None:
    return None if value is None else _checked(os.fsencode(value))


def _content(context: click.Context, option: click.Parameter, value: str | None) -> bytes | None:
    if value is None:
        return None
    try:
        with open(value, "rb") as file:
            content = file.read(REPLY_LIMIT + 2)
    except OSError as problem:
        raise click.BadParameter(f"{value}: {problem.strerror}") from problem
    return _checked(content.removesuffix(b"\n").removesuffix(b"\r"))


def _checked(line: bytes) -> bytes:
    if b"\n" in line:
        raise click.BadParameter("it is several lines")
    if len(line) > REPLY_LIMIT:
        raise click.BadParameter(f"longer than {REPLY_LIMIT} bytes")
    return line


@click.command()
@click.option(
    "--connections",
    "-c",
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
@click.option("--payload", metavar="TEXT", callback=_line, help="The line to send.")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, readable=True),
    callback=_content,
    help="Send what is in this file, one line.",
)
@click.option(
    "--duration",
    "-d",
    type=float,
    callback=seconds,
    help=f"Seconds to measure, at most; by default {DURATION:g}, with --count no limit.",
)
@click.option(
    "--count",
    "-n",
    "lines",
    type=click.IntRange(1),
    help="End after so many lines, of all connections together.",
)
@refusing()
@click.option(
    "--warmup",
    type=float,
    callback=_warmup,
    default=0.0,
    show_default=True,
    help="Seconds to load the server before.",
)
@rated(
    "So many lines a second on all connections together, each at its time, whatever the "
    "server does; latency counts from the time a line was due.",
    metavar="LINES/S",
)
@timed(
    1.0,
    "Seconds until a datagram is lost, and to wait for replies at the end.",
)
@click.option(
    "--processes",
    "-t",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes that share the connections.",
)
@click.option("--json", "asJson", is_flag=True, help="Print one object.")
@click.option("--yes", is_flag=True, help="Load a target that is not on this machine.")
@framed("chunks: one line in flight on each connection.")
@targeted
def bench(
    asJson: bool,
    payload: bytes | None,
    file: bytes | None,
    target: str,
    how: dict[str, Any],
    framing: Callable[[int], Framing],
    **given: Any,
) -> None:
    """Load TARGET, a line or echo server, and print its throughput and latencies.

    TARGET is what `sockservice send` takes. One that is neither a loopback address nor a UNIX
    socket is loaded with --yes only.

    Every reply is counted and checked. Ctrl-C prints what was measured so far.

    Exit status: 0 every line was answered as it should; 1 some were not; 2 usage; 3 could
    not connect, or nobody listens; 130 interrupted, 143 terminated, 129 hung up. If it is not
    0, one line on stderr says what happened.
    """
    if payload is not None and file is not None:
        raise click.UsageError("--payload or --file, not both")
    payload = payload if file is None else file
    if isDatagram(target):
        if payload is not None:
            raise click.UsageError("--payload and --file: a datagram holds its number")
        if given["size"] < DIGITS:
            raise click.UsageError(f"--size: a datagram holds its number, in {DIGITS} bytes")
    if framing is Chunks and given["pipeline"] > 1:
        raise click.UsageError("--framing chunks has one line in flight: no --pipeline")
    if payload is not None:
        given["size"] = len(payload)
    if given["duration"] is None:
        given["duration"] = FOREVER if given["lines"] else DURATION
    if given["lines"] and given["warmup"]:
        raise click.UsageError("--count or --warmup: what is sent to warm up would count")
    how["framing"] = framing
    answerable(framing, b"x" * given["size"] if payload is None else payload)
    settings = Settings(target=target, payload=payload, how=how, **given)
    if settings.pipeline * (settings.size + 1) > IN_FLIGHT:
        raise click.UsageError(f"--pipeline times --size is more than {IN_FLIGHT} bytes")
    if settings.processes > settings.connections:
        raise click.UsageError("--processes: each needs one of the --connections")
    benching = Benching(settings)
    outcome = benching.run()
    if isinstance(outcome, Unmeasured):
        end(*outcome)
    tally, elapsed = outcome
    why = faulty(tally)
    status = NOT_ALL if why else DONE
    if not asJson:
        output = Output()
        for line in table(settings, tally, elapsed, output.columns, output.terminal):
            output.write(line)
        if output.broken:
            status, why = NOT_ALL, output.broken
    if benching.number:
        status, why = signalled(benching.number)
    end(status, why, summary(settings, tally, elapsed))
