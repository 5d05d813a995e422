"""HTTP with bounds: connections, bytes of a request, and seconds, each told when it is met."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web import http
from zope.interface import implementer

from sockservice.limits.counters import Counters
from sockservice.limits.rejection import Rejector
from sockservice.net.addresses import named
from sockservice.net.linger import Linger
from sockservice.net.transports import halfCloses
from sockservice.wire.plurals import counted, inSeconds

#: Header lines of a request: browsers send some twenty.
HEADERS = 100
#: Seconds that a peer has to read a refusal, and a closing connection to be closed.
PATIENCE = 5

#: Requests that are answered at once when they come in one go; then the connection is closed:
#: lines wait meanwhile.
BURST = 16

#: Sent with every response: nothing is kept, framed, guessed or told to others.
SAFE = (
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
#: The policy of what holds no page.
NOTHING = "default-src 'none'; frame-ancestors 'none'"


def phrase(status: int) -> str:
    """Return what a status code is called; RFC 9110, 15."""
    return HTTPStatus(status).phrase


def refusal(status: int, text: str) -> bytes:
    """Return a whole response that refuses, after which the connection is closed."""
    reason = phrase(status)
    body = f"{status} {reason}: {text}\n".encode()
    lines = [
        f"HTTP/1.1 {status} {reason}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        f"Content-Security-Policy: {NOTHING}",
        *(f"{name}: {value}" for name, value in SAFE),
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


@implementer(IHalfCloseableProtocol)
class Channel(http.HTTPChannel):
    """One connection; a request has to come whole within the factory's `timeOut` seconds.

    The time begins with the connection, or with the end of the response before: neither a
    byte now and then nor unread responses prolong it.
    """

    maxHeaders = HEADERS
    abortTimeout = PATIENCE

    factory: "Factory"
    transport: Any
    _networkProducer: Any
    _over = False
    _burst = 0  # requests answered of what came last
    _linger: Linger | None = None

    def connectionMade(self) -> None:
        self.totalHeadersSize = self.MAX_LENGTH = self.factory.requestLimit
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        self._burst = 0
        if not self._over:
            # Not HTTPChannel's, which begins to count the seconds anew.
            LineReceiver.dataReceived(self, data)

    def lineReceived(self, line: bytes) -> None:
        if not self._over:
            super().lineReceived(line)

    def rawDataReceived(self, data: bytes) -> None:
        if not self._over:
            super().rawDataReceived(data)

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(431, f"a request has at most {counted(self.totalHeadersSize, 'byte')}")

    def allHeadersReceived(self) -> None:
        if self.length != 0:
            self.refuse(413, "requests have no body here")
        else:
            super().allHeadersReceived()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Called by HTTPChannel, which would say no reason.
        if self._receivedHeaderSize > self.totalHeadersSize:
            self.lineLengthExceeded(b"")
        elif self._receivedHeaderCount > self.maxHeaders:
            self.refuse(431, f"a request has at most {counted(self.maxHeaders, 'header line')}")
        else:
            self.refuse(400, "this is no request of HTTP/1.1")

    def answering(self) -> bool:
        """Count a request that is answered; return whether there may be another one behind it."""
        self._burst += 1
        if self._burst >= BURST or (self._waitingForTransport and self._dataBuffer):
            self.persistent = False
        return bool(self.persistent)

    def refuse(self, status: int, text: str) -> None:
        """Answer nothing more but this; the connection ends."""
        if self._over:
            return
        counters = self.factory.counters
        counters.statusRequests += 1
        counters.statusRefused += 1
        counters.reason("statusRefused", str(status))
        self._end(refusal(status, text))

    def _end(self, said: bytes) -> None:
        self._over = True
        self.setTimeout(None)
        self._networkProducer.unregisterProducer()
        transport = self.transport
        transport.write(said)
        if halfCloses(transport):
            self._linger = Linger(
                transport, self.factory.reactor, PATIENCE, transport.abortConnection
            )
        else:
            transport.loseConnection()
            self._abortingCall = self.callLater(PATIENCE, self.forceAbortClient)

    def timeoutConnection(self) -> None:
        if self.requests or self._receivedHeaderSize or self._buffer:
            self.factory.counters.statusTimedOut += 1
            self._end(refusal(408, f"no whole request within {inSeconds(self.timeOut or 0)}"))
        else:
            self._abortingCall = self.callLater(PATIENCE, self.forceAbortClient)
            self.loseConnection()

    def forceAbortClient(self) -> None:
        self._abortingCall = None
        transport: Any = self.transport
        transport.abortConnection()

    def finish(self) -> None:
        """Close the connection behind what it was sent: the service ends."""
        if not self._over:
            self._over = True
            self.setTimeout(None)
            self._abortingCall = self.callLater(PATIENCE, self.forceAbortClient)
            self.loseConnection()

    def readConnectionLost(self) -> None:
        """The peer sends nothing more; what was answered goes out."""
        if self._linger is not None:
            self.transport.loseConnection()
        else:
            self.finish()

    def writeConnectionLost(self) -> None:
        """Our half is closed, by our own doing."""

    def notTLS(self) -> None:
        """The peer does not speak TLS, where that is spoken; called by the transport."""
        self.transport.abortConnection()

    def unmade(self) -> None:
        """The connection could not be made; called by the port."""
        self.factory.left(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._linger is not None:
            self._linger.cancel()
        super().connectionLost(reason)
        self.factory.left(self)


class Factory(http.HTTPFactory):
    """Serves `request`, a subclass of Twisted's Request, on `most` connections at once.

    A request has at most `requestLimit` bytes, and has to come whole within `timeout` seconds.
    """

    noisy = False
    protocol: Any = Channel

    def __init__(
        self,
        reactor: Any,
        request: Callable[..., http.Request],
        counters: Counters,
        rejector: Rejector,
        *,
        most: int,
        requestLimit: int,
        timeout: int,
    ) -> None:
        super().__init__(timeout=timeout, reactor=reactor)
        self.counters = counters
        self.requestLimit = requestLimit
        self._request = request
        self._rejector = rejector
        self._most = most
        self.open: set[Channel] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a Channel, or what refuses the connection."""
        if len(self.open) >= self._most:
            self.counters.statusTurnedAway += 1
            held = counted(self._most, "connection")
            why = f"{held} to the status page, the limit; try again later"
            return self._rejector.reject(named(addr), why, refusal(503, why))
        made: Any = super().buildProtocol(addr)
        made.requestFactory = self._request
        self.open.add(made)
        return made

    def left(self, channel: Channel) -> None:
        """Forget a connection that has ended."""
        self.open.discard(channel)

    def finish(self) -> None:
        """Close all connections behind what they were sent."""
        for each in list(self.open):
            each.finish()

    def cut(self) -> None:
        """Close all connections now."""
        for each in list(self.open):
            each.forceAbortClient()

    def log(self, request: http.Request) -> None:
        """Log nothing: scrapes would fill the log."""

    def startFactory(self) -> None:
        """Open no log of requests."""

    def stopFactory(self) -> None:
        """Close none."""
