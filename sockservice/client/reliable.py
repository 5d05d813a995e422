"""Send lines reliably: reconnect, and send again what has no reply."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.client.attempts import Attempts, backoff
from sockservice.client.explain import explained
from sockservice.client.failover import Failover
from sockservice.client.framed import Framed
from sockservice.client.kept import Kept
from sockservice.client.line import REPLY_LIMIT, LineClient
from sockservice.client.outflow import Outflow
from sockservice.client.pacing import Pacing
from sockservice.client.parting import part
from sockservice.client.proxied import lasting
from sockservice.client.reconnected import Reconnected, Telling
from sockservice.client.requests import Discarded, TimedOut, Unanswered
from sockservice.wire.framer import Framer
from sockservice.wire.framing import LF, Framing
from sockservice.wire.plurals import counted, inSeconds

#: Most lines, and most bytes of lines, that are kept until they are answered.
LINES, BYTES = 100_000, 16 * 1024 * 1024
#: Seconds until an attempt that will not be made.
NEVER = 3600.0
#: Said behind the reason when a bound of the attempts is reached.
GIVEN_UP = "; given up"

log = Logger()


class Full(Exception):
    """The limit of lines that wait for their replies is reached; `ready` waits for room."""


class ReliableSender(Service):
    """Maintains a connection to a line server, and sends it each line until it has a reply.

    When the connection breaks, or no reply comes for `timeout` seconds, another is
    made, after a delay that grows up to a minute, differently each time; then the
    lines without a reply, and no others, are sent again in their order. A line is
    so sent **at least once**: the server may have had one whose reply was lost.

    `target` is a stream that :func:`~sockservice.connect` takes, with the same
    keywords (`connectTimeout` is its `timeout`), or a client endpoint; or a list of such:
    when one fails, the next is used at once. At most `lines` lines and `bytes` bytes of
    them are kept. `rate` is the most lines to be sent a second, those sent again included.
    `backoff` returns the delay in seconds after that many attempts in a row without a
    reply, each of them at every target.

    It gives up when `retryTimes` further attempts in a row have come to nothing, when
    `retryFor` seconds have gone by since the first of them, or when every target has failed
    for a reason that lasts, such as a certificate that is not trusted: see `gaveUp`.
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
        rate: float | None = None,
        backoff: Callable[[int], float] = backoff,
        retryTimes: int | None = None,
        retryFor: float | None = None,
        framing: Callable[[int], Framing] = Framer,
        ending: bytes = LF,
        greeting: bool = False,
        **how: Any,
    ) -> None:
        targets = target if isinstance(target, (list, tuple)) else [target]
        self._targets = Failover.of(reactor, targets, timeout=connectTimeout, **how)
        framing = self._targets.framing or framing
        self._reactor = reactor
        self._framed = Framed(framing, REPLY_LIMIT, ending)  # checks lines
        self._timeout = timeout
        self._drainTimeout = drainTimeout
        self._most = lines, bytes
        self._attempts = Attempts(reactor, backoff, retryTimes, retryFor, self._giveUp)
        #: The rate, for those who wait for their turn before they send.
        self.pacing = Pacing(rate, reactor.seconds())
        self._outflow = Outflow(reactor, self.pacing, self._send)
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
        self._cause: BaseException | None = None  # of `_why`
        self._parting = False  # no connection is wanted any more
        make = partial(Reconnected, self, timeout, reactor, framing, ending, greeting)
        self._connecting = ClientService(
            Telling(self._targets, self._failed), Factory.forProtocol(make), self._delay, reactor
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

        def answered(replies: list[bytes]) -> None:
            if isinstance(replies[0], Discarded):
                reply.errback(Unanswered(replies[0].decode()))
            else:
                reply.callback(replies[0])

        self.sendAll([line], answered).addErrback(reply.errback)
        return reply

    def sendAll(
        self, lines: list[bytes], answered: Callable[[list[bytes]], object]
    ) -> Deferred[None]:
        """Send `lines`; `answered` gets their replies, as many as come at once, in order.

        In the place of a reply too long to be accepted stands a :class:`Discarded`. The
        Deferred fires when all have come, and fails as that of `send` does. With room for
        one line there is room for all of `lines`: bound their number.
        """
        self._framed.check(lines)
        kept = Kept(lines, answered)
        if self._stopped:
            kept.done.errback(Unanswered(self._stopped))
        elif self._full():
            wait = counted(self._lines, "line waits", "lines wait")
            kept.done.errback(Full(f"{wait} for a reply"))
        elif not lines:
            kept.done.callback(None)
        else:
            self._kept.append(kept)
            self._lines += len(lines)
            self._bytes += sum(map(len, lines))
            self._outflow.add(kept)
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
        when = f"trying again in {inSeconds(round(delay, 1))}"
        log.warn("{why}; {when}, {lines} unacknowledged", why=why, when=when, lines=self._lines)

    def gaveUp(self, why: str, cause: BaseException | None) -> None:
        """Report why no further attempt is made; `cause` is that of the last failure.

        All that is sent from now on fails. This implementation logs it; override it.
        """
        log.error("{why}", why=why)

    def using(self, name: str) -> None:
        """Report which of several targets is used. This implementation logs it."""
        log.info("connected to {name}", name=name)

    def unasked(self, line: bytes) -> None:
        """Receive a line that came though no reply was due.

        This implementation logs it. Meant to be overridden.
        """
        log.warn("a line came that nobody asked for: {line}", line=ascii(line)[2:-1])

    def startService(self) -> None:
        super().startService()
        self._stopped = ""
        self._parting = False
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
        self._parting = True
        self._outflow.stop()
        self._attempts.succeeded()
        ended: Deferred[Any] = succeed(None)
        if client is not None:
            ended = client.abort() if left else part(client, self._reactor)
        kept, self._kept = self._kept, deque()
        self._lines = self._bytes = 0
        for each in kept:
            each.done.errback(Unanswered(self._stopped))
        ended.addCallback(lambda _: self._connecting.stopService())
        return ended.addCallback(lambda _: left)

    def _full(self) -> bool:
        lines, bytes = self._most
        return self._lines >= lines or self._bytes >= bytes

    def _tell(self) -> None:
        while self._waiting and (self._stopped or not self._full()):
            self._waiting.popleft().callback(None)

    def _send(self, kept: Kept, start: int, end: int) -> None:
        client = self._client
        assert client is not None
        self.sent += max(0, end - kept.sent)
        kept.sent = max(kept.sent, end)
        lines = kept.lines[start:end] if end - start < len(kept.lines) else kept.lines
        try:
            done = client.askAll(lines, partial(self._answered, kept), self._timeout)
        except Exception as problem:
            # The framing can't write one of them.
            self._drop(kept, problem)
            return
        done.addErrback(self._unanswered, client)

    def _drop(self, kept: Kept, problem: Exception) -> None:
        self._outflow.drop(kept)
        self._kept.remove(kept)
        self._lines -= len(kept.lines) - kept.count
        self._bytes -= sum(map(len, kept.lines[kept.count :]))
        kept.done.errback(problem)

    def _answered(self, kept: Kept, replies: list[bytes]) -> None:
        if not self._kept or self._kept[0] is not kept:
            return  # Given up already.
        self._attempts.succeeded()
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
            self._why, self._cause = failure.getErrorMessage(), failure.value
            client.abort()

    def connected(self, client: LineClient) -> None:
        """Send what has no reply yet over a new connection."""
        self._client = client
        self._why, self._cause = "", None
        if self._targets.name:
            self.using(self._targets.name)
        if not self._kept:
            self._attempts.succeeded()
        self._outflow.begin(self._kept)

    def ungreeted(self, client: LineClient, failure: Failure) -> None:
        """Note that a connection brought no greeting, and why; end it."""
        self._why, self._cause = failure.getErrorMessage(), failure.value
        client.abort()

    def ended(self, cause: BaseException | None) -> None:
        """Note the cause of a connection's end, unless there was one before."""
        self._cause = self._cause or cause

    def disconnected(self, client: LineClient, why: str) -> None:
        """Note that a connection has ended, and why."""
        if client is self._client:
            self._client = None
            self._outflow.stop()
            self._why = self._why or why

    def _failed(self, failure: Failure) -> Failure:
        assert failure.value is not None
        to = self._targets.name and f" to {self._targets.name}"
        self._why = f"could not connect{to}: {explained(failure.value)}"
        self._cause = failure.value
        return failure

    def _delay(self, _: int) -> float:
        if self._parting:
            return NEVER
        if self._cause is None or not lasting(self._cause):
            self._targets.next()
        elif not self._targets.exclude():
            self._reactor.callLater(0, self._giveUp, "")
            return NEVER
        delay = self._attempts.failed(len(self._targets))
        if delay is None:
            self._reactor.callLater(0, self._giveUp)
            return NEVER
        try:
            self.retrying(self._why, delay)
        except Exception:
            # An error in a subclass must not end the attempts.
            log.failure("retrying of {sender} failed", sender=self)
        return delay

    def _giveUp(self, bound: str = GIVEN_UP) -> None:
        if self._parting:
            return
        self._stopped = self._why + bound
        self.gaveUp(self._stopped, self._cause)
        self._tell()
        if self._drained is not None:
            self._drained.callback(None)
        else:
            self._disconnect(None)
