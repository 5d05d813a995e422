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
from sockservice.daemon.options import HOST, PORT, Options
from sockservice.daemon.readiness import Readiness
from sockservice.daemon.reload import reload
from sockservice.daemon.report import Report
from sockservice.daemon.shared import Shared
from sockservice.daemon.signals import Signals
from sockservice.limits import openfiles
from sockservice.limits.admission import Admission
from sockservice.limits.counters import Counters
from sockservice.limits.lograte import Journal
from sockservice.limits.memory import Memory
from sockservice.limits.rejection import Turning
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
    service.drainTimeout = options["drain-timeout"]
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

        supervising = Workers(
            reactor,
            workers,
            options.given,
            ask,
            shared.counters,
            lambda reason: giveUp(reactor, f"cannot serve: {reason}"),
            store=store,
            socketOptions=options.socketOptions,
            steered=options.limits().perSource,
            ready=readiness.ready,
        )
        supervising.drainTimeout = options["drain-timeout"]
        supervising.setServiceParent(service)
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
    """Make what all listeners of a process share, and allow it as many open files."""
    openfiles.allow(options.share("max-connections"))
    journal = Journal(reactor, options["log-limit"])
    return Shared(
        reactor,
        Counters(),
        set(),
        Admission(options.limits()),
        Turning(reactor, journal),
        Memory(options.share("memory-limit")),
        journal,
        backlog=options["backlog"],
        lineLimit=options["line-limit"],
        verbose=bool(options["verbose"]),
        http=bool(options["accept-http"]),
        silent=not options["skip-silent"],
        # What is inherited has them already.
        socketOptions=() if inherited else options.socketOptions,
        names=Names(reactor, journal) if options["resolve"] else None,
        store=store,
        descriptors=Descriptors(reactor) if hasattr(select, "epoll") and not held else None,
        drainTimeout=options["drain-timeout"],
        ask=ask,
        held=held,
        inherited=inherited,
    )


def listen(options: Options, shared: Shared, service: AllOrNone) -> None:
    """Give `service` the listeners that `options` ask for."""
    host, port = options["host"], options["port"]
    if not options.listen or host is not None or port is not None:
        HostPort(
            shared, HOST if host is None else host, PORT if port is None else port
        ).setServiceParent(service)
    for text in options.listen:
        Listen(shared, text).setServiceParent(service)
