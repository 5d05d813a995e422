"""`sockservice ping`: its options, and its start."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import click

from sockservice.cli.completion import targets
from sockservice.cli.connecting import NotConnected, connectedBeforeStop
from sockservice.cli.options import framed, inSeconds, sized, targeted
from sockservice.cli.output import Output
from sockservice.cli.ping.link import LineLink, linked
from sockservice.cli.ping.pinging import Pinging
from sockservice.cli.ping.report import Printer
from sockservice.cli.react import react
from sockservice.cli.status import USAGE, end
from sockservice.client.takeover import longest
from sockservice.measure.probes import Probes
from sockservice.wire.framing import Framing

#: Probes sent with --flood when no --count is given.
FLOOD_COUNT = 1000


@click.command()
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many probes.")
@inSeconds("--interval", 1.0, "Seconds from one probe to the next.")
@sized(
    "Bytes of a probe; of a line, without its ending. 65507 is the longest datagram on "
    "IPv4, 65527 on IPv6. Below 6 the number of a probe is cut short, so that what is late, "
    "twice or out of order is told less surely; empty ones have none."
)
@inSeconds("--timeout", 1.0, "Seconds after which a probe is lost.")
@click.option(
    "--flood",
    metavar="N",
    type=click.IntRange(1, 1000),
    help="Send the next probe as soon as fewer than N are awaited, and print the summary only. "
    f"Ends after {FLOOD_COUNT} probes where --count does not say otherwise.",
)
@click.option("--json", "asJson", is_flag=True, help="Print an object a reply, and a summary.")
@click.option("--quiet", is_flag=True, help="Print the summary only.")
@framed("A probe is one line of it.")
@targeted
@click.argument("target", shell_complete=targets)
def ping(
    target: str,
    count: int | None,
    interval: float,
    size: int,
    timeout: float,
    flood: int | None,
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

    Ctrl-C ends it with the summary; probes still awaited are not lost then.

    Exit status: 0 every probe was answered; 1 some were lost, refused or came back corrupt;
    2 usage; 3 could not connect, or nobody listens; 130 interrupted before connected.
    """

    async def run(reactor: Any) -> None:
        try:
            client = await connectedBeforeStop(reactor, target, how)
        except NotConnected as problem:
            end(problem.status, problem.why)
        if size > longest(client):
            end(USAGE, f"--size: {target} takes at most {longest(client)} bytes")
        link = linked(client, framing)
        pinging = Pinging(
            reactor,
            perf_counter,
            link,
            Probes(size, timeout, isinstance(link, LineLink)),
            report=Printer(target, size, Output(), asJson, quiet or bool(flood)),
            count=count or (FLOOD_COUNT if flood else None),
            interval=interval,
            flood=flood,
        )
        reactor.addSystemEventTrigger("before", "shutdown", pinging.stop)
        end(*await pinging.run())

    react(run)
