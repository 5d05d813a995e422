"""End a connection without missing what the server still says."""

from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import ISSLTransport
from twisted.python.failure import Failure

from sockservice.client.line import LineClient
from sockservice.net.transports import halfCloses

#: Seconds that a server has to close as well once all is answered.
GRACE = 1.0


def halfClose(client: LineClient) -> bool:
    """Tell the server that nothing more will be sent, and read on; return whether that can be."""
    transport: Any = client.transport
    if client.disconnected().called:
        return False
    if not halfCloses(transport) or ISSLTransport.providedBy(transport):
        return False
    transport.loseWriteConnection()
    return True


def part(client: LineClient, clock: Any, seconds: float = GRACE) -> Deferred[None]:
    """End the connection, all replies being in: half-close, and read until the server closes.

    If it hasn't within `seconds`, close. A line that comes meanwhile is one too many: it is
    passed to `unasked` as at any time. Over TLS, whose close_notify has the server close
    as well (RFC 5246, 7.2.1), what it sends until then is read, too.
    """
    client.leave()
    halved = halfClose(client)
    ended = client.disconnected() if halved else client.close()

    def late(failure: Failure) -> Deferred[None]:
        failure.trap(TimeoutError)
        return client.close() if halved else client.abort()

    def farewell(_: object) -> None:
        if client.refusal:
            # As the reply to a line it would be one too many, too.
            client.unasked(client.refusal.encode())

    return ended.addTimeout(seconds, clock).addErrback(late).addCallback(farewell)
