"""Send replies: at once where the system takes them, else as the peer reads."""

from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from sockservice.net.transports import plainSocket

#: Bytes that a transport has queued when it says that it has enough
#: (twisted.internet.abstract.FileDescriptor.bufferSize).
BUFFER_SIZE = 65536


class Sender(Protocol):
    """A connection that sends."""

    transport: Any

    def flushed(self) -> None:
        """All that was queued has been sent: the peer reads."""


@implementer(IPushProducer)
class Outbox:
    """What `sender` sends.

    On a plain socket `send` is tried first. That spares the two epoll_ctl calls and the turn
    of the reactor that `transport.write` costs: 1.6 times as many replies in ping-pong.
    Elsewhere (TLS, packets, memory) the transport is all there is.
    """

    __slots__ = ("_plain", "_sender", "_waiting", "queued", "unsent")

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._plain = plainSocket(sender.transport)
        self._waiting: list[Deferred[None]] | tuple[()] = ()
        #: Whether replies wait for the peer to read: then no line is taken.
        self.unsent = False
        #: Bytes of them, about.
        self.queued = 0
        if self._plain is None:
            sender.transport.registerProducer(self, True)

    def write(self, data: bytes) -> None:
        """Send `data` behind all that was written before."""
        plain = self._plain
        if plain is None or self.unsent:
            self._sender.transport.write(data)
            if self.unsent:
                self.queued += len(data)
            return
        try:
            sent = plain.send(data)
        except OSError:
            # Either the system's buffer is full or the connection is broken;
            # the transport finds out which.
            sent = 0
        if sent < len(data):
            self._sender.transport.write(data[sent:])
            # A pull producer is asked when all is written.
            self._sender.transport.registerProducer(self, False)
            self.unsent = True
            self.queued = len(data) - sent

    def room(self) -> Deferred[None]:
        """Return a Deferred that fires when nothing is unsent, or nothing ever will be sent."""
        if not self.unsent:
            return succeed(None)
        room: Deferred[None] = Deferred(lambda _: None)
        self._waiting = [*self._waiting, room]
        return room

    def wake(self) -> None:
        """Fire what `room` returned: the peer has read, or is gone."""
        waiting, self._waiting = self._waiting, ()
        for room in waiting:
            if not room.called:
                room.callback(None)

    @property
    def streams(self) -> bool:
        """Whether the transport itself says when it has enough."""
        return self._plain is None

    def end(self) -> None:
        """Nothing more will be written: a transport with a producer would never close."""
        if self.streams:
            self._sender.transport.unregisterProducer()

    # What follows is called by the transport.

    def pauseProducing(self) -> None:
        self.unsent = True
        self.queued = BUFFER_SIZE

    def resumeProducing(self) -> None:
        if not self.unsent:
            # A pull producer is asked at once, before there is anything unsent.
            return
        self.unsent = False
        self.queued = 0
        if self._plain is not None:
            self._sender.transport.unregisterProducer()
        self.wake()
        self._sender.flushed()

    def stopProducing(self) -> None:
        """The connection is gone; connectionLost follows."""
