"""Ship several log files, and those that come to match a pattern."""

import glob
import os
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.client.ship.chain import current, older
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


def _told(shipper: Shipper) -> None:
    log.info("{path} is there no more, and all of it is stored", path=shipper.path)


class Shipping(MultiService):
    """Ships the files that `paths` name, each in a session of its own (see :class:`Shipper`).

    A path may be a pattern, as of :mod:`glob`, with `**`: files that come to match it are
    shipped from their beginning. What a file was rotated to is not shipped for itself, nor are
    compressed files. `make` makes the services, called as :class:`Shipper` is. `refused` is
    told the path of a file that matches but is too long for the name of a session, and why it
    is passed over; `retired` is told of the service of one that matched and is there no more, when
    all is stored: it ends, and if the file comes again, another begins. Without them it is logged.

    :raises ValueError: `name` is no name of a session, or a path is too long for that or names
        no file.
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
        retired: Callable[[Shipper], object] = _told,
        where: str = "oldest",
        **how: Any,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._arguments = target, name
        self._paths = paths
        self._make = make
        self._refused = refused
        self._retired = retired
        self._shipped: dict[str, str] = {}  # the paths of `shippers`, by the absolute ones
        self._passed: set[str] = set()  # absolute paths that were refused
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
        # By absolute paths, for the same file must not be shipped twice.
        named: dict[str, str] = {}
        matching: dict[str, str] = {}
        for path in self._paths:
            if not glob.has_magic(path) or os.path.exists(path):
                named.setdefault(os.path.abspath(path), path)
                continue
            for each in sorted(glob.glob(path, recursive=True)):
                if log := _log(each, path):
                    matching.setdefault(os.path.abspath(log), log)
        logs = [os.path.split(path) for path in {**named, **matching, **self._shipped}]
        for place, path in {**matching, **named}.items():
            if place in self._shipped or place in self._passed:
                continue
            if place not in named and _rotated(place, logs):
                continue
            try:
                sessionOf(self._arguments[1], path)
            except ValueError as problem:
                if place in named:
                    raise
                self._passed.add(place)
                self._refused(path, str(problem))
            else:
                self._shipped[place] = path
                self._add(path, where)
        for place, path in list(self._shipped.items()):
            # Else connections would become ever more where files come and go.
            if place not in named and place not in matching and self.shippers[path].finished:
                del self._shipped[place]
                shipper = self.shippers.pop(path)
                shipper.disownServiceParent()
                self._retired(shipper)

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


def _log(path: str, pattern: str) -> str:
    """Return the log file that `path`, which matches `pattern`, is of, if it is of any.

    That is another if `path` is what a file was rotated to that matches, too. It need not be
    there: a program may make it later.
    """
    if suffix(path) or not os.path.isfile(path):
        return ""
    folder, name = os.path.split(path)
    log = current(name)
    return (
        os.path.join(folder, log) if log and fnmatchcase(log, os.path.basename(pattern)) else path
    )


def _rotated(path: str, logs: list[tuple[str, str]]) -> bool:
    """Return whether one of `logs`, folders and names, was rotated to `path`."""
    folder, name = os.path.split(path)
    return any(folder == other and older(log, name) for other, log in logs)
