"""Ship several log files, and those that come to match a pattern."""

import glob
import os
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.client.ship.chain import older
from sockservice.client.ship.content import suffix
from sockservice.client.ship.shipper import INTERVAL, Shipper, sessionOf
from sockservice.wire.session import Hello

#: Of so many looks a file that nothing happens to gets one.
SELDOM = 5
#: Seconds without a line after which it is such a file.
QUIET = 10.0
#: Seconds between looks for new files.
SEARCH = 5.0

log = Logger()


def _logged(path: str, why: str) -> None:
    log.warn("{why}: passed over", why=why)


class Shipping(MultiService):
    """Ships the files that `paths` name, each in a session of its own (see :class:`Shipper`).

    A path may be a pattern, as of :mod:`glob`, with `**`: files that come to match it are
    shipped from their beginning. What a file was rotated to is not shipped for itself, nor are
    compressed files. `make` makes the services, called as :class:`Shipper` is. `refused` is
    told the path of a file that matches but is too long for the name of a session, and why it
    is passed over; without it that is logged.

    :raises ValueError: `name` is no name of a session, or a path is too long for that.
    """

    def __init__(
        self,
        reactor: Any,
        target: Any,
        name: str,
        paths: Sequence[str],
        *,
        make: Callable[..., Shipper] = Shipper,
        refused: Callable[[str, str], object] = _logged,
        where: str = "oldest",
        **how: Any,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._arguments = target, name
        self._paths = paths
        self._make = make
        self._refused = refused
        self._passed: set[str] = set()  # paths that were refused
        self._how = how
        #: The services, by path.
        self.shippers: dict[str, Shipper] = {}
        #: Fails with the :class:`SessionError` of the first session that can't go on; the
        #: others are not stopped.
        self.failed: Deferred[None] = Deferred()
        self._count = 0
        self._timer: IDelayedCall | None = None
        Hello(name).encode()  # checks it
        self._search(where)

    def search(self) -> None:
        """Look for new files at once."""
        self._search("oldest")

    def startService(self) -> None:
        super().startService()
        self._look()

    def stopService(self) -> Deferred[Any]:
        """Stop all: the Deferred fires when what was read has been acknowledged."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        stopped: Deferred[Any] = super().stopService()
        return stopped

    def _look(self) -> None:
        self._timer = self._reactor.callLater(INTERVAL, self._look)
        self._count += 1
        if self._count % round(SEARCH / INTERVAL) == 0:
            self.search()
        now = self._reactor.seconds()
        for index, shipper in enumerate(list(self.shippers.values())):
            # In turn, so that they do not come all at once.
            if now - shipper.active < QUIET or (index + self._count) % SELDOM == 0:
                shipper.look()

    def _search(self, where: str) -> None:
        found = dict.fromkeys(self._paths)
        for path in self._paths:
            if glob.has_magic(path) and not os.path.exists(path):
                del found[path]
                found |= dict.fromkeys(sorted(glob.glob(path, recursive=True)))
        logs = [os.path.split(path) for path in {**found, **self.shippers}]
        for path in found:
            if path in self.shippers or path in self._passed:
                continue
            if path not in self._paths and (
                suffix(path) or not os.path.isfile(path) or _rotated(path, logs)
            ):
                continue
            try:
                sessionOf(self._arguments[1], path)
            except ValueError as problem:
                if path in self._paths:
                    raise
                self._passed.add(path)
                self._refused(path, str(problem))
            else:
                self._add(path, where)

    def _add(self, path: str, where: str) -> None:
        shipper = self._make(self._reactor, *self._arguments, path, where=where, **self._how)
        shipper.failed.addErrback(self._failed, shipper)
        self.shippers[path] = shipper
        shipper.setServiceParent(self)

    def _failed(self, failure: Failure, shipper: Shipper) -> None:
        if self.failed.called:
            shipper.said(failure.getErrorMessage())
        else:
            self.failed.errback(failure)


def _rotated(path: str, logs: list[tuple[str, str]]) -> bool:
    """Return whether one of `logs`, folders and names, was rotated to `path`."""
    folder, name = os.path.split(path)
    return any(folder == other and older(log, name) for other, log in logs)
