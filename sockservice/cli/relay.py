"""`sockservice relay`: send what a store holds on to the next server, in a session."""

from typing import Any

import click
from twisted.internet.defer import Deferred

from sockservice.cli.connecting import Stopping
from sockservice.cli.events import Events
from sockservice.cli.options import missing, rated, sessionName, timed
from sockservice.cli.progress import INTERVAL
from sockservice.cli.reaching import targeted
from sockservice.cli.react import react
from sockservice.cli.status import (
    GONE,
    NOT_ALL,
    NOT_CONNECTED,
    SIGNALLED,
    USAGE,
    conclude,
    end,
    leave,
)
from sockservice.cli.storing import named, place
from sockservice.client.failover import separated
from sockservice.client.relay.relaying import Relay, Removed, StoreLost
from sockservice.client.session import SessionError
from sockservice.client.targets import isDatagram
from sockservice.store.reader import Unreadable
from sockservice.wire.plurals import counted, plural, ranged
from sockservice.wire.session import Opened


@click.command()
@click.option(
    "--session",
    "name",
    required=True,
    metavar="NAME",
    callback=sessionName,
    help="The session at TARGET, which keeps the place: one for each store.",
)
@click.option(
    "--json",
    "objects",
    is_flag=True,
    help="Send each line as a JSON object with the time, the peer and the listener of its receipt, "
    "and its id.",
)
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    metavar="ID",
    help="Begin a new session with the lines of higher ids, not with the first there is.",
)
@missing("What to do if lines were removed from STORE before they were relayed.")
@timed(30.0, "Seconds to wait for the next reply, then connect again.")
@rated("Send at most so many lines a second.")
@click.option(
    "--events", "asJson", is_flag=True, help="Print what happens as JSON objects; then a sum."
)
@click.argument("store")
@targeted
def relay(
    store: str,
    target: str,
    name: str,
    objects: bool,
    after: int,
    gone: str,
    timeout: float,
    rate: float | None,
    asJson: bool,
    how: dict[str, Any],
) -> None:
    """Send the lines of STORE on to TARGET, each exactly once, and go on with new ones.

    STORE is sqlite:PATH or just the path; the right to read it is enough, also while a
    server writes to it. TARGET is a listener of sessions: tcp:HOST:PORT, or just HOST:PORT;
    tls:HOST:PORT or unix:PATH; or a client endpoint string of Twisted's. The session there
    keeps the place: started again, `relay` goes on behind what is stored.

    Ctrl-C, SIGTERM and SIGHUP end it when what was sent has been acknowledged, or after 30
    seconds. SIGQUIT has it say how far it is.

    Exit status: 1 it can't go on; 2 usage; 3 could not connect, and to try again would not
    help; 5 lines were removed before they were relayed; 130 interrupted, 143 terminated, 129
    hung up. One line on stderr says what happened.
    """
    path = place(store)
    targets = separated(target)
    if any(map(isDatagram, targets)):
        raise click.UsageError("--session is for connections, and datagrams have none")
    if how.pop("greeting"):
        raise click.UsageError("--greeting is not for sessions")
    how["connectTimeout"] = how.pop("timeout")
    how |= {"timeout": timeout, "rate": rate}

    async def run(reactor: Any) -> None:
        try:
            relaying = Relaying(
                reactor,
                path,
                targets,
                name,
                objects=objects,
                skip=gone != "stop",
                after=after,
                **how,
            )
        except Unreadable as problem:
            end(NOT_ALL, f"Error: {named(path, problem)}")
        except ValueError as problem:
            end(USAGE, f"{target}: {problem}")
        relaying.report = Events(reactor, asJson)
        status, why = await relaying.run(Stopping(reactor))
        said = f"{relaying.sum()}: {why}"
        if asJson:
            status, why = conclude(status, why, {"event": "ended", **relaying.counts})
        leave(status, said)

    react(run)


class Relaying(Relay):
    """A relay that reports what happens."""

    report: Events

    def __init__(self, reactor: Any, path: str, *arguments: Any, **how: Any) -> None:
        super().__init__(reactor, path, *arguments, **how)
        self._path = path
        self._first: int | None = None  # position at the start
        self._left = 0  # lines without a reply at the end
        self._end: Deferred[tuple[int, str]] = Deferred()

    async def run(self, stopping: Stopping) -> tuple[int, str]:
        """Relay until a signal or a fault ends it; return the exit status, and why."""
        stopping.ended = self._finish
        stopping.quit = lambda: self.report.say(self.sum())
        self.startService()
        self._tick()
        status, why = await self._end
        if status > SIGNALLED and self.outstanding:
            self.report.show("waiting for replies", self._path)
        self._left = len(await self.stopService())
        self.report.clear()
        return status, why

    @property
    def acknowledged(self) -> int:
        """Lines acknowledged since the start."""
        return 0 if self._first is None else (self.position or 0) - self._first

    @property
    def counts(self) -> dict[str, Any]:
        """What was done, for the last event."""
        return {
            "session": self.session,
            "acknowledged": self.acknowledged,
            "unacknowledged": self._left or self.outstanding,
            "passed_over": self.long,
            "removed": self.missing,
            "position": self.position,
            "id": None if self._first is None else self.relayed,
        }

    def sum(self) -> str:
        """Return what was done, in words."""
        said = f"relayed {counted(self.acknowledged, 'line')}"
        if left := self._left or self.outstanding:
            said += f", {left} unacknowledged"
        if self.long:
            said += f", {self.long} passed over"
        if self.missing:
            said += f", {self.missing} removed before"
        return said

    def _finish(self, status: int, why: str) -> None:
        if not self._end.called:
            self._end.callback((status, why))

    def _tick(self) -> None:
        if self._end.called:
            return
        if self.report.broken:
            self._finish(NOT_ALL, self.report.broken)
            return
        rate = self.report.rate(self.acknowledged)
        if self._first is not None:
            self.report.show(
                f"{max(0, self.highest - self.relayed):,} behind",
                f"{self._path} at id {self.relayed:,}",
                f"{rate:,.0f} {plural(round(rate), 'line')}/s",
                f"{self.acknowledged:,} acknowledged",
            )
        self._reactor.callLater(INTERVAL, self._tick)

    async def opened(self, opened: Opened) -> None:
        await super().opened(opened)
        if self._first is None:
            self._first = opened.position
            how = f"goes on behind id {self.relayed}"
            if opened.new:
                how = f"is new, and begins behind id {self.relayed}"
            self.report.event(
                "opened",
                f"session {self.session} {how}",
                session=self.session,
                new=opened.new,
                position=opened.position,
                id=self.relayed,
            )

    def passedOver(self, first: int, last: int, why: str) -> None:
        which = ranged(first, last, "line with id", "lines with ids")
        are = plural(last - first + 1, "is", "are")
        text = named(self._path, f"{which} {are} {why}: passed over")
        self.report.event("passed_over", text, first=first, last=last, why=why)

    def missed(self, first: int, last: int) -> None:
        count = last - first + 1
        text = f"{counted(count, 'line')} ({ranged(first, last, 'id')}) removed before: going on"
        self.report.event("removed", named(self._path, text), first=first, last=last, count=count)

    def retrying(self, why: str, delay: float) -> None:
        self.report.retrying(why, delay)

    def using(self, name: str) -> None:
        self.report.event("connected", f"connected to {name}", target=name)

    def gaveUp(self, why: str, cause: BaseException | None) -> None:
        status = NOT_ALL if isinstance(cause, SessionError) else NOT_CONNECTED
        if isinstance(cause, Removed):
            status = GONE
            why += "; --gone continue goes on behind them"
        if isinstance(cause, (Removed, StoreLost)):
            why = named(self._path, why)
        self._finish(status, why)
