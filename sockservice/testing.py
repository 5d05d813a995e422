"""For tests of your own protocol: the real client joined to your server in memory."""

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.test.iosim import FakeTransport, connect

from sockservice.client.line import LineClient
from sockservice.server.factory import LineFactory
from sockservice.server.line import LineServer
from sockservice.wire.framer import Framer
from sockservice.wire.framing import Framing


class Pair:
    """A LineClient connected to a server that `protocol` makes; no sockets, no reactor.

    `settings` are those of :class:`~sockservice.server.factory.LineFactory`. The time of
    both is `clock`. Bytes move when `flush` is called.
    """

    def __init__(
        self,
        protocol: Callable[[], LineServer],
        *,
        framing: Callable[[int], Framing] = Framer,
        **settings: Any,
    ) -> None:
        self.clock = Clock()
        self.factory = LineFactory(self.clock, protocol, **settings)
        self.server = self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 50000))
        self.client = LineClient(self.clock, framing)
        self._pump = connect(
            self.server,
            FakeTransport(self.server, isServer=True),
            self.client,
            FakeTransport(self.client, isServer=False),
        )

    def flush(self) -> None:
        """Move bytes both ways until neither side has any to send."""
        self._pump.flush()

    def ask(self, line: bytes) -> Deferred[bytes]:
        """Ask `line` as the client, and flush."""
        reply = self.client.ask(line)
        self.flush()
        return reply
