"""A client of a line server: one connection, and a reply to each line."""

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from sockservice.client.explain import lost
from sockservice.client.farewell import Doubt
from sockservice.client.framed import Framed
from sockservice.client.greeting import Greeting
from sockservice.client.requests import Asked, Discarded, Run, TimedOut, Unanswered, late
from sockservice.client.waiting import Gate, Room, Unasked
from sockservice.net.transports import Transport, overTCP
from sockservice.wire.framer import Framer
from sockservice.wire.framing import LF, Control, Framing, Lines

#: Most lines that answer none and wait to be read.
UNASKED_LIMIT = 1000
#: Longest reply in bytes that a client accepts.
REPLY_LIMIT = 1024 * 1024
#: Why a connection ends on which TLS was to begin.
BEHIND = "plain text came behind the reply that let TLS begin"


class LineClient(Protocol):
    """A client of a line server, which answers each line with one line, in order.

    `clock` times replies out; `framing` is the server's; lines end in `ending`. With
    `greeting`, the server's first line is no reply to any of ours. Get one from
    :func:`connect`, or give it to any of Twisted's stream endpoints.
    """

    transport: Transport  # type: ignore[assignment]  # is never None once connected

    def __init__(
        self,
        clock: IReactorTime,
        framing: Callable[[int], Framing] = Framer,
        ending: bytes = LF,
        greeting: bool = False,
    ) -> None:
        self._clock = clock
        self._framed = Framed(framing, REPLY_LIMIT, ending)
        self._greeting = Greeting(clock, greeting)
        self._doubt = Doubt(clock, self._answer)
        self._taking = False  # lines of what has been received
        self._begun = False  # is TLS, by the reply that is being taken
        self._room = Room()
        self._timer: IDelayedCall | None = None  # of the oldest of the lines sent at once
        self._heard = 0.0  # when the latest reply came
        self._unasked = Unasked()
        self._asked: deque[Asked | Run] = deque()  # in the order of the lines sent
        self._closed: str | None = None  # why nothing more can be asked
        self._lost = False  # the connection; who waits for that is told last
        self._ended = Gate(False)
        #: Lines whose reply is awaited.
        self.outstanding = 0
        #: The line with which the server ended the connection, as `error busy: ...`, or "".
        self.refusal = ""
        #: Whether the server has closed the connection, having read all; False before.
        self.closedByPeer = False

    @property
    def greeting(self) -> bytes | None:
        """The server's greeting; None if it has not come, or none is expected."""
        return self._greeting.line

    def greeted(self, timeout: float | None = None) -> Deferred[None]:
        """Return a Deferred that fires when `greeting` is there, at once if none is expected.

        It fails with :class:`TimedOut` after `timeout` seconds, with :class:`Unanswered` if
        the connection ends before.
        """
        return self._greeting.come(timeout)

    def ask(self, line: bytes, timeout: float | None = None) -> Deferred[bytes]:
        """Send `line`; return a Deferred of its reply; neither has a line ending.

        Any number may be outstanding. The Deferred fails with :class:`TimedOut`
        after `timeout` seconds and with :class:`Unanswered` when the connection
        ends first.

        :raises ValueError: `line` holds an LF, which would make two of it.
        """
        data = self._framed.encoded(line)
        asked = Asked(line, self._clock, timeout, self._framed.torn)
        reply = asked.reply
        assert reply is not None
        if self._closed is not None:
            asked.fail(Unanswered(self._closed))
            return reply
        self._asked.append(asked)
        self.outstanding += 1
        self.transport.write(data)
        return reply.addBoth(self._done)

    def askAll(
        self,
        lines: list[bytes],
        answered: Callable[[list[bytes]], object],
        timeout: float | None = None,
    ) -> Deferred[None]:
        """Send `lines` at once; `answered` gets their replies, as many as come at once, in order.

        The Deferred fires when all have come. It fails with :class:`TimedOut` when no
        reply has come for `timeout` seconds, to these lines or to any before; with
        :class:`Unanswered` when the connection ends first. In the place of a reply too
        long to be accepted stands a :class:`Discarded`. For many lines this is much faster
        than `ask`; wait for `ready` before the next call.

        :raises ValueError: A line holds an LF, which would make two of it.
        """
        written = self._framed.all(lines)
        run = Run(len(lines), answered, self._clock.seconds(), timeout)
        if self._closed is not None:
            run.done.errback(Unanswered(self._closed))
            return run.done
        if not lines:
            run.done.callback(None)
            return run.done
        self._asked.append(run)
        self.outstanding += len(lines)
        for data in written:
            self.transport.write(data)
        if timeout is not None and self._timer is None:
            self._timer = self._clock.callLater(timeout, self._look)
        return run.done

    def tell(self, line: bytes) -> bool:
        """Send `line`, to which the server gives no reply; return whether there is a connection.

        Await `ready` before the next of many.

        :raises ValueError: `line` holds an LF, which would make two of it.
        """
        data = self._framed.encoded(line)
        if self._closed is None:
            self.transport.write(data)
        return self._closed is None

    def startTLS(self, options: Any) -> None:
        """Go on in TLS, as the reply that has just come says.

        `options` are those of Twisted's `optionsForClientTLS`. What has come behind that reply
        could be another's, so it ends the connection (CVE-2011-0411).

        :raises RuntimeError: Replies are awaited, or the transport can't.
        """
        if self.outstanding or not hasattr(self.transport, "startTLS"):
            raise RuntimeError("TLS begins on a TCP connection on which no reply is awaited")
        self._begun = self._taking
        if self._framed.held or self._unasked.kept:
            self._inject()
        else:
            transport: Any = self.transport
            transport.startTLS(options)

    def ready(self) -> Deferred[None]:
        """Return a Deferred that fires when there is room to send more, or the connection ends."""
        return self._room.wait()

    def _look(self, again: bool = False) -> None:
        """Check whether the oldest of the lines sent at once has waited too long."""
        self._timer = None
        for run in list(self._asked):
            if isinstance(run, Run) and run.answered and run.timeout is not None:
                left = max(run.since, self._heard) + run.timeout - self._clock.seconds()
                if left > 0:
                    self._timer = self._clock.callLater(left, self._look)
                    return
                if not again:
                    # The process may have been suspended, and replies may be waiting to be read.
                    self._timer = self._clock.callLater(0, self._look, True)
                    return
                self._giveUp(run, TimedOut(late(run.timeout) + self._framed.torn()))

    def _giveUp(self, run: Run, why: Unanswered) -> None:
        # It stays in its place, to receive the replies that may still come.
        run.answered = None
        self.outstanding -= run.left
        run.done.errback(why)
        if self._closed is not None:
            self._closeIfDone()

    def unasked(self, line: bytes) -> None:
        """Receive a line that came though no reply was due.

        This implementation keeps it for `lines`; while nobody reads those, the latest
        UNASKED_LIMIT. Meant to be overridden.
        """
        self._unasked.kept.append(line)
        if len(self._unasked.kept) >= UNASKED_LIMIT:
            if self._unasked.read:
                self.transport.pauseProducing()
            else:
                self._unasked.kept.popleft()
        self._unasked.wake()

    def lines(self) -> AsyncIterator[bytes]:
        """Yield the lines that answer none, one by one, until the connection ends.

        While UNASKED_LIMIT of them wait, nothing is read.
        """
        return self._unasked.each(self._resume)

    def _resume(self) -> None:
        if len(self._unasked.kept) == UNASKED_LIMIT - 1 and not self._ended.isOpen:
            self.transport.resumeProducing()

    def close(self) -> Deferred[None]:
        """Send nothing more, and close once all replies are in; fires when that is done."""
        if self._closed is None:
            self._closed = "the connection is closed"
        disconnected = self.disconnected()
        self._closeIfDone()
        return disconnected

    def leave(self) -> None:
        """Send what the framing has for the end, all replies being in."""
        if self._closed is None and (data := self._framed.goodbye()):
            self.transport.write(data)

    def abort(self) -> Deferred[None]:
        """Close now, with replies outstanding or lines unsent; fires when that is done."""
        if not self._ended.isOpen:
            self.transport.abortConnection()
        return self.disconnected()

    def disconnected(self) -> Deferred[None]:
        """Return a Deferred that fires when the connection has ended, whoever ended it."""
        return self._ended.wait()

    # What follows is called by the transport.

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if overTCP(transport):
            # Lines are written as many at once as there are: waiting for more gains nothing.
            transport.setTcpNoDelay(True)
        self.transport.registerProducer(self._room, True)
        self._asked += self._greeting.awaited()

    def dataReceived(self, data: bytes) -> None:
        self._doubt.believe()
        self._taking = True
        try:
            self._takeAll(data)
        finally:
            self._taking = self._begun = False
        if self._timer is not None and not self._asked:
            self._timer.cancel()
            self._timer = None

    def _takeAll(self, data: bytes) -> None:
        for item in self._framed.items(data):
            self._heard = self._clock.seconds()
            self._doubt.believe()
            if isinstance(item, Lines):
                self._answer(self._doubt.hold(item.lines))
            elif isinstance(item, Control):
                self.transport.write(item.data)
            elif self._asked and isinstance(first := self._asked[0], Asked):
                self._asked.popleft()
                first.fail(Unanswered(f"reply {item.reason.decode()}"))
            else:
                self._answer([Discarded(b"reply " + item.reason)])
        if self._framed.broken:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        self.closedByPeer = bool(reason.check(ConnectionDone))
        self._closed = self._framed.broken or lost(reason) + self._framed.torn()
        self.refusal = self._framed.farewell
        if (farewell := self._doubt.end()) is not None:
            self.refusal = ascii(farewell[:200].rstrip())[2:-1]
            self._closed = f"the server ended the connection: {self.refusal}"
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._asked:
            asked = self._asked.popleft()
            why = Unanswered(self._closed)
            why.__cause__ = reason.value
            if isinstance(asked, Asked):
                asked.fail(why)
            elif asked.answered is not None:
                self._giveUp(asked, why)
        self._ended.open()
        self._room.open()
        self._unasked.end()

    def _inject(self) -> None:
        """End the connection, for somebody may have put lines of his own before TLS."""
        self._framed.broken = BEHIND
        self.transport.abortConnection()

    def _answer(self, replies: list[bytes]) -> None:
        start = 0
        while start < len(replies) and self._asked:
            first = self._asked[0]
            if isinstance(first, Asked):
                self._asked.popleft()
                first.answer(replies[start])
                start += 1
                continue
            taken = replies[start : start + first.left]
            start += len(taken)
            first.left -= len(taken)
            if not first.left:
                self._asked.popleft()
            if first.answered is not None:
                self.outstanding -= len(taken)
                first.answered(taken)
                if not first.left:
                    first.done.callback(None)
                    if self._closed is not None:
                        self._closeIfDone()
        for line in replies[start:]:
            if self._begun:
                self._inject()
                return
            self.unasked(line)

    def _done(self, result: Any) -> Any:
        self.outstanding -= 1
        if self._closed is not None:
            self._closeIfDone()
        return result

    def _closeIfDone(self) -> None:
        if not self.outstanding and not self._lost:
            # With a producer, a transport with a backlog would never close.
            self.transport.unregisterProducer()
            self.transport.loseConnection()
