"""Build the running service that the options ask for."""

# What is imported when a name is looked up has to be here before twistd changes the root.
import encodings.idna  # noqa: F401
import select
from functools import partial
from typing import Any

from twisted.application.service import MultiService

from sockservice.daemon.allornone import AllOrNone
from sockservice.daemon.early import installed
from sockservice.daemon.exit import endWith, giveUp
from sockservice.daemon.listeners import HostPort, Listen
from sockservice.daemon.options import Options
from sockservice.daemon.readiness import Readiness
from sockservice.daemon.reload import Tuning, reload
from sockservice.daemon.report import Report
from sockservice.daemon.shared import Shared
from sockservice.daemon.signals import Signals
from sockservice.limits.admission import Admission
from sockservice.limits.counters import Counters
from sockservice.limits.lograte import Journal
from sockservice.limits.memory import MemoryLimit
from sockservice.limits.rejection import Rejector
from sockservice.net.bind.reuseport import Ask, Sharing, asked
from sockservice.net.clock import steady
from sockservice.net.epoll import Descriptors
from sockservice.server.reversedns import Names
from sockservice.store.groupcommit import Store


def makeService(options: Options) -> MultiService:
    """Build the service that `options` ask for; it binds when twistd starts it."""
    # twistd has chosen and installed its reactor only by now.
    from twisted.internet import reactor

    steady(reactor)
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
    service = AllOrNone(store, shared.counters, shared.journal, early, reactor)
    if options["report"] is not None:
        Report(reactor, shared.counters, options["report"]).setServiceParent(service)
    readiness = Readiness(options["ready-file"])
    Signals(
        reactor,
        lambda: reload(options, shared, service),
        early,
        readiness,
        options["lame-duck"],
    ).setServiceParent(service)
    listen(options, shared, service)
    if isinstance(ask, Sharing):
        from sockservice.daemon.workers.supervisor import Workers

        Workers(
            reactor,
            workers,
            options.given,
            ask,
            shared.counters,
            lambda reason: giveUp(reactor, f"cannot serve: {reason}"),
            store=store,
            socketOptions=options["socket-option"],
            steered=options.limits().perSource,
            ready=readiness.ready,
        ).setServiceParent(service)
    else:
        service.ready = partial(reactor.callWhenRunning, readiness.ready)  # type: ignore[method-assign]
    return service


def common(
    reactor: Any,
    options: Options,
    store: Store | None,
    *,
    ask: Ask = asked,
    held: bool = False,
    inherited: bool = False,
) -> Shared:
    """Make what all listeners of a process share; what may change is set when they start."""
    journal = Journal(reactor)
    return Shared(
        reactor,
        options,
        Counters(),
        set(),
        Admission(options.limits()),
        Rejector(reactor, journal),
        MemoryLimit(),
        journal,
        names=Names(reactor, journal) if options["resolve"] else None,
        store=store,
        descriptors=Descriptors(reactor) if hasattr(select, "epoll") and not held else None,
        ask=ask,
        held=held,
        inherited=inherited,
    )


def listen(options: Options, shared: Shared, service: AllOrNone) -> None:
    """Give `service` the listeners that `options` ask for, and what sets what may change."""
    if not options["listen"] or options.chosen & {"host", "port"}:
        HostPort(shared, options["host"], options["port"]).setServiceParent(service)
    for text in options["listen"]:
        Listen(shared, text).setServiceParent(service)
    Tuning(options, shared, service).setServiceParent(service)
