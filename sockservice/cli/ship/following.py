"""Run the services that ship log files, until a signal or a session ends them."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from sockservice.cli.connecting import Stopping
from sockservice.cli.events import Events
from sockservice.cli.progress import INTERVAL, amount, speed
from sockservice.cli.ship.lateness import Lateness
from sockservice.cli.status import GONE, NOT_ALL, NOT_CONNECTED
from sockservice.client.explain import explained
from sockservice.client.proxied import lasting
from sockservice.client.ship.shipper import FileGone, Shipper
from sockservice.client.ship.shipping import Shipping
from sockservice.wire.plurals import counted
from sockservice.wire.session import Opened

#: Seconds between objects that tell how far a file is.
PROGRESS = 5.0
#: Seconds between looks for what they tell, of which each costs for every file.
LOOK = 1.0


class Following:
    """Ships `paths` until `stop`, or until a session can't go on.

    :raises ValueError: There is no such target, or no such name of a session.
    """

    def __init__(
        self,
        reactor: Any,
        targets: Sequence[str],
        name: str,
        paths: Sequence[str],
        report: Events,
        how: dict[str, Any],
    ) -> None:
        self._reactor = reactor
        self._report = report
        self._begun = reactor.seconds()
        self._looked = self._begun
        self._over: Counter[str] = Counter()  # of files that are there no more
        self._ended: Deferred[tuple[int, str]] = Deferred()
        self._shipping = Shipping(
            reactor,
            targets,
            name,
            paths,
            make=self._make,
            refused=self._refused,
            retired=self._retire,
            **how,
        )
        self._shipping.failed.addErrback(self._failed)

    async def run(self, stopping: Stopping) -> tuple[int, str]:
        """Ship; return the exit status, and a message."""
        stopping.ended = self._end
        stopping.quit = lambda: self._report.say(self._sum())
        self._shipping.startService()
        self._tick()
        status, why = await self._ended
        await self._shipping.stopService()
        self._report.clear()
        self._report.event(
            "ended",
            "",
            files=self._over["files"] + len(self._shippers),
            acknowledged=self._acknowledged,
            unacknowledged=self._left,
            long=self._long,
            seconds=round(self._reactor.seconds() - self._begun, 6),
            status=status,
            why=why,
        )
        return status, f"{self._sum()}: {why}"

    def search(self) -> None:
        """Look for new files at once."""
        if not self._ended.called:
            self._shipping.search()

    def _refused(self, path: str, why: str) -> None:
        said = f"{why}: passed over"
        self._report.event("file", said, path=path, said=said)

    def _retire(self, shipper: Shipper) -> None:
        assert isinstance(shipper, Reported)
        self._over += Counter(files=1, acknowledged=shipper.acknowledged, long=shipper.long)
        said = f"{shipper.path} is there no more, and all of it is stored"
        self._report.event("file", said, path=shipper.path, said=said)

    def _end(self, status: int, why: str) -> None:
        if not self._ended.called:
            self._ended.callback((status, why))

    def _sum(self) -> str:
        said = f"shipped {counted(self._acknowledged, 'line')}"
        if self._long:
            said += f", {self._long} passed over"
        if self._left:
            said += f", {self._left} unacknowledged"
        return said

    def _make(self, *arguments: Any, **how: Any) -> "Reported":
        shipper = Reported(*arguments, **how)
        shipper.report = self._report
        return shipper

    @property
    def _shippers(self) -> list["Reported"]:
        shippers = self._shipping.shippers.values()
        return [each for each in shippers if isinstance(each, Reported)]

    @property
    def _acknowledged(self) -> int:
        return self._over["acknowledged"] + sum(each.acknowledged for each in self._shippers)

    @property
    def _left(self) -> int:
        return sum(each.left for each in self._shippers)

    @property
    def _long(self) -> int:
        return self._over["long"] + sum(each.long for each in self._shippers)

    def _failed(self, failure: Failure) -> None:
        status, why = NOT_ALL, failure.getErrorMessage()
        if failure.check(FileGone):
            status = GONE
        elif failure.value is not None and lasting(failure.value):
            status, why = NOT_CONNECTED, explained(failure.value)
        self._end(status, why)

    def _tick(self) -> None:
        if self._ended.called:
            return
        if self._report.broken:
            self._end(NOT_ALL, self._report.broken)
            return
        if self._report.draws:
            self._show()
        now = self._reactor.seconds()
        if self._report.objects and now - self._looked >= LOOK:
            self._looked = now
            for each in self._shippers:
                each.progress(now)
        self._reactor.callLater(INTERVAL, self._tick)

    def _show(self) -> None:
        shippers = self._shippers
        if not shippers:
            self._report.clear()
            return
        acknowledged = self._acknowledged
        rate = self._report.rate(acknowledged)
        now = self._reactor.seconds()
        late = max(each.late(now) for each in shippers)
        path, offset = max(shippers, key=lambda each: each.lag).file
        files = f"{counted(len(shippers), 'file')}  " if len(shippers) > 1 else ""
        behind = f"{amount(sum(each.lag for each in shippers))}B, {math.ceil(late)} s behind"
        if waiting := sum(not each.found for each in shippers):
            # Nobody knows how far these are.
            behind = "" if waiting == len(shippers) else f"{behind}, {waiting} "
            behind += "not opened yet"
        self._report.show(
            behind,
            f"{files}{os.path.basename(path)} at {offset:,}",
            speed(rate),
            f"{acknowledged:,} acknowledged",
        )


class Reported(Shipper):
    """A shipper that reports what happens."""

    report: Events

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **how)
        self.left = 0
        self._lateness = Lateness()
        self._first: int | None = None
        self._told: dict[str, object] = {}  # how far it was when that was told last
        self._looked = self._reactor.seconds()
        self._counted = 0  # lines acknowledged by then

    @property
    def acknowledged(self) -> int:
        """Lines acknowledged since the start."""
        return 0 if self._first is None else (self.position or 0) - self._first

    def late(self, now: float) -> float:
        """Seconds that what is in the file takes until it is acknowledged."""
        path, offset = self.file
        return self._lateness.seconds(
            now, path, offset, self.lag, self.position or 0, self.outstanding
        )

    def progress(self, now: float) -> None:
        """Tell how far it is, every few seconds and if anything has changed."""
        late = self.late(now)  # in any case: it is measured by asking
        if self._first is None or (seconds := now - self._looked) < PROGRESS:
            return
        path, offset = self.file
        count = self.acknowledged
        values = {
            "path": self.path,
            "file": path,
            "offset": offset,
            "position": self.position,
            "behind": self.lag,
            "late": round(late, 3),
            "rate": round((count - self._counted) / seconds, 3),
        }
        self._looked, self._counted = now, count
        if values != self._told:
            self._told = values
            self.report.event("progress", "", **values)

    async def opened(self, opened: Opened) -> None:
        if self._first is None:
            self._first = self.position
            new = " is new" if opened.new else f" goes on at position {opened.position}"
            self.report.event(
                "opened",
                f"session {self.session}{new}",
                path=self.path,
                session=self.session,
                new=opened.new,
                position=opened.position,
            )
        await super().opened(opened)

    def said(self, text: str) -> None:
        self.report.event("file", text, path=self.path, said=text)

    def retrying(self, why: str, delay: float) -> None:
        if why:
            self.report.retrying(why, delay, path=self.path, session=self.session)

    def stopService(self) -> Deferred[list[bytes]]:
        return super().stopService().addCallback(self._count)

    def _count(self, left: list[bytes]) -> list[bytes]:
        self.left = len(left)
        return left
