"""A client of a datagram server: each datagram has a socket, and so a port, of its own."""

import errno
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import DatagramProtocol

from sockservice.client.line import UNASKED_LIMIT
from sockservice.client.question import Question, Socket, Surplus
from sockservice.client.requests import Unanswered
from sockservice.client.waiting import Gate, Unasked

#: Seconds for which a first reply that is no echo is held: a server that echoes will have.
SETTLING = 0.2
#: Seconds until the next attempt when there was no socket to be had.
RETRY = 0.1

#: Errors of a system that has no socket to give now.
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN)


class Resting(Exception):
    """Every local port that is free has been used too recently."""


class DatagramClient(DatagramProtocol):
    """A client of the datagram server at `peer`, a socket address.

    Each datagram leaves from a socket of its own, which `opened` opens: what arrives there
    was sent in reply to it, whatever it says. What arrives there later is a duplicate, late or
    unasked, and is for `datagrams`. If a reply has been an echo, so must all that follow be,
    except those that begin with one of `refusals`. Get a client from :func:`connect`.

    `transport` is a further socket connected to the peer, from which nothing is asked.
    """

    noisy = False
    transport: Any

    #: How replies begin by which the server refuses a datagram.
    refusals: tuple[bytes, ...] = (b"error ",)
    #: Datagrams outstanding at a time; others wait to be sent.
    WINDOW = 64
    #: Sockets that stay open when their datagram is done, to see what still arrives.
    KEPT = 64

    def __init__(
        self, clock: IReactorTime, peer: tuple[Any, ...], opened: Callable[[Question], Socket]
    ) -> None:
        self._clock = clock
        self.peer = peer
        self._opened = opened
        self._waiting: deque[Question] = deque()
        self._sent: dict[int, Question] = {}
        self._done: deque[Question] = deque()
        self._sending = False
        self._retrying: IDelayedCall | None = None
        # Whether the server echoes; None while unknown.
        self._echoes: bool | None = None
        self._settling: IDelayedCall | None = None
        self._closed = False
        self._unasked = Unasked()
        self._ended = Gate(False)
        #: How many datagrams arrived that answer none, by kind.
        self.surplusCounts: Counter[str] = Counter()

    @property
    def outstanding(self) -> int:
        """Datagrams whose reply is awaited."""
        return len(self._sent) + len(self._waiting)

    def ask(self, datagram: bytes, timeout: float | None = 5.0) -> Deferred[bytes]:
        """Send `datagram`; return a Deferred of its reply.

        It is sent when fewer than WINDOW are outstanding. `timeout` seconds after that the
        Deferred fails with :class:`TimedOut`; it fails with :class:`Unanswered` when the
        datagram can't be sent or nobody listens there.
        """
        question = Question(self, datagram, self._clock, timeout)
        reply = question.reply
        assert reply is not None
        if self._closed:
            question.fail(Unanswered("not sent: the socket is closed"))
            return reply
        self._waiting.append(question)
        reply.addBoth(self._settled, question)
        self._send()
        return reply

    def datagrams(self) -> AsyncIterator[bytes]:
        """Yield the datagrams that answer none, late ones included, until the socket is closed.

        Once reading has begun, the latest UNASKED_LIMIT are kept while nobody takes them.
        """
        return self._unasked.each(lambda: None)

    def close(self) -> Deferred[None]:
        """Close all sockets; what is outstanding fails; fires when that is done."""
        if not self._closed:
            transport = self.transport
            transport.stopListening()
            transport.socket.close()
        return self.disconnected()

    abort = close

    def disconnected(self) -> Deferred[None]:
        """Return a Deferred that fires when the client is closed."""
        return self._ended.wait()

    def stopProtocol(self) -> None:
        self._closed = True
        for call in (self._settling, self._retrying):
            if call is not None and call.active():
                call.cancel()
        for question in [*self._sent.values(), *self._waiting]:
            question.fail(Unanswered("the socket is closed"))
        while self._done:
            self._release()
        self._ended.open()
        self._unasked.end()

    # What follows is called by questions.

    def accepts(self, question: Question, reply: bytes) -> bool:
        if reply == question.datagram:
            if self._echoes is None:
                self._echoes = True
                # What came before from a server that echoes was no reply.
                for other in list(self._sent.values()):
                    other.release()
            return True
        if self._echoes is False or reply.startswith(self.refusals):
            return True
        if self._echoes is None and self._settling is None:
            self._settling = self._clock.callLater(SETTLING, self.decide)
        return False

    def decide(self) -> None:
        if self._settling is not None and self._settling.active():
            self._settling.cancel()
        if self._echoes is None:
            self._echoes = False
            for question in list(self._sent.values()):
                if question.held is not None:
                    question.answer(question.held)

    def surplus(self, kind: Surplus, datagram: bytes) -> None:
        self.surplusCounts[kind] += 1
        if self._unasked.read:
            self._unasked.kept.append(datagram)
            if len(self._unasked.kept) > UNASKED_LIMIT:
                self._unasked.kept.popleft()
            self._unasked.wake()

    # Sockets are opened as they are needed, and the longest unused are closed.

    def _send(self) -> None:
        """Send what waits, as far as the window and the system allow."""
        if self._sending:
            return  # by the loop below, which goes on
        self._sending = True
        try:
            self._sendEach()
        finally:
            self._sending = False

    def _sendEach(self) -> None:
        while self._waiting and len(self._sent) < self.WINDOW and not self._closed:
            question = self._waiting[0]
            try:
                question.socket = self._opened(question)
            except Resting:
                self._retry()
                return
            except OSError as error:
                if error.errno in _SCARCE and self._done:
                    self._release()
                    continue
                if error.errno in _SCARCE and self._sent:
                    self._retry()
                    return
                question.fail(Unanswered(f"not sent: {error.strerror}"))
                continue
            self._waiting.popleft()
            self._sent[id(question)] = question
            try:
                question.send()
            except ConnectionRefusedError:
                question.refused()
            except OSError as error:
                question.fail(Unanswered(f"not sent: {error.strerror}"))

    def _retry(self) -> None:
        if self._retrying is None or not self._retrying.active():
            self._retrying = self._clock.callLater(RETRY, self._send)

    def _settled(self, result: Any, question: Question) -> Any:
        if self._sent.pop(id(question), None) is None:
            # It has not been sent.
            self._waiting.remove(question)
        else:
            question.release()
            self._done.append(question)
            if len(self._done) > self.KEPT:
                self._release()
        self._send()
        return result

    def _release(self) -> None:
        """Close the socket that has been kept longest."""
        used = self._done.popleft().socket
        assert used is not None
        used.close()
