"""The other end: ask a server, and be told what became of every line and datagram."""

import errno
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import DatagramProtocol, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.framing import CRLF, LF, Framer, Framing, Lines
from sockservice.transports import overTCP
from sockservice.trust import refusal

#: Lines that answer none and wait for whoever reads them.
UNASKED_LIMIT = 1000
#: Longest reply line in bytes that a client takes in.
REPLY_LIMIT = 1024 * 1024
#: How lines begin with which a server ends a connection: they answer no line of ours.
FAREWELLS = (b"error busy: ", b"error not allowed: ", b"error idle for ")
#: Seconds from which on such a line is a reply after all, if the connection goes on.
DOUBT = 1.0


def turnedAway(refusal: str) -> bool:
    """Say whether a LineClient's `refusal` is that of a server that let nobody in."""
    return refusal.startswith(("error busy: ", "error not allowed: "))


class Unanswered(Exception):
    """No reply came, or none that can be told from others; the text says why."""


class TimedOut(Unanswered):
    """No reply came in time; it may still come, and will not be given to another."""


class _Asked:
    """A line or datagram that was sent, and the reply to it."""

    __slots__ = ("_clock", "datagram", "reply", "timeout")

    def __init__(self, datagram: bytes, clock: IReactorTime, timeout: float | None) -> None:
        self.datagram = datagram
        self.reply: Deferred[bytes] | None = Deferred(self._cancelled)
        self._clock = clock
        self.timeout = None if timeout is None else clock.callLater(timeout, self._due, timeout)

    def answer(self, reply: bytes) -> None:
        waiting = self._settle()
        if waiting is not None:
            waiting.callback(reply)

    def fail(self, why: Unanswered) -> None:
        waiting = self._settle()
        if waiting is not None:
            waiting.errback(why)

    def _settle(self) -> Deferred[bytes] | None:
        if self.timeout is not None and self.timeout.active():
            self.timeout.cancel()
        waiting, self.reply = self.reply, None
        return waiting

    def _due(self, timeout: float) -> None:
        # The process may have been stopped meanwhile, and the reply wait to be read.
        self.timeout = self._clock.callLater(0, self._expire, timeout)

    def _expire(self, timeout: float) -> None:
        self.fail(TimedOut(f"no reply within {timeout:g} seconds"))

    def _cancelled(self, _: object) -> None:
        self._settle()


class _Run:
    """Lines that were sent at once, and who takes the replies to them."""

    __slots__ = ("answered", "done", "left", "since", "timeout")

    def __init__(
        self,
        count: int,
        answered: Callable[[list[bytes]], object],
        since: float,
        timeout: float | None,
    ) -> None:
        self.left = count
        self.answered: Callable[[list[bytes]], object] | None = answered
        self.since = since
        self.timeout = timeout
        self.done: Deferred[None] = Deferred()


@implementer(IPushProducer)
class _Room:
    """Room in the transport's buffer, and those who wait for it."""

    def __init__(self) -> None:
        self._there = True
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        if self._there:
            waiting.callback(None)
        else:
            self._waiting.append(waiting)
        return waiting

    def pauseProducing(self) -> None:
        self._there = False

    def resumeProducing(self) -> None:
        self._there = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def stopProducing(self) -> None:
        self.resumeProducing()


class _Unasked:
    """What came and answers nothing, for whoever reads it."""

    def __init__(self) -> None:
        self.kept: deque[bytes] = deque()
        self.read = False  # by anyone, ever
        self.ended = False
        self._reading: Deferred[None] | None = None

    def wake(self) -> None:
        """Have the reader look again."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.callback(None)

    def end(self) -> None:
        """Nothing more will come."""
        self.ended = True
        self.wake()

    async def each(self, taken: Callable[[], object]) -> AsyncIterator[bytes]:
        """Give one by one, until the end; `taken` is told of each."""
        self.read = True
        while self.kept or not self.ended:
            if not self.kept:
                self._reading = Deferred()
                await self._reading
                continue
            item = self.kept.popleft()
            taken()
            yield item


class _End:
    """The end of a connection, for any number of watchers."""

    def __init__(self) -> None:
        self.came = False
        self._watchers: list[Deferred[None]] = []

    def watch(self) -> Deferred[None]:
        watcher: Deferred[None] = Deferred()
        if self.came:
            watcher.callback(None)
        else:
            self._watchers.append(watcher)
        return watcher

    def come(self) -> None:
        self.came = True
        for watcher in self._watchers:
            watcher.callback(None)


class LineClient(Protocol):
    """Ask a line server, which answers each line with one line, in order.

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
        self._room = _Room()
        self._timer: IDelayedCall | None = None  # of the oldest of the lines sent at once
        self._heard = 0.0  # when the latest reply came
        self._unasked = _Unasked()
        self._farewell: bytes | None = None
        self._doubting: IDelayedCall | None = None
        self._asked: deque[_Asked | _Run] = deque()  # in the order of the lines sent
        self._closed: str | None = None  # why nothing more can be asked
        self._end = _End()
        #: Lines whose reply is awaited.
        self.outstanding = 0
        #: What the server said of the connection when it ended it, as `error busy: ...`; or "".
        self.refusal = ""

    def ask(self, line: bytes, timeout: float | None = None) -> Deferred[bytes]:
        """Send `line`, give its reply; neither has a line ending.

        Any number may be outstanding. The Deferred fails with :class:`TimedOut`
        after `timeout` seconds and with :class:`Unanswered` when the connection
        ends first.

        :raises ValueError: `line` holds an LF, which would make two of it.
        """
        self._check(line)
        asked = _Asked(line, self._clock, timeout)
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
        :class:`Unanswered` when the connection ends first. A reply too long to be taken
        in is given as a refusal. A million lines cost much less so than with `ask`;
        wait for `ready` before the next.

        :raises ValueError: A line holds an LF, which would make two of it.
        """
        plain = isinstance(self._framing, Framer)
        if plain:
            # One look at all of them: joined, they hold one LF less than they are.
            data = LF.join(lines)
            if data.count(LF) >= max(1, len(lines)):
                raise ValueError("a line holds no LF")
        run = _Run(len(lines), answered, self._clock.seconds(), timeout)
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
        """Give a Deferred that fires when there is room to send more, or no connection."""
        return self._room.wait()

    def _check(self, line: bytes) -> None:
        if b"\n" in line and isinstance(self._framing, Framer):
            raise ValueError("a line holds no LF")

    def _write(self, line: bytes) -> None:
        # Behind a CR, an LF alone would make that CR a part of the ending.
        ending = CRLF if line.endswith(b"\r") else self._ending
        self.transport.write(self._framing.encode([line], ending))

    def _look(self, again: bool = False) -> None:
        """See whether the oldest of the lines sent at once has waited too long."""
        self._timer = None
        for run in list(self._asked):
            if isinstance(run, _Run) and run.answered and run.timeout is not None:
                left = max(run.since, self._heard) + run.timeout - self._clock.seconds()
                if left > 0:
                    self._timer = self._clock.callLater(left, self._look)
                    return
                if not again:
                    # The process may have been stopped meanwhile, and replies wait to be read.
                    self._timer = self._clock.callLater(0, self._look, True)
                    return
                self._giveUp(run, TimedOut(f"no reply within {run.timeout:g} seconds"))

    def _giveUp(self, run: _Run, why: Unanswered) -> None:
        # It stays where it is, to take the replies that may still come.
        run.answered = None
        self.outstanding -= run.left
        run.done.errback(why)
        if self._closed is not None:
            self._closeIfDone()

    def unasked(self, line: bytes) -> None:
        """Take a line that came though no reply was due.

        As it is here it keeps the line for `lines`; while nobody reads those, the
        latest UNASKED_LIMIT. To be overridden.
        """
        self._unasked.kept.append(line)
        if len(self._unasked.kept) >= UNASKED_LIMIT:
            if self._unasked.read:
                self.transport.pauseProducing()
            else:
                self._unasked.kept.popleft()
        self._unasked.wake()

    def lines(self) -> AsyncIterator[bytes]:
        """Give the lines that answer none, one by one, until the connection ends.

        While UNASKED_LIMIT of them wait, nothing is read.
        """
        return self._unasked.each(self._resume)

    def _resume(self) -> None:
        if len(self._unasked.kept) == UNASKED_LIMIT - 1 and not self._end.came:
            self.transport.resumeProducing()

    def close(self) -> Deferred[None]:
        """Ask nothing more; close when no reply is awaited; fires when that is done."""
        if self._closed is None:
            self._closed = "the connection is closed"
        disconnected = self.disconnected()
        self._closeIfDone()
        return disconnected

    def abort(self) -> Deferred[None]:
        """Close now, whatever is awaited or not even sent; fires when that is done."""
        if not self._end.came:
            self.transport.abortConnection()
        return self.disconnected()

    def disconnected(self) -> Deferred[None]:
        """Give a Deferred that fires when the connection has ended, whoever ended it."""
        return self._end.watch()

    # What follows is called by the transport.

    def connectionMade(self) -> None:
        if overTCP(self.transport):
            # Each write is as many lines as there are: nothing is won by waiting for more.
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
            elif self._asked and isinstance(first := self._asked[0], _Asked):
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
            if isinstance(asked, _Asked):
                asked.fail(why)
            elif asked.answered is not None:
                self._giveUp(asked, why)
        self._end.come()
        self._room.resumeProducing()
        self._unasked.end()

    def _doubt(self, lines: list[bytes]) -> list[bytes]:
        """Keep the last line if it may be the server's farewell; give the others."""
        if not lines[-1].startswith(FAREWELLS):
            return lines
        self._farewell = lines[-1]
        self._doubting = self._clock.callLater(DOUBT, self._believe, True)
        return lines[:-1]

    def _believe(self, doubted: bool = False) -> None:
        """Take what was kept for a line like any other, for the connection goes on."""
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
            if isinstance(first, _Asked):
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
        if not self.outstanding and not self._end.came:
            # With a producer a transport that is backed up would never close.
            self.transport.unregisterProducer()
            self.transport.loseConnection()


def lost(reason: Failure) -> str:
    """Say why a connection has ended."""
    assert reason.value is not None
    why = refusal(reason.value)
    if isinstance(reason.value, OSError):
        why = reason.value.strerror or ""
    elif reason.check(ConnectionDone):
        why = "closed by the server"
    elif not why:
        why = reason.getErrorMessage().partition("fashion: ")[2].rstrip(".")
    if why in ("", "Connection lost"):
        # Twisted seldom tells the one from the other.
        why = "reset, or the server is out of reach"
    return f"connection lost: {why}"


class DatagramClient(DatagramProtocol):
    """Ask the datagram server at `peer`, a socket address.

    Datagrams have no order: a reply equal to one outstanding is taken for its
    echo; any other for the reply to the oldest outstanding one, unless it is the
    late echo of one given up. What is neither is for `datagrams`. Get one from :func:`connect`.
    """

    noisy = False
    transport: Any

    def __init__(self, clock: IReactorTime, peer: tuple[Any, ...]) -> None:
        self._clock = clock
        self.peer = peer
        self._asked: list[_Asked] = []
        self._givenUp: deque[bytes] = deque(maxlen=1000)
        self._closed = False
        self._unasked = _Unasked()
        self._end = _End()

    @property
    def outstanding(self) -> int:
        """Datagrams whose reply is awaited."""
        return len(self._asked)

    def ask(self, datagram: bytes, timeout: float | None = 5.0) -> Deferred[bytes]:
        """Send `datagram`, give its reply.

        The Deferred fails with :class:`TimedOut` after `timeout` seconds, and with
        :class:`Unanswered` when it can't be sent or nobody listens there.
        """
        asked = _Asked(datagram, self._clock, timeout)
        reply = asked.reply
        assert reply is not None
        self._asked.append(asked)
        reply.addBoth(self._done, asked)
        try:
            if self._closed:
                raise OSError(errno.EBADF, "the socket is closed")
            self.transport.write(datagram, self.peer)
        except ConnectionRefusedError:
            # The system says so once, of whichever datagram.
            self.connectionRefused()
        except OSError as error:
            asked.fail(Unanswered(f"not sent: {error.strerror}"))
        return reply

    def datagrams(self) -> AsyncIterator[bytes]:
        """Give the datagrams that answer none, late ones too, from now until the socket is closed.

        While nobody reads them, the latest UNASKED_LIMIT.
        """
        return self._unasked.each(lambda: None)

    def close(self) -> Deferred[None]:
        """Close the socket; what is outstanding fails; fires when that is done."""
        if not self._closed:
            transport = self.transport
            transport.stopListening()
            transport.socket.close()
        return self.disconnected()

    abort = close

    def disconnected(self) -> Deferred[None]:
        """Give a Deferred that fires when the socket is closed."""
        return self._end.watch()

    # What follows is called by the transport.

    def datagramReceived(self, datagram: bytes, addr: tuple[Any, ...]) -> None:
        for asked in self._asked:
            if asked.datagram == datagram:
                asked.answer(datagram)
                return
        if datagram in self._givenUp:
            self._givenUp.remove(datagram)
        elif self._asked:
            self._asked[0].answer(datagram)
            return
        if self._unasked.read:
            self._unasked.kept.append(datagram)
            if len(self._unasked.kept) > UNASKED_LIMIT:
                self._unasked.kept.popleft()
            self._unasked.wake()

    def connectionRefused(self) -> None:
        self._failAll("connection refused: nobody listens there")

    def stopProtocol(self) -> None:
        self._closed = True
        self._failAll("the socket is closed")
        self._end.come()
        self._unasked.end()

    def _failAll(self, why: str) -> None:
        for asked in list(self._asked):
            asked.fail(Unanswered(why))

    def _done(self, result: Any, asked: _Asked) -> Any:
        self._asked.remove(asked)
        if isinstance(result, Failure):
            self._givenUp.append(asked.datagram)
        return result
