"""The listener of the status page: bound with the others, served to the very end."""

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from sockservice.daemon.endpoints import BoundEndpoint, opened
from sockservice.daemon.shared import Shared
from sockservice.errors import CannotListen
from sockservice.net.stream import StreamPort
from sockservice.status.channel import Factory
from sockservice.status.events import Streams
from sockservice.status.health import Health
from sockservice.status.hosts import Hosts
from sockservice.status.overview import Overview
from sockservice.status.process import INTERVAL
from sockservice.status.site import Site, requests

#: Seconds in which responses may go out when all else has ended.
LAST = 2.0
#: Descriptors kept for connections to the page when the process has no others.
SPARE = 4

log = Logger()


class SparePort(StreamPort):
    """Accepts connections though the process is out of descriptors: it keeps some for that."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._spares: list[int] = []

    def refill(self) -> None:
        """Keep as many as before, as far as there are any."""
        while len(self._spares) < SPARE:
            try:
                self._spares.append(os.dup(self.fileno()))
            except OSError:
                return

    def release(self) -> None:
        """Keep none any more."""
        while self._spares:
            os.close(self._spares.pop())

    def _pause(self, reason: str) -> None:
        if self._spares:
            # The socket is still readable: it is tried again in the next turn.
            os.close(self._spares.pop())
        else:
            super()._pause(reason)


class StatusListener(Service):
    """Serves the status page at the endpoint `text`, and has its figures gathered.

    `stage` says whether the service starts, serves or drains.
    """

    def __init__(
        self, shared: Shared, overview: Overview, text: str, stage: Callable[[], str]
    ) -> None:
        options = shared.options
        self._reactor = shared.reactor
        self._shared = shared
        self._text = text
        self._bound: BoundEndpoint | None = None
        self._port: SparePort
        most = options["status-connections"]
        health = Health(overview, stage)
        hosts = Hosts(options["status-host"])
        # Scrapes and health checks have the other half.
        streams = Streams(max(1, most // 2))
        self._site = Site(overview, health, hosts, streams, shared.journal)
        self._factory = Factory(
            shared.reactor,
            requests(self._site),
            shared.counters["status"],
            shared.rejector,
            most=most,
            requestLimit=options["status-request-limit"],
            timeout=options["status-timeout"],
        )
        self._looking = LoopingCall(self._look)
        self._looking.clock = shared.reactor

    @property
    def inode(self) -> int | None:
        """The number of its socket, as a listener's."""
        return None if self._bound is None else os.fstat(self._bound.bound.socket.fileno()).st_ino

    @property
    def label(self) -> str:
        """What listens where."""
        at = self._text if self._bound is None else self._bound.at
        return f"status page listening on {at}"

    def privilegedStartService(self) -> None:
        """Bind the socket.

        :raises CannotListen: That is not possible.
        """
        super().privilegedStartService()
        self.open().bound.set(self._shared.options["socket-option"])

    def open(self) -> BoundEndpoint:
        """Ask for the socket.

        :raises CannotListen: There is none, or not for this.
        """
        try:
            found = opened(self._text, self._reactor, sockets=self._shared.sockets)
        except CannotListen as problem:
            raise CannotListen(f"--status: {problem}") from problem
        (first, *others) = found
        if others or not isinstance(first, BoundEndpoint) or not _serves(first, self._text):
            for each in found:
                each.close()
            why = "it has several addresses; name one" if others else "HTTP is not served there"
            raise CannotListen(f"--status {ascii(self._text)[1:-1]}: {why}")
        self._bound = first
        return first

    def startService(self) -> None:
        """Serve, binding first where that was not asked for."""
        if self._bound is None:
            self.privilegedStartService()
        super().startService()
        found = self._bound
        assert found is not None, "it is bound by now"
        backlog = found.backlog or self._shared.options["backlog"]
        served = found.wrapped(self._factory)
        self._port = SparePort(self._reactor, found.bound.socket, served, backlog)
        with found.bound.telling():
            self._port.startListening()
        log.info("{name}", name=self.label)
        self._looking.start(INTERVAL)

    def _look(self) -> None:
        self._port.refill()
        try:
            self._site.look()
        except Exception:
            # It is looked again in a second.
            log.failure("the status page could not be brought up to date")

    def reread(self) -> Callable[[], object]:
        """Read the certificate again, in any thread; give what lets it hold.

        :raises CannotListen: It is missing or invalid.
        """
        if self._bound is None or self._bound.tls is None:
            return lambda: None
        return self._bound.tls.reread()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Close it, when all else has ended; fires when its connections have."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()
        self._port.release()
        self._port.stopListening()
        self._factory.finish()
        deadline = self._reactor.seconds() + LAST
        while self._factory.open and self._reactor.seconds() < deadline:
            yield deferLater(self._reactor, 0.02, lambda: None)
        self._factory.cut()
        self.abandon()

    def abandon(self) -> None:
        """Undo the binding."""
        if self._bound is not None:
            self._bound.close()


def _serves(found: BoundEndpoint, text: str) -> bool:
    return found.bound.socket.type == socket.SOCK_STREAM and not text.startswith("haproxy:")
