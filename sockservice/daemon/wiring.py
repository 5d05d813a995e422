"""Join a protocol, its factory and an opened endpoint to one service."""

import socket

from sockservice.daemon.endpoints import BoundEndpoint, Foreign
from sockservice.daemon.protocols import datagramProtocol, streamProtocol
from sockservice.daemon.services import (
    DatagramListener,
    ForeignListener,
    FrameListener,
    Listener,
    StreamListener,
)
from sockservice.daemon.shared import Shared
from sockservice.distribution import Distribution
from sockservice.errors import CannotListen
from sockservice.server.datagram import DatagramServer
from sockservice.server.factory import LineFactory


def wired(shared: Shared, protocol: str, found: BoundEndpoint | Foreign) -> Listener:
    """Make the service that serves `protocol`, or the usual one, on what was opened.

    :raises CannotListen: There is no such protocol, or not for this.
    """
    # What is inherited has them already.
    if not (isinstance(found, Foreign) or shared.inherited):
        found.bound.set(shared.options["socket-option"])
    at = found.at
    name = f"{protocol or found.usual} listening on {at}"
    if not isinstance(found, Foreign) and found.scheme == "raw":
        if protocol not in ("", found.usual):
            raise CannotListen(f"{protocol} is no protocol for raw frames")
        return FrameListener(shared.reactor, found.bound, name)
    if not isinstance(found, Foreign) and not found.stream:
        made = datagramProtocol(protocol or found.usual, stored=shared.stored)
        served = made(**shared.keywords(DatagramServer, clock=shared.reactor, listener=at))
        # Workers have a socket each where they can have the same address.
        own = found.bound.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        several = shared.inherited and not own
        listener = DatagramListener(shared.reactor, found.bound, name, served, several)
        if shared.options["status"] is not None:
            listener.sizes = served.sizes = Distribution()
        return listener
    build = streamProtocol(protocol or found.usual, stored=shared.stored)
    if shared.store is not None and build().sessions:
        most, age = shared.options["max-sessions"], shared.options["session-age"]
        shared.store.keepSessions(most, age, shared.counters[""].expire)
    factory = LineFactory(
        shared.reactor,
        build,
        **shared.keywords(LineFactory, listener=at),
    )
    wrapped = found.wrapped(factory)
    if isinstance(found, Foreign):
        return ForeignListener(shared.reactor, found.endpoint, found.text, name, factory, wrapped)
    backlog = found.backlog or shared.options["backlog"]
    return StreamListener(
        shared.reactor, found.bound, backlog, name, factory, wrapped, shared.descriptors
    )
