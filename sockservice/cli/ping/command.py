"""`sockservice ping`: its options, and its start."""

import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import click

from sockservice.cli.columns import columns
from sockservice.cli.connecting import NotConnected, Stopping
from sockservice.cli.options import answerable, framed, inSeconds, refusing, sized, timed
from sockservice.cli.output import Output
from sockservice.cli.ping.link import linked
from sockservice.cli.ping.pinging import Pinging
from sockservice.cli.ping.report import Printer, summary
from sockservice.cli.progress import Bar
from sockservice.cli.reaching import targeted
from sockservice.cli.react import react
from sockservice.cli.status import INTERRUPTED, USAGE, end
from sockservice.cli.text import tell
from sockservice.client.described import reached
from sockservice.client.line import LineClient
from sockservice.client.takeover import longest
from sockservice.client.targets import framingOf, isDatagram
from sockservice.measure.probes import DIGITS, Probes, content
from sockservice.wire.chunks import Chunks
from sockservice.wire.framing import Framing
from sockservice.wire.plurals import counted

#: Probes sent with --flood when no --count is given.
FLOOD_COUNT = 1000


@click.command()
@click.option("--count", "-c", type=click.IntRange(min=1), help="Stop after so many probes.")
@inSeconds("--interval", "-i", 1.0, "Seconds from one probe to the next.")
@sized(
    "Bytes of a probe; of a line, without its ending. 65507 is the longest datagram on "
    f"IPv4, 65527 on IPv6, and {DIGITS} is the shortest, for it holds its number."
)
@timed(1.0, "Seconds after which a probe is lost.")
@click.option(
    "--flood",
    metavar="N",
    type=click.IntRange(1, 1000),
    help="Send the next probe as soon as fewer than N are awaited, and print the summary only. "
    f"Ends after {FLOOD_COUNT} probes where --count does not say otherwise.",
)
@refusing()
@click.option("--json", "asJson", is_flag=True, help="Print an object a reply, and a summary.")
@click.option("--quiet", "-q", is_flag=True, help="Print the summary only.")
@framed("A probe is one line of it.")
@targeted
def ping(
    target: str,
    count: int | None,
    interval: float,
    size: int,
    timeout: float,
    flood: int | None,
    refusals: tuple[bytes, ...],
    asJson: bool,
    quiet: bool,
    framing: Callable[[int], Framing],
    how: dict[str, Any],
) -> None:
    """Send numbered probes to TARGET and tell what becomes of each.

    TARGET is what `sockservice send` takes. Over datagrams it has to echo, as RFC 862 says.
    On streams a probe is a line; a server that does not echo lines, but answers each with
    one of its own, as `ack` does, is measured as well, but then nothing can be seen to be
    corrupt.

    Ctrl-C ends it with the summary; probes still awaited are not lost then. Ctrl-\\ prints
    the summary so far.

    Exit status: 0 every probe was answered; 1 some were lost, refused or came back corrupt;
    2 usage; 3 could not connect, or nobody listens; 130 interrupted, 143 terminated, 129
    hung up. If it is not 0, one line on stderr says what happened.
    """

    async def run(reactor: Any) -> None:
        stopping = Stopping(reactor)
        try:
            client = await stopping.connected(target, how)
        except NotConnected as problem:
            end(problem.status, problem.why)
        if size > (most := longest(client)):
            end(USAGE, f"--size: {target} takes at most {counted(most, 'byte')}")
        probes = Probes(size, timeout, isinstance(client, LineClient), refusals)
        output = Output()
        address = reached(client.transport)
        report = Printer(target, size, output, asJson, quiet or bool(flood), address)
        bar = Bar()

        def stop(status: int, word: str) -> None:
            if status == INTERRUPTED:
                bar.interrupted()
            pinging.stop(status, word)

        def tellSum() -> None:
            bar.interrupted()
            for line in summary(probes, columns(sys.stderr)):
                tell(line)

        link = linked(client, framingOf(target) or framing)
        pinging = Pinging(
            reactor,
            perf_counter,
            link,
            probes,
            report=report,
            count=count or (FLOOD_COUNT if flood else None),
            interval=interval,
            flood=flood,
        )
        stopping.ended, stopping.quit = stop, tellSum
        status, why = await pinging.run()
        end(status, why, report.sum(probes))

    answerable(framing, content(1, size))
    if framing is Chunks and flood and flood > 1:
        raise click.UsageError("--framing chunks has one probe in flight: --flood 1")
    if size < DIGITS and isDatagram(target):
        raise click.UsageError(f"--size: a datagram holds its number, in {DIGITS} bytes")
    how["framing"] = framing  # of the greeting, too
    react(run)
