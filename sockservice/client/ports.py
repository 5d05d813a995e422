"""Sockets for one datagram each, at local addresses that have rested."""

import socket
from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.client.datagram import Resting
from sockservice.client.question import Question
from sockservice.net.udp.mmsg import LONGEST

#: Seconds for which a closed port is not used again. What is later than that is not told
#: from a reply; few networks keep a datagram longer (RFC 8085, 3.2, has 2 minutes at most).
REST = 30.0
#: Sockets opened in search of a port that has rested. The system chooses ports at random: if
#: half of them rest, this fails once in 65,536.
TRIES = 16


class Ports:
    """Opens sockets connected to one peer; `connected` makes one at a port the system chooses.

    What is remembered is bounded by the number of ports that the system has to choose from.
    """

    def __init__(self, reactor: Any, connected: Callable[[], socket.socket]) -> None:
        self._reactor = reactor
        self._connected = connected
        self._used: dict[Hashable, float] = {}  # addresses and when they were closed, in order

    def open(self, question: Question) -> "Port":
        """Return a socket for `question`.

        :raises Resting: None of the ports that the system chose has rested.
        :raises OSError: There is none.
        """
        now = self._reactor.seconds()
        while self._used:
            oldest = next(iter(self._used))
            if now - self._used[oldest] < REST:
                break
            del self._used[oldest]
        aside = []
        try:
            for _ in range(TRIES):
                made = self._connected()
                address = made.getsockname()
                if address not in self._used:
                    return Port(self._reactor, made, address, question, self._close)
                # Kept, lest the system choose the same again.
                aside.append(made)
        finally:
            for each in aside:
                each.close()
        raise Resting

    def _close(self, address: Hashable) -> None:
        self._used.pop(address, None)
        self._used[address] = self._reactor.seconds()


@implementer(IReadDescriptor)
class Port:
    """A socket connected to the peer, which tells `question` what arrives."""

    #: Datagrams read in one turn.
    TURN = 10

    def __init__(
        self,
        reactor: Any,
        connected: socket.socket,
        address: Hashable,
        question: Question,
        closed: Callable[[Hashable], None],
    ) -> None:
        self._reactor = reactor
        self._socket = connected
        self._address = address
        self._question = question
        self._tell = closed
        self._closed = False
        # Between bind and connect anyone could have sent to it.
        self._drain()
        reactor.addReader(self)

    def send(self, datagram: bytes) -> None:
        self._socket.send(datagram)

    def close(self) -> None:
        self._closed = True
        self._reactor.removeReader(self)
        self._socket.close()
        self._tell(self._address)

    # What follows is called by the reactor.

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return type(self).__name__

    def doRead(self) -> None:
        for _ in range(self.TURN):
            if self._closed:
                return
            try:
                datagram = self._socket.recv(LONGEST)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                self._question.refused()
            except OSError:
                # Of another ICMP message, which does not say that there is no reply.
                continue
            else:
                self._question.received(datagram)

    def connectionLost(self, reason: Failure) -> None:
        # The reactor takes a pending error of the socket (an ICMP message) for its end.
        # Reading clears the error, and the socket is as good as before.
        if not self._closed:
            self.doRead()
        if not self._closed:
            self._reactor.addReader(self)

    def _drain(self) -> None:
        while True:
            try:
                self._socket.recv(LONGEST)
            except OSError:
                return
