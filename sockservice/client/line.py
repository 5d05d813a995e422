"""A client of a line server: one connection, and a reply to each line."""

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from sockservice.client.explain import lost
from sockservice.client.farewell import DOUBT, FAREWELLS
from sockservice.client.requests import Asked, Run, TimedOut, Unanswered
from sockservice.client.waiting import Gate, Room, Unasked
from sockservice.net.transports import overTCP
from sockservice.wire.framer import Framer
from sockservice.wire.framing import CRLF, LF, Body, Control, Framing, Lines

#: Most lines that answer none and wait to be read.
UNASKED_LIMIT = 1000
#: Longest reply in bytes that a client accepts.
REPLY_LIMIT = 1024 * 1024


class LineClient(Protocol):
    """A client of a line server, which answers each line with one line, in order.

    `clock` times replies out; `framing` is the server's; lines end in `ending`. Get
    one from :func:`connect`, or give it to any of Twisted's stream endpoints.
    """

    transport: Any

    def __init__(
        self,
        clock: IReactorTime,
        framing: Callable[[int], Framing] = Framer,
        ending: bytes = LF,
    ) -> None:
        self._clock = clock
        self._framing = framing(REPLY_LIMIT)
        self._ending = ending
        self._room = Room()
        self._timer: IDelayedCall | None = None  # of the oldest of the lines sent at once
        self._heard = 0.0  # when the latest reply came
        self._unasked = Unasked()
        self._farewell: bytes | None = None
        self._doubting: IDelayedCall | None = None
        self._asked: deque[Asked | Run] = deque()  # in the order of the lines sent
        self._closed: str | None = None  # why nothing more can be asked
        self._ended = Gate(False)
        #: Lines whose reply is awaited.
        self.outstanding = 0
        #: The line with which the server ended the connection, as `error busy: ...`, or "".
        self.refusal = ""

    def ask(self, line: bytes, timeout: float | None = None) -> Deferred[bytes]:
        """Send `line`; return a Deferred of its reply; neither has a line ending.

        Any number may be outstanding. The Deferred fails with :class:`TimedOut`
        after `timeout` seconds and with :class:`Unanswered` when the connection
        ends first.

        :raises ValueError: `line` holds an LF, which would make two of it.
        """
        self._check(line)
        asked = Asked(line, self._clock, timeout)
        reply = asked.reply
        assert reply is not None
        if self._closed is not None:
            asked.fail(Unanswered(self._closed))
            return reply
        self._asked.append(asked)
        self.outstanding += 1
        self._write(line)
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
        :class:`Unanswered` when the connection ends first. A reply too long to be
        accepted is passed on as a refusal. For many lines this is much faster than `ask`;
        wait for `ready` before the next call.

        :raises ValueError: A line holds an LF, which would make two of it.
        """
        plain = isinstance(self._framing, Framer)
        if plain:
            # Checked all at once: joined, they hold one LF less than there are lines.
            data = LF.join(lines)
            if data.count(LF) >= max(1, len(lines)):
                raise ValueError("a line holds no LF")
        run = Run(len(lines), answered, self._clock.seconds(), timeout)
        if self._closed is not None:
            run.done.errback(Unanswered(self._closed))
            return run.done
        if not lines:
            run.done.callback(None)
            return run.done
        self._asked.append(run)
        self.outstanding += len(lines)
        if plain and self._ending == LF and b"\r" not in data:
            self.transport.write(data + LF)
        else:
            for line in lines:
                self._write(line)
        if timeout is not None and self._timer is None:
            self._timer = self._clock.callLater(timeout, self._look)
        return run.done

    def ready(self) -> Deferred[None]:
        """Return a Deferred that fires when there is room to send more, or the connection ends."""
        return self._room.wait()

    def _check(self, line: bytes) -> None:
        if b"\n" in line and isinstance(self._framing, Framer):
            raise ValueError("a line holds no LF")

    def _write(self, line: bytes) -> None:
        # After a CR, a single LF would make that CR a part of the ending.
        ending = CRLF if line.endswith(b"\r") else self._ending
        self.transport.write(self._framing.encode([line], ending))

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
                self._giveUp(run, TimedOut(f"no reply within {run.timeout:g} seconds"))

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
        if overTCP(self.transport):
            # Lines are written as many at once as there are: waiting for more gains nothing.
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self._room, True)

    def dataReceived(self, data: bytes) -> None:
        self._believe()
        self._framing.receive(data)
        while (item := self._framing.take(10_000)) is not None:
            self._heard = self._clock.seconds()
            self._believe()
            if isinstance(item, Lines):
                self._answer(self._doubt(item.lines))
            elif isinstance(item, Control):
                self.transport.write(item.data)
            elif isinstance(item, Body):
                self._framing = item.framing
            elif self._asked and isinstance(first := self._asked[0], Asked):
                self._asked.popleft()
                first.fail(Unanswered(f"reply {item.reason.decode()}"))
            elif self._asked:
                self._answer([b"error reply " + item.reason])
        if self._timer is not None and not self._asked:
            self._timer.cancel()
            self._timer = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closed = lost(reason)
        if self._farewell is not None:
            self.refusal = ascii(self._farewell[:200].rstrip())[2:-1]
            self._farewell = None
            self._closed = f"the server ended the connection: {self.refusal}"
        if self._doubting is not None:
            self._doubting.cancel()
            self._doubting = None
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

    def _doubt(self, lines: list[bytes]) -> list[bytes]:
        """Hold back the last line if it may be the server's farewell; return the others."""
        if not lines[-1].startswith(FAREWELLS):
            return lines
        self._farewell = lines[-1]
        self._doubting = self._clock.callLater(DOUBT, self._believe, True)
        return lines[:-1]

    def _believe(self, doubted: bool = False) -> None:
        """Treat the line held back as a reply, for the connection goes on."""
        line, self._farewell = self._farewell, None
        doubting, self._doubting = self._doubting, None
        if doubting is not None and not doubted:
            doubting.cancel()
        if line is not None:
            self._answer([line])

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
            self.unasked(line)

    def _done(self, result: Any) -> Any:
        self.outstanding -= 1
        if self._closed is not None:
            self._closeIfDone()
        return result

    def _closeIfDone(self) -> None:
        if not self.outstanding and not self._ended.isOpen:
            # With a producer, a transport with a backlog would never close.
            self.transport.unregisterProducer()
            self.transport.loseConnection()
