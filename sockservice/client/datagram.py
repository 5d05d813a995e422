"""A client of a datagram server, whose replies come in any order, or not at all."""

import errno
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure

from sockservice.client.line import UNASKED_LIMIT
from sockservice.client.requests import Asked, Unanswered
from sockservice.client.waiting import Gate, Unasked


class DatagramClient(DatagramProtocol):
    """A client of the datagram server at `peer`, a socket address.

    Datagrams have no order: a reply equal to one outstanding is taken for its
    echo; any other for the reply to the oldest outstanding one, unless it is the
    late echo of one given up. What is neither is for `datagrams`. Get one from :func:`connect`.
    """

    noisy = False
    transport: Any

    def __init__(self, clock: IReactorTime, peer: tuple[Any, ...]) -> None:
        self._clock = clock
        self.peer = peer
        self._asked: list[Asked] = []
        self._givenUp: deque[bytes] = deque(maxlen=1000)
        self._closed = False
        self._unasked = Unasked()
        self._ended = Gate(False)

    @property
    def outstanding(self) -> int:
        """Datagrams whose reply is awaited."""
        return len(self._asked)

    def ask(self, datagram: bytes, timeout: float | None = 5.0) -> Deferred[bytes]:
        """Send `datagram`; return a Deferred of its reply.

        The Deferred fails with :class:`TimedOut` after `timeout` seconds, and with
        :class:`Unanswered` when it can't be sent or nobody listens there.
        """
        asked = Asked(datagram, self._clock, timeout)
        reply = asked.reply
        assert reply is not None
        self._asked.append(asked)
        reply.addBoth(self._done, asked)
        try:
            if self._closed:
                raise OSError(errno.EBADF, "the socket is closed")
            self.transport.write(datagram, self.peer)
        except ConnectionRefusedError:
            # The system reports it once, for whichever datagram.
            self.connectionRefused()
        except OSError as error:
            asked.fail(Unanswered(f"not sent: {error.strerror}"))
        return reply

    def datagrams(self) -> AsyncIterator[bytes]:
        """Yield the datagrams that answer none, late ones included, until the socket is closed.

        Once reading has begun, the latest UNASKED_LIMIT are kept while nobody takes them.
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
        """Return a Deferred that fires when the socket is closed."""
        return self._ended.wait()

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
        self._ended.open()
        self._unasked.end()

    def _failAll(self, why: str) -> None:
        for asked in list(self._asked):
            asked.fail(Unanswered(why))

    def _done(self, result: Any, asked: Asked) -> Any:
        self._asked.remove(asked)
        if isinstance(result, Failure):
            self._givenUp.append(asked.datagram)
        return result
