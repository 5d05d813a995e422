"""Send lines reliably: reconnect, and send again what has no reply."""

from collections import deque
from collections.abc import Callable
from functools import partial
from random import uniform
from typing import Any

from twisted.application.internet import ClientService, backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.client.explain import explained
from sockservice.client.framed import Framed
from sockservice.client.kept import Kept
from sockservice.client.line import REPLY_LIMIT, LineClient
from sockservice.client.requests import TimedOut, Unanswered
from sockservice.client.targets import isDatagram, streamEndpoint
from sockservice.wire.chunks import Packets
from sockservice.wire.framer import Framer
from sockservice.wire.framing import LF, Framing

#: Most lines, and most bytes of lines, that are kept until they are answered.
LINES, BYTES = 100_000, 16 * 1024 * 1024

log = Logger()

_growing = backoffPolicy(initialDelay=0.1, maxDelay=40.0, factor=2.0, jitter=lambda: 0.0)


def backoff(attempts: int) -> float:
    """Return the seconds to wait after so many attempts: random, longer each time, at most 60."""
    return _growing(attempts - 1) * uniform(0.5, 1.5)


class Full(Exception):
    """The limit of lines that wait for their replies is reached; `ready` waits for room."""


class ReliableSender(Service):
    """Maintains a connection to a line server, and sends it each line until it has a reply.

    When the connection breaks, or no reply comes for `timeout` seconds, another is
    made, after a delay that grows up to a minute, differently each time; then the
    lines without a reply, and no others, are sent again in their order. A line is
    so sent **at least once**: the server may have had one whose reply was lost.

    `target` is a stream that :func:`~sockservice.connect` takes, with the same
    keywords (`connectTimeout` is its `timeout`), or a client endpoint. At most `lines`
    lines and `bytes` bytes of them are kept. `backoff` returns the delay in seconds
    after that many attempts in a row without a reply.
    """

    def __init__(
        self,
        reactor: Any,
        target: Any,
        *,
        timeout: float = 30.0,
        drainTimeout: float = 30.0,
        connectTimeout: float = 30.0,
        lines: int = LINES,
        bytes: int = BYTES,
        backoff: Callable[[int], float] = backoff,
        framing: Callable[[int], Framing] = Framer,
        ending: bytes = LF,
        greeting: bool = False,
        **how: Any,
    ) -> None:
        if isinstance(target, str):
            if isDatagram(target):
                raise ValueError("datagrams have no connection to be kept")
            if target.startswith("unix-seqpacket:"):
                framing = Packets
            target = streamEndpoint(reactor, target, timeout=connectTimeout, **how)
        self._reactor = reactor
        self._framed = Framed(framing, REPLY_LIMIT, ending)  # checks lines
        self._timeout = timeout
        self._drainTimeout = drainTimeout
        self._most = lines, bytes
        self._backoff = backoff
        self._kept: deque[Kept] = deque()
        self._lines = 0
        self._bytes = 0
        self._waiting: deque[Deferred[None]] = deque()
        self._drained: Deferred[None] | None = None
        self._stopped = ""  # why nothing is taken any more
        self._client: LineClient | None = None
        #: Lines that were sent, however often.
        self.sent = 0
        self._why = ""
        self._fruitless = 0  # attempts since the latest reply
        make = partial(_Connection, self, timeout, reactor, framing, ending, greeting)
        self._connecting = ClientService(
            _Telling(target, self._failed), Factory.forProtocol(make), self._delay, reactor
        )

    @property
    def outstanding(self) -> int:
        """Lines whose reply is awaited, sent or not."""
        return self._lines

    @property
    def unacknowledged(self) -> list[bytes]:
        """The lines without a reply so far, in their order."""
        return [line for kept in self._kept for line in kept.lines[kept.count :]]

    def send(self, line: bytes) -> Deferred[bytes]:
        """Send `line`, without its ending; return a Deferred of its reply.

        The Deferred fails with :class:`Full` when too many lines are kept, and with
        :class:`Unanswered` when the service is stopped before the reply has come.

        :raises ValueError: `line` holds an LF, which would make two of it.
        """
        reply: Deferred[bytes] = Deferred()
        done = self.sendAll([line], lambda replies: reply.callback(replies[0]))
        done.addErrback(reply.errback)
        return reply

    def sendAll(
        self, lines: list[bytes], answered: Callable[[list[bytes]], object]
    ) -> Deferred[None]:
        """Send `lines`; `answered` gets their replies, as many as come at once, in order.

        The Deferred fires when all have come, and fails as that of `send` does. With
        room for one line there is room for all of `lines`: bound their number.
        """
        self._framed.check(lines)
        kept = Kept(lines, answered)
        if self._stopped:
            kept.done.errback(Unanswered(self._stopped))
        elif self._full():
            kept.done.errback(Full(f"{self._lines} lines wait for their replies"))
        elif not lines:
            kept.done.callback(None)
        else:
            self._kept.append(kept)
            self._lines += len(lines)
            self._bytes += sum(map(len, lines))
            if self._client is not None:
                self._send(self._client, kept)
        return kept.done

    def ready(self) -> Deferred[None]:
        """Return a Deferred that fires when there is room for a line, in the order of the calls."""
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        self._tell()
        return waiting

    def retrying(self, why: str, delay: float) -> None:
        """Report why there is no connection; the next attempt is in `delay` seconds.

        This implementation logs it. Meant to be overridden.
        """
        log.warn(
            "{why}; trying again in {delay:.1f} seconds, {lines} unacknowledged",
            why=why,
            delay=delay,
            lines=self._lines,
        )

    def unasked(self, line: bytes) -> None:
        """Receive a line that came though no reply was due.

        This implementation logs it. Meant to be overridden.
        """
        log.warn("a line came that nobody asked for: {line}", line=ascii(line)[2:-1])

    def startService(self) -> None:
        super().startService()
        self._stopped = ""
        self._connecting.startService()

    def stopService(self) -> Deferred[list[bytes]]:
        """Accept no more lines, wait up to `drainTimeout` seconds for replies, disconnect.

        The Deferred fires with the lines that have no reply by then.
        """
        super().stopService()
        self._stopped = "the sender is stopped"
        self._tell()
        drained: Deferred[Any] = succeed(None)
        if self._kept:
            drained = self._drained = Deferred()
            drained.addTimeout(self._drainTimeout, self._reactor, lambda *_: None)
        return drained.addCallback(self._disconnect)

    def _disconnect(self, _: None) -> Deferred[list[bytes]]:
        self._drained = None
        left = self.unacknowledged
        client, self._client = self._client, None
        ending = [client.abort() if left else client.close()] if client is not None else []
        ending.append(self._connecting.stopService())
        kept, self._kept = self._kept, deque()
        self._lines = self._bytes = 0
        for each in kept:
            each.done.errback(Unanswered(self._stopped))
        return gatherResults(ending).addCallback(lambda _: left)

    def _full(self) -> bool:
        lines, bytes = self._most
        return self._lines >= lines or self._bytes >= bytes

    def _tell(self) -> None:
        while self._waiting and (self._stopped or not self._full()):
            self._waiting.popleft().callback(None)

    def _send(self, client: LineClient, kept: Kept) -> None:
        if not kept.sent:
            kept.sent = True
            self.sent += len(kept.lines)
        lines = kept.lines[kept.count :] if kept.count else kept.lines
        try:
            done = client.askAll(lines, partial(self._answered, kept), self._timeout)
        except Exception:
            # The framing can't write one of them.
            self._kept.remove(kept)
            self._lines -= len(lines)
            self._bytes -= sum(map(len, lines))
            kept.done.errback()
            return
        done.addErrback(self._unanswered, client)

    def _answered(self, kept: Kept, replies: list[bytes]) -> None:
        if not self._kept or self._kept[0] is not kept:
            return  # Given up already.
        self._fruitless = 0
        before, kept.count = kept.count, kept.count + len(replies)
        self._lines -= len(replies)
        self._bytes -= sum(map(len, kept.lines[before : kept.count]))
        if kept.count == len(kept.lines):
            self._kept.popleft()
        kept.answered(replies)
        if kept.count == len(kept.lines):
            kept.done.callback(None)
        self._tell()
        if self._drained is not None and not self._kept:
            self._drained.callback(None)

    def _unanswered(self, failure: Failure, client: LineClient) -> None:
        if failure.check(TimedOut) and client is self._client:
            self._why = failure.getErrorMessage()
            client.abort()

    def connected(self, client: LineClient) -> None:
        """Send what has no reply yet over a new connection."""
        self._client = client
        self._why = ""
        for kept in list(self._kept):
            self._send(client, kept)

    def ungreeted(self, client: LineClient, failure: Failure) -> None:
        """Note that a connection brought no greeting, and why; end it."""
        self._why = failure.getErrorMessage()
        client.abort()

    def disconnected(self, client: LineClient, why: str) -> None:
        """Note that a connection has ended, and why."""
        if client is self._client:
            self._client = None
            self._why = self._why or why

    def _failed(self, failure: Failure) -> Failure:
        assert failure.value is not None
        self._why = f"could not connect: {explained(failure.value)}"
        return failure

    def _delay(self, _: int) -> float:
        self._fruitless += 1
        delay = self._backoff(self._fruitless)
        try:
            self.retrying(self._why, delay)
        except Exception:
            # An error in a subclass must not end the attempts.
            log.failure("retrying of {sender} failed", sender=self)
        return delay


class _Connection(LineClient):
    """A connection that tells the sender of its start and end."""

    def __init__(self, sender: ReliableSender, timeout: float, *arguments: Any) -> None:
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

    def connectionLost(self, *reason: Failure) -> None:
        super().connectionLost(*reason)
        self._sender.disconnected(self, self._closed or "")


@implementer(IStreamClientEndpoint)
class _Telling:
    """An endpoint that reports each failure to connect."""

    def __init__(self, endpoint: Any, failed: Callable[[Failure], Failure]) -> None:
        self._endpoint = endpoint
        self._failed = failed

    def connect(self, factory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addErrback(self._failed)
