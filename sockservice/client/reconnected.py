"""The connections of a reliable sender, which tell it of their beginning and their end."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.client.farewell import TurnedAway, rejected
from sockservice.client.line import LineClient

if TYPE_CHECKING:
    from sockservice.client.reliable import ReliableSender


class Reconnected(LineClient):
    """A connection that tells the sender of its start and end."""

    def __init__(self, sender: "ReliableSender", timeout: float, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._sender = sender
        self._timeout = timeout

    def connectionMade(self) -> None:
        super().connectionMade()
        self.greeted(self._timeout).addCallbacks(
            lambda _: self._sender.connected(self),
            lambda failure: self._sender.ungreeted(self, failure),
        )

    def unasked(self, line: bytes) -> None:
        self._sender.unasked(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        cause = TurnedAway(self.refusal) if rejected(self.refusal) else reason.value
        self._sender.ended(cause)
        self._sender.disconnected(self, self._closed or "")


@implementer(IStreamClientEndpoint)
class Telling:
    """An endpoint that reports each failure to connect."""

    def __init__(self, endpoint: Any, failed: Callable[[Failure], Failure]) -> None:
        self._endpoint = endpoint
        self._failed = failed

    def connect(self, factory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addErrback(self._failed)
