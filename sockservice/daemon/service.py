"""Build the running service that the options ask for."""

# What is imported when a name is looked up has to be here before twistd changes the root.
import encodings.idna  # noqa: F401
import os
import select
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed

from sockservice.daemon import logqueue
from sockservice.daemon.allornone import AllOrNone
from sockservice.daemon.early import installed
from sockservice.daemon.exit import endWith, giveUp
from sockservice.daemon.listeners import HostPort, Listen
from sockservice.daemon.logqueue import LogQueue
from sockservice.daemon.options import Options
from sockservice.daemon.readiness import Readiness
from sockservice.daemon.reload import Tuning, reloading
from sockservice.daemon.report import Report, figures
from sockservice.daemon.rundir import running
from sockservice.daemon.services import HeldListener
from sockservice.daemon.shared import Shared
from sockservice.daemon.signals import Signals
from sockservice.daemon.systemd import Systemd
from sockservice.limits import openfiles
from sockservice.limits.admission import Admission
from sockservice.limits.counters import CounterSet
from sockservice.limits.lograte import Journal
from sockservice.limits.memory import MemoryLimit
from sockservice.limits.rejection import Rejector
from sockservice.limits.settings import SETTINGS
from sockservice.net.bind.reuseport import Ask, Sharing, asked
from sockservice.net.bind.sockets import BINDING, Sockets
from sockservice.net.clock import steady
from sockservice.server.lone import LoneLines
from sockservice.server.reversedns import Names
from sockservice.status.process import Process
from sockservice.store.groupcommit import Store

if TYPE_CHECKING:
    from sockservice.daemon.statuslistener import StatusListener
    from sockservice.daemon.workers.supervisor import Workers


def makeService(options: Options) -> MultiService:
    """Build the service that `options` ask for; it binds when twistd starts it."""
    # twistd has chosen and installed its reactor only by now.
    from twisted.internet import reactor

    steady(reactor)
    writing = logqueue.installed()
    if writing is None:
        writing = LogQueue()
        writing.install()
    writing.most = options["log-queue"]
    early = installed()
    if early is not None:
        early.began()
    store = None
    if options.backend is not None:
        store = Store(reactor, options.backend)
        store.failed.addCallback(lambda _: endWith(reactor, 1))
    workers = options["workers"]
    ask = asked if workers == 1 else Sharing(workers)
    shared = common(reactor, options, store, ask=ask, held=workers > 1)
    service = AllOrNone(store, shared.counters, shared.journal, early, reactor, writing)
    writing.dropped = shared.counters[""].unlog
    if options["report"] is not None:
        Report(reactor, shared.counters, options["report"], store).setServiceParent(service)
    supervisor: Any = None
    path = options["ready-file"]
    systemd = Systemd(
        reactor,
        os.environ,
        lambda: figures(
            shared.counters.total, service.connections if workers == 1 else None, store
        ),
        (lambda answered: answered()) if store is None else store.ping,
    )
    readiness = Readiness(None if path is None else running(path, options.parent), systemd)

    reloaded: Callable[[], Deferred[None]] = partial(succeed, None)
    reloads = reloading(reactor, options, shared, service)
    reloads.begun = systemd.reloading  # type: ignore[method-assign]
    reloads.ended = lambda: reloaded().addCallback(lambda _: systemd.reloaded())  # type: ignore[method-assign]
    Signals(
        reactor,
        reloads,
        early,
        readiness,
        options["lame-duck"],
    ).setServiceParent(service)
    listen(options, shared, service)
    if isinstance(ask, Sharing):
        from sockservice.daemon.workers.supervisor import Workers

        supervisor = Workers(
            reactor,
            workers,
            options.given,
            ask,
            shared.counters,
            lambda reason: giveUp(reactor, f"cannot serve: {reason}"),
            store=store,
            socketOptions=options["socket-option"],
            steered=options.limits().perSource,
            starting=options["start-timeout"],
            ready=partial(_served, service, readiness),
            watchdog=systemd.watchdog,
            telling=lambda: {"options": options.told(shared.inForce), "read": options.read},
        )
        supervisor.setServiceParent(service)
        reloaded = supervisor.reloaded
    if options["status"] is not None:
        service.status = statusListener(
            options, shared, service, lambda: readiness.stage, supervisor
        )

    def started() -> None:
        if workers == 1:
            readiness.ready()
        systemd.start()

    service.ready = partial(reactor.callWhenRunning, started)  # type: ignore[method-assign]
    service.ended = systemd.close  # type: ignore[method-assign]
    return service


def statusListener(
    options: Options,
    shared: Shared,
    service: AllOrNone,
    stage: Callable[[], str],
    workers: "Workers | None" = None,
) -> "StatusListener":
    """Make the listener of the status page."""
    # Only where it is wanted: HTTP is a third of the time that a service takes to start.
    from sockservice.daemon.statuslistener import StatusListener
    from sockservice.status.overview import Overview

    overview = Overview(
        shared.reactor,
        process(shared, service),
        shared.counters,
        shared.inForce,
        service.listeners,
        shared.store,
        None if workers is None else workers.told,
    )
    if workers is not None:
        workers.measured = overview.measured
    return StatusListener(shared, overview, options["status"], stage)


def process(shared: Shared, service: AllOrNone) -> Process:
    """Make what gathers the figures of this process."""
    return Process(shared.reactor, service.listeners, shared.memory, shared.store)


def _served(service: AllOrNone, readiness: Readiness) -> None:
    """Say that other processes serve all that is held here."""
    for each in service.listeners():
        if isinstance(each, HeldListener):
            each.announce()
    readiness.ready()


def common(
    reactor: Any,
    options: Options,
    store: Store | None,
    *,
    ask: Ask = asked,
    held: bool = False,
    inherited: bool = False,
    sockets: Sockets = BINDING,
) -> Shared:
    """Make what all listeners of a process share; what may change is set when they start."""
    journal = Journal(reactor)
    admission = Admission(options.limits())
    watched = hasattr(select, "epoll") and not held
    return Shared(
        reactor,
        options,
        CounterSet(),
        set(),
        admission,
        Rejector(reactor, journal),
        MemoryLimit(),
        journal,
        names=Names(reactor, journal) if options["resolve"] else None,
        store=store,
        descriptors=LoneLines(reactor, admission) if watched else None,
        ask=ask,
        sockets=sockets,
        held=held,
        inherited=inherited,
        inForce={each.name: options[each.name] for each in SETTINGS},
    )


def listen(options: Options, shared: Shared, service: AllOrNone) -> None:
    """Give `service` the listeners that `options` ask for, and what sets what may change."""
    # A listener may have several addresses.
    openfiles.reserve(4 * len(options["listen"]) * options["workers"])
    if not options["listen"] or options.chosen & {"host", "port"}:
        HostPort(shared, options["host"], options["port"]).setServiceParent(service)
    for text in options["listen"]:
        Listen(shared, text).setServiceParent(service)
    Tuning(options, shared, service).setServiceParent(service)
