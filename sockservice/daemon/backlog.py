"""The connections that a stopping port could not accept yet, for want of descriptors."""

from collections.abc import Callable
from typing import Any

from sockservice.net.stream import StreamPort
from sockservice.server.factory import LineFactory


class Backlog:
    """What a port that stops could not accept yet, for want of descriptors.

    To `factory` it is one connection that is expected. As others are closed, it accepts; when
    all is accepted, `close` closes the socket.
    """

    #: Seconds between two attempts.
    RETRY = 0.02

    def __init__(
        self, reactor: Any, port: StreamPort, factory: LineFactory, close: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._port = port
        self._factory = factory
        self._close = close
        self._waiting = reactor.callLater(self.RETRY, self._accept)
        #: What a factory cuts.
        self.transport = self

    def finish(self) -> None:
        """Do nothing: each connection is finished when it is accepted."""

    def inspect(self, now: float, idle: int, unfinished: int) -> None:
        """Do nothing: none of them is late."""

    def abortConnection(self) -> None:
        """Accept no more; close what is left as soon as descriptors are free."""
        self._waiting.cancel()
        self._waiting = self._reactor.callLater(self.RETRY, self._cut)

    def _accept(self) -> None:
        if self._port.acceptRest():
            self._end()
        else:
            self._waiting = self._reactor.callLater(self.RETRY, self._accept)

    def _cut(self) -> None:
        cut = self._port.cutRest()
        self._factory.counters.connections += cut
        self._factory.counters.cut += cut
        self._end()

    def _end(self) -> None:
        self._close()
        self._factory.unexpected(self)
