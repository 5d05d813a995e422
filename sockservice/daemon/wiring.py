"""Join a protocol, its factory and an opened endpoint to one service."""

from sockservice.daemon.endpoints import Foreign, Opened
from sockservice.daemon.protocols import datagramProtocol, streamProtocol
from sockservice.daemon.services import (
    DatagramListener,
    ForeignListener,
    FrameListener,
    Listener,
    StreamListener,
)
from sockservice.daemon.shared import Shared
from sockservice.errors import CannotListen
from sockservice.server.factory import LineFactory


def wired(shared: Shared, protocol: str, found: Opened | Foreign) -> Listener:
    """Make the service that serves `protocol`, or the usual one, on what was opened.

    :raises CannotListen: There is no such protocol, or not for this.
    """
    if not isinstance(found, Foreign):
        found.bound.set(shared.socketOptions)
    at = found.scheme if isinstance(found, Foreign) else f"{found.scheme}:{found.bound.name}"
    name = f"{protocol or found.usual} listening on {at}"
    if not isinstance(found, Foreign) and found.scheme == "raw":
        if protocol not in ("", found.usual):
            raise CannotListen(f"{protocol} is no protocol for raw frames")
        return FrameListener(shared.reactor, found.bound, name)
    if not isinstance(found, Foreign) and not found.stream:
        made = datagramProtocol(protocol or found.usual, stored=shared.stored)
        served = made(
            counters=shared.counters,
            verbose=shared.verbose,
            ownPorts=shared.ownPorts,
            clock=shared.reactor,
            store=shared.store,
            listener=at,
            admission=shared.admission,
            journal=shared.journal,
        )
        return DatagramListener(shared.reactor, found.bound, name, served)
    factory = LineFactory(
        shared.reactor,
        streamProtocol(protocol or found.usual, stored=shared.stored),
        lineLimit=shared.lineLimit,
        verbose=shared.verbose,
        http=shared.http,
        silent=shared.silent,
        counters=shared.counters,
        names=shared.names,
        store=shared.store,
        listener=at,
        admission=shared.admission,
        turning=shared.turning,
        memory=shared.memory,
        journal=shared.journal,
    )
    wrapped = found.wrapped(factory)
    if isinstance(found, Foreign):
        return ForeignListener(shared.reactor, found.endpoint, found.text, name, factory, wrapped)
    backlog = found.backlog or shared.backlog
    return StreamListener(
        shared.reactor, found.bound, backlog, name, factory, wrapped, shared.descriptors
    )
