"""The main program of a worker process, started by the supervisor."""

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from importlib import import_module
from io import BufferedReader, FileIO
from itertools import chain
from string import Formatter
from threading import Thread
from typing import Any, NoReturn

from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import LoopingCall
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    eventAsJSON,
    formatEvent,
)
from twisted.python import usage
from zope.interface import implementer

from sockservice.daemon.allornone import AllOrNone
from sockservice.daemon.early import Early
from sockservice.daemon.logqueue import LogQueue
from sockservice.daemon.options import Options
from sockservice.daemon.reload import Reloads, reloading
from sockservice.daemon.service import common, listen, process
from sockservice.daemon.signalqueue import SignalQueue
from sockservice.daemon.workers.process import DRAIN, LINES, RELIEVE, REPORTS, STORED, TOLD
from sockservice.errors import CannotStart
from sockservice.limits.counters import CounterSet
from sockservice.net.bind.reuseport import Inherited
from sockservice.net.clock import steady
from sockservice.status.process import INTERVAL
from sockservice.store.groupcommit import Store
from sockservice.store.pipe import Remote

#: Seconds between reports of counters to the parent, if they have changed.
COUNTING = 1.0

#: Times that a worker says it is alive, while its parent would wait for one.
BEATS = 4

#: Seconds between looks whether a retiring worker has connections yet.
LOOKING = 0.1

log = Logger()


@implementer(ILogObserver)
class Reports:
    """Reports to the parent, in lines.

    They are `log EVENT`, `counters COUNTS`, `ready`, `reloaded`, `retiring` and `alive`.

    Events are formatted by Twisted's `eventAsJSON`, with tracebacks as text; counts are
    JSON as well. The reports are written to `descriptor`, in the thread of `writing`: the
    parent may have no time to read them.
    """

    def __init__(self, descriptor: int, writing: LogQueue) -> None:
        self._descriptor = descriptor
        self._writing = writing
        self._counted: dict[str, Any] = {}
        self._counting = self._beating = self._telling = False

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        try:
            if failure is None:
                self._write("log", eventAsJSON(event | {"log_flattened": _specified(event)}))
                return
            more = {"traceback": failure.getTraceback(), "log_format": "{said}\n{traceback}"}
        except Exception:
            # Its format does not go with its fields, which is said in its place.
            more = {"log_format": "{said}"}
        known = {key: event[key] for key in event if key not in ("log_failure", "failure")}
        self._write("log", eventAsJSON(known | {"said": formatEvent(event)} | more))

    def count(self, counters: CounterSet) -> None:
        """Report the counters, if they have changed."""
        state = counters.state()
        if state != self._counted and not self._counting:
            self._counting = True
            self._counted = state
            self._writing.do(self._count)

    def _count(self) -> None:
        self._counting = False
        self._write("counters", json.dumps(self._counted))

    def tell(self, figures: dict[str, Any]) -> None:
        """Report the figures of this process, unless the last ones are not taken yet."""
        if not self._telling:
            self._telling = True
            self._writing.do(partial(self._tell, figures))

    def _tell(self, figures: dict[str, Any]) -> None:
        self._telling = False
        self._write("figures", json.dumps(figures))

    def retiring(self) -> None:
        """Report that this process was told to end and waits for another in its place."""
        self._writing.do(partial(self._write, "retiring", ""))

    def alive(self) -> None:
        """Report that the reactor turns."""
        if not self._beating:
            self._beating = True
            self._writing.do(self._beat)

    def _beat(self) -> None:
        self._beating = False
        self._write("alive", "")

    def reloaded(self) -> None:
        """Report that files have been read again."""
        self._writing.do(partial(self._write, "reloaded", ""))

    def ready(self) -> None:
        """Report that all listeners serve."""
        self._writing.do(partial(self._write, "ready", ""))

    def _write(self, kind: str, text: str) -> None:
        rest = memoryview(f"{kind} {text}\n".encode())
        # The parent may have gone.
        with suppress(BrokenPipeError):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]


def _specified(event: LogEvent) -> dict[str, str]:
    """Return the fields whose format has a specification, as `flattenEvent` keeps fields.

    It would leave out what is specified: 1.0123456 where `{seconds:.1f}` is to be 1.0.
    """
    fields: dict[str, str] = {}
    seen: Counter[str] = Counter()
    formatter = Formatter()
    for _, name, specification, conversion in formatter.parse(event.get("log_format") or ""):
        key = f"{name}!{'r' if conversion == 'r' else 's'}:{specification}"
        seen[key] += 1
        if specification and name and not name.endswith("()"):
            value, _ = formatter.get_field(name, (), event)
            shown = formatter.format_field(
                formatter.convert_field(value, conversion), specification
            )
            fields[key if seen[key] == 1 else f"{key}/{seen[key]}"] = shown
    return fields


def _heed(parent: Iterable[bytes], told: Callable[[dict[str, Any]], object]) -> None:
    """Pass on what the parent tells; end this process when it has ended, in whatever way.

    Runs in a thread, since an answer may keep the reactor busy.
    """
    for line in parent:
        told(json.loads(line))
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
    """Obey the signals of the parent, and of the operator."""
    # A terminal sends it to the parent as well, which decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    actions: dict[int, Callable[[], object]] = {
        signal.SIGTERM: retirement.begin,
        signal.SIGHUP: reloading,
        DRAIN: retirement.drain,
        RELIEVE: lambda: retirement.relieved(limit),
    }
    queue = SignalQueue(reactor, actions)
    for number in actions:
        signal.signal(number, queue.receiver)


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
    settings = json.loads(sys.argv[1])
    for each in chain((REPORTS, LINES, STORED), *settings["sockets"]):
        os.set_inheritable(each, False)
    import_module(settings["reactor"]).install()
    from twisted.internet import reactor as installed

    reactor: Any = installed
    steady(reactor)

    writing = LogQueue()
    reports = Reports(REPORTS, writing)
    # What ends the process finds it there, and has it write what is left.
    writing.install()
    writing.start()
    writing.beginLoggingTo([reports])
    options = Options()
    reloads: Reloads | None = None

    def told(what: dict[str, Any]) -> None:
        options.known, options.read = what["options"], what["read"]
        if reloads is not None:
            reloads.ask()

    parent = BufferedReader(FileIO(TOLD, closefd=False))
    first = json.loads(parent.readline() or sys.exit(1))
    heeding = partial(_heed, parent, partial(reactor.callFromThread, told))
    Thread(target=heeding, name="parent", daemon=True).start()
    try:
        options.processes = settings["workers"]
        options.take(first["options"])
        writing.most = options["log-queue"]
        store = Store(reactor, Remote(LINES, STORED)) if options.backend is not None else None
        ask = Inherited(settings["sockets"])
        shared = common(reactor, options, store, ask=ask, inherited=True)
        service = AllOrNone(store, journal=shared.journal, reactor=reactor, writing=writing)
        writing.dropped = shared.counters[""].unlog
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
    if options["status"] is not None:
        figures = process(shared, service)
        LoopingCall(lambda: reports.tell(figures.look())).start(INTERVAL)
    counting.start(COUNTING)

    def started() -> None:
        nonlocal reloads
        # The reactor has installed its own by now.
        retirement = Retirement(reactor, service, reports.retiring)
        reloads = reloading(reactor, options, shared, service)
        reloads.ended = reports.reloaded  # type: ignore[method-assign]
        _obey(reactor, reloads.ask, retirement, options["retire-timeout"])
        reports.ready()
        if settings["watchdog"]:
            beating = LoopingCall(reports.alive)
            beating.start(settings["watchdog"] / BEATS)
        if early.hungUp:
            reloads.ask()

    reactor.callWhenRunning(started)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    reports.count(shared.counters)


if __name__ == "__main__":
    main()
