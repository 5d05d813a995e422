"""`sockservice ship`: its options, and its start."""

from typing import Any

import click

from sockservice.cli.connecting import Stopping
from sockservice.cli.events import Events
from sockservice.cli.options import missing, rated, sessionName, timed
from sockservice.cli.reaching import targeted
from sockservice.cli.react import react
from sockservice.cli.status import USAGE, end, leave
from sockservice.client.failover import separated
from sockservice.client.targets import isDatagram
from sockservice.limits.openfiles import allow


@click.command()
@click.option(
    "--session",
    "name",
    required=True,
    metavar="NAME",
    callback=sessionName,
    help="Name of the sessions.",
)
@click.option(
    "--from",
    "where",
    type=click.Choice(["oldest", "begin", "end"]),
    default="oldest",
    show_default=True,
    help="Where a new session begins: with the oldest rotated file, or at the begin or the end "
    "of the newest.",
)
@missing("What to do if the file that a session was in is there no more: lines may be missing.")
@timed(30.0, "Seconds to wait for the next reply, then connect again.")
@rated("Send at most so many lines of a file a second.")
@click.option("--json", "asJson", is_flag=True, help="Print what happens, an object a line.")
@targeted
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
def ship(
    target: str,
    paths: tuple[str, ...],
    name: str,
    where: str,
    gone: str,
    timeout: float,
    rate: float | None,
    asJson: bool,
    how: dict[str, Any],
) -> None:
    """Follow the log files PATH and send each of their lines to TARGET, exactly once.

    The files at these paths are followed through rotation, for ever. Each has a session of its
    own at the server, NAME:PATH, which keeps the place: start the command again and it goes on
    there.
    PATH may be a pattern, in quotes; files that come to match it are taken up.

    TARGET is a listener of sessions: tcp:HOST:PORT, or just HOST:PORT; tls:HOST:PORT or
    unix:PATH; or a client endpoint string of Twisted's. Commas separate several ways to the
    same server, of which the first that works is used.

    SIGHUP looks for new files at once, SIGQUIT has it say how far it is. SIGTERM and Ctrl-C
    end it when what was sent has been acknowledged, or after 30 seconds.

    Exit status: 1 a session can't go on; 2 usage; 3 not connected, and to try again would not
    help; 5 the file that a session was in is gone;
    130 interrupted, 143 terminated. One line on stderr says what happened.
    """
    how |= {"where": where, "gone": gone}
    follow(target, paths, name, timeout, rate, asJson, how)


def follow(
    target: str,
    paths: tuple[str, ...],
    name: str,
    timeout: float,
    rate: float | None,
    asJson: bool,
    how: dict[str, Any],
) -> None:
    """Ship the files at `paths`, and leave; `how` connects, and may hold `where` and `gone`."""
    targets = separated(target)
    if any(map(isDatagram, targets)):
        raise click.UsageError("sessions are for connections, and datagrams have none")
    if how.pop("greeting"):
        raise click.UsageError("--greeting is not for sessions")
    how["connectTimeout"] = how.pop("timeout")
    how |= {"timeout": timeout, "rate": rate}

    # With what decompresses files, which no other command needs.
    from sockservice.cli.ship.following import Following

    # A file takes two descriptors, and those that match a pattern may become many.
    allow(0)

    async def run(reactor: Any) -> None:
        try:
            following = Following(reactor, targets, name, paths, Events(reactor, asJson), how)
        except ValueError as problem:
            end(USAGE, str(problem))
        leave(*await following.run(Stopping(reactor, following.search)))

    react(run)
