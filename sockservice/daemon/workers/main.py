"""The main program of a worker process, started by the supervisor."""

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from importlib import import_module
from itertools import chain
from threading import RLock, Thread
from typing import Any, NoReturn

from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import LoopingCall
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    eventAsJSON,
    formatEvent,
    globalLogBeginner,
)
from twisted.python import usage
from zope.interface import implementer

from sockservice.daemon.allornone import AllOrNone
from sockservice.daemon.early import Early
from sockservice.daemon.options import Options
from sockservice.daemon.reload import reload
from sockservice.daemon.service import common, listen
from sockservice.daemon.workers.process import DRAIN, LINES, RELIEVE, REPORTS, STORED
from sockservice.errors import CannotStart
from sockservice.limits.counters import Counters
from sockservice.net.bind.reuseport import Inherited
from sockservice.net.clock import steady
from sockservice.store.groupcommit import Store
from sockservice.store.pipe import Remote

#: Seconds between reports of counters to the parent, if they have changed.
COUNTING = 1.0

#: Seconds between looks whether a retiring worker has connections yet.
LOOKING = 0.1

log = Logger()


@implementer(ILogObserver)
class Reports:
    """Reports to the parent, in lines: `log EVENT`, `counters COUNTS`, `ready`, `retiring`.

    Events are formatted by Twisted's `eventAsJSON`, with tracebacks as text; counts are
    JSON as well. The reports are written to `descriptor`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # Several threads log; and one may log while it is logging, in garbage collection.
        self._lock = RLock()
        self._counted = Counters()

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is not None:
            event = {key: event[key] for key in event if key not in ("log_failure", "failure")} | {
                "said": formatEvent(event),
                "traceback": failure.getTraceback(),
                "log_format": "{said}\n{traceback}",
            }
        self._write("log", eventAsJSON(dict(event)))

    def count(self, counters: Counters) -> None:
        """Report the counters, if they have changed."""
        if counters != self._counted:
            self._counted = replace(counters)
            self._write("counters", json.dumps(asdict(counters)))

    def retiring(self) -> None:
        """Report that this process was told to end and waits for another in its place."""
        self._write("retiring", "")

    def ready(self) -> None:
        """Report that all listeners serve."""
        self._write("ready", "")

    def _write(self, kind: str, text: str) -> None:
        rest = memoryview(f"{kind} {text}\n".encode())
        # The parent may have gone.
        with self._lock, suppress(BrokenPipeError):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]


def _endWithParent() -> None:
    """End this process when its parent has ended, in whatever way.

    Runs in a thread, since an answer may keep the reactor busy.
    """
    os.read(0, 1)
    os._exit(1)


class Retirement:
    """The end of a worker that breaks no connection, for SIGTERM; the second one is a drain.

    It goes on as before until another serves in its place, then with the connections it has,
    until they have ended; `limit` seconds at most, if it is not 0.
    """

    def __init__(self, reactor: Any, service: AllOrNone, retiring: Callable[[], None]) -> None:
        self._reactor = reactor
        self._service = service
        self._retiring = retiring
        self._begun = False
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def begin(self) -> None:
        """Ask for another in its place; or drain, if that was done before."""
        if self._begun:
            self.drain()
            return
        self._begun = True
        log.info("SIGTERM: another takes this place; its connections are served until they end")
        self._retiring()

    def relieved(self, limit: float) -> None:
        """Accept nothing more: another does."""
        self._service.retire()
        if not self._looking.running:
            self._looking.start(LOOKING)
            if limit:
                self._reactor.callLater(limit, self.drain)

    def drain(self) -> None:
        """Answer what was received, and end."""
        with suppress(ReactorNotRunning):
            self._reactor.stop()

    def _look(self) -> None:
        if not self._service.connections:
            self.drain()


def _obey(
    reactor: Any, reloading: Callable[[], object], retirement: Retirement, limit: float
) -> None:
    """Install handlers for the signals of the parent, and of the operator."""
    # A terminal sends it to the parent as well, which decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number, do in (
        (signal.SIGTERM, retirement.begin),
        (signal.SIGHUP, reloading),
        (DRAIN, retirement.drain),
        (RELIEVE, lambda: retirement.relieved(limit)),
    ):
        signal.signal(number, lambda *_, do=do: reactor.callFromThread(do))


def _cannotStart(reason: str) -> NoReturn:
    """End with a reason, for which the parent takes the last line on stderr."""
    # sys.stderr is the log by now.
    print(reason, file=sys.__stderr__)
    sys.exit(1)


def main() -> None:
    """Serve the sockets that the parent has bound, until it ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    early = Early()
    early.install()
    Thread(target=_endWithParent, name="parent", daemon=True).start()
    settings = json.loads(sys.argv[1])
    for each in chain((REPORTS, LINES, STORED), *settings["sockets"]):
        os.set_inheritable(each, False)
    import_module(settings["reactor"]).install()
    from twisted.internet import reactor as installed

    reactor: Any = installed
    steady(reactor)

    reports = Reports(REPORTS)
    globalLogBeginner.beginLoggingTo([reports])
    options = Options()
    try:
        options.parseOptions(sys.argv[2:])
        options.processes = settings["workers"]
        store = Store(reactor, Remote(LINES, STORED)) if options.backend is not None else None
        ask = Inherited(settings["sockets"])
        shared = common(reactor, options, store, ask=ask, inherited=True)
        service = AllOrNone(store, journal=shared.journal, reactor=reactor)
        listen(options, shared, service)
        service.privilegedStartService()
        service.startService()
    except usage.UsageError as problem:
        _cannotStart(f"sockservice: {problem}")
    except CannotStart:
        sys.exit(1)  # the service has said why
    except Exception as problem:
        log.failure("cannot start")
        _cannotStart(f"{type(problem).__name__}: {problem}")
    counting = LoopingCall(reports.count, shared.counters)
    counting.start(COUNTING)

    def started() -> None:
        # The reactor has installed its own by now.
        retirement = Retirement(reactor, service, reports.retiring)
        _obey(
            reactor,
            lambda: reload(options, shared, service),
            retirement,
            options["retire-timeout"],
        )
        reports.ready()
        if early.hungUp:
            reload(options, shared, service)

    reactor.callWhenRunning(started)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    reports.count(shared.counters)


if __name__ == "__main__":
    main()
