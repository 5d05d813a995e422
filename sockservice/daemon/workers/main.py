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
from sockservice.daemon.workers.process import LINES, REPORTS, STORED
from sockservice.errors import CannotStart
from sockservice.limits.counters import Counters
from sockservice.net.bind.reuseport import Inherited
from sockservice.net.clock import steady
from sockservice.store.groupcommit import Store
from sockservice.store.pipe import Remote

#: Seconds between reports of counters to the parent, if they have changed.
COUNTING = 1.0

log = Logger()


@implementer(ILogObserver)
class Reports:
    """Reports to the parent, in lines: `log EVENT`, `counters COUNTS`, `ready`.

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


def _obey(reactor: Any, reloading: Callable[[], object]) -> None:
    """Install handlers for the signals of the parent."""

    def stop() -> None:
        with suppress(ReactorNotRunning):
            reactor.stop()

    # A terminal sends it to the parent as well, which decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(stop))
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reloading))


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
        _obey(reactor, lambda: reload(options, shared, service))
        reports.ready()
        if early.hungUp:
            reload(options, shared, service)

    reactor.callWhenRunning(started)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    reports.count(shared.counters)


if __name__ == "__main__":
    main()
