"""A nested epoll set: many connections as one descriptor of the reactor.

Twisted's reactor passes each event through a logging context, which costs as much as
answering a line. :class:`Descriptors` replaces the reactor for Twisted's transports,
which are unchanged; the reactor reads it when any of them is ready. The guarantees of
the reactor's own loop hold: an exception in one connection is logged and ends that
connection alone, and other descriptors and timers get their turns.
"""

import select
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_GONE = select.EPOLLHUP | select.EPOLLERR

#: Descriptors polled in one turn of the reactor.
TURN = 512
#: Seconds that the turn of a light descriptor takes at most.
LIGHT = 0.0002
#: Seconds for all heavy descriptors in one turn of the reactor, and for each of them; and for
#: each port of datagrams.
SLICE = 0.0003
#: Bytes read at once: at first, and at least, from a descriptor that takes too long.
MOST, LEAST = 65536, 2048

#: What ends nearly all connections. A Failure is made once for each, as Twisted's reactors do.
_ENDS: dict[Exception, Failure] = {why: Failure(why) for why in (CONNECTION_DONE, CONNECTION_LOST)}

log = Logger()


def _failure(why: Exception) -> Failure:
    return _ENDS.get(why) or Failure(why)


@implementer(IReadDescriptor)
class Descriptors:
    """A reactor to the transports, and a reader to the reactor.

    All but the watching of descriptors is left to the reactor. Descriptors that take little
    time are light, and are served first in every turn; the heavy ones, and new ones, as many
    as fit into a time slice, and they are read in smaller pieces. So a peer that sends what
    takes long to answer does not delay those that send a line and wait.
    """

    def __init__(self, reactor: Any, clock: Callable[[], float] = perf_counter) -> None:
        self._reactor = reactor
        self._clock = clock
        self._poll: Any = None
        # Indexed by descriptor, a small number: a third of a dict's memory, and faster.
        self._watched: list[Any] = []
        self._count = 0
        self._events = bytearray()
        self._light = bytearray()
        self._later: dict[int, int] = {}  # events of the heavy ones, in the order of their turns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    # What follows is called by transports.

    def addReader(self, descriptor: Any) -> None:
        self._add(descriptor, IN)

    def addWriter(self, descriptor: Any) -> None:
        self._add(descriptor, _OUT)

    def removeReader(self, descriptor: Any) -> None:
        self._remove(descriptor, IN)

    def removeWriter(self, descriptor: Any) -> None:
        self._remove(descriptor, _OUT)

    def _add(self, descriptor: Any, event: int) -> None:
        if self._poll is None:
            # Created late: by now twistd has forked, if it was to become a daemon.
            self._poll = select.epoll()
        number = descriptor.fileno()
        more = number + 1 - len(self._watched)
        if more > 0:
            self._grow(more)
        events = self._events[number]
        if not events:
            self._poll.register(number, event)
            self._watched[number] = descriptor
            self._count += 1
            if self._count == 1:
                # Only as long as there is one: the reactor may serve others, and go on.
                self._reactor.addReader(self)
        elif not events & event:
            self._poll.modify(number, events | event)
        self._events[number] = events | event

    def _remove(self, descriptor: Any, event: int) -> None:
        number = descriptor.fileno()
        if not 0 <= number < len(self._watched) or self._watched[number] is not descriptor:
            return
        events = self._events[number]
        if not events & event:
            return
        events &= ~event
        if event == IN:
            self._unread(number)
        if events:
            self._poll.modify(number, events)
        else:
            self._poll.unregister(number)
            self._watched[number] = None
            self._count -= 1
            if not self._count:
                self._reactor.removeReader(self)
            self._light[number] = False
            self._later.pop(number, None)
        self._events[number] = events

    def _grow(self, more: int) -> None:
        """Have room for so many more descriptors."""
        self._watched += [None] * more
        self._events += bytes(more)
        self._light += bytes(more)

    def _unread(self, number: int) -> None:
        """A descriptor is not read any more."""

    # What follows is called by the reactor.

    def fileno(self) -> int:
        return int(self._poll.fileno())

    def logPrefix(self) -> str:
        return "connections"

    def doRead(self) -> None:
        self._serveAll(self._ready(TURN))

    def _ready(self, most: int) -> list[tuple[int, int]]:
        """Return descriptors that are ready, and for what."""
        try:
            ready: list[tuple[int, int]] = self._poll.poll(0, most)
            return ready
        except MemoryError:
            # It is the next turn's, or the reactor would end this for good.
            return []

    def _serveAll(self, ready: list[tuple[int, int]]) -> None:
        """Serve what is ready, and what was earlier: the light ones first."""
        clock, light, later, watched = self._clock, self._light, self._later, self._watched
        began = clock()
        for number, event in ready:
            if light[number]:
                if event == IN:
                    # What _serve would do, inlined: the call is 4 % of a line's time.
                    descriptor = watched[number]
                    try:
                        why = descriptor.doRead()
                    except Exception as problem:
                        why = self._failed(descriptor, problem)
                    if why:
                        self._lose(descriptor, why, True)
                else:
                    self._serve(number, event)
                now = clock()
                if now - began > LIGHT:
                    light[number] = False
                began = now
            elif watched[number] is not None:
                # Not closed by one that was served before it.
                later[number] = event
        ends = began + SLICE
        while later and began < ends:
            number = next(iter(later))
            descriptor = watched[number]
            # It may have been paused since.
            self._serve(number, later.pop(number) & (self._events[number] | _GONE))
            now = clock()
            if watched[number] is descriptor:
                self._judge(number, descriptor, now - began)
            began = now

    def _judge(self, number: int, descriptor: Any, took: float) -> None:
        """Decide by the seconds that a turn took whether the descriptor is light."""
        size = getattr(descriptor, "bufferSize", LEAST)
        if took > SLICE and size > LEAST:
            descriptor.bufferSize = size // 2
        elif took < LIGHT:
            self._light[number] = True
            if LEAST <= size < MOST:
                descriptor.bufferSize = size * 2

    def _serve(self, number: int, event: int) -> None:
        """Let a descriptor do what it is ready for."""
        watched = self._watched
        descriptor: Any = watched[number]
        reading = event == IN
        why: Any = None
        try:
            if reading:
                why = descriptor.doRead()
            else:
                # Write first: reading may find the end.
                if event & _OUT:
                    why = descriptor.doWrite()
                if why or watched[number] is not descriptor:
                    pass
                elif event & IN:
                    reading = True
                    why = descriptor.doRead()
                elif event & _GONE:
                    reading = bool(self._events[number] & IN)
                    why = CONNECTION_DONE if reading else CONNECTION_LOST
        except Exception as problem:
            why = self._failed(descriptor, problem)
        if why:
            self._lose(descriptor, why, reading)

    def _failed(self, descriptor: Any, problem: Exception) -> Exception | None:
        """Return why a connection ends, unless its protocol sees to that."""
        if isinstance(problem, MemoryError):
            protocol = getattr(descriptor, "protocol", None)
            # Within TLS.
            protocol = getattr(protocol, "wrappedProtocol", protocol)
            starved = getattr(protocol, "starved", None)
            if starved is not None:
                with suppress(MemoryError):
                    starved()
                    return None
        log.failure("a connection failed and is closed")
        return problem

    def connectionLost(self, reason: Failure) -> None:
        """End all connections that are left: the reactor is stopping."""
        for descriptor in list(self._watched):
            if descriptor is not None:
                self._lose(descriptor, CONNECTION_LOST, False)
        self._poll.close()

    def _lose(self, descriptor: Any, why: Exception, reading: bool) -> None:
        """End a connection, or its reading half."""
        try:
            self._end(descriptor, why, reading)
        except Exception:
            log.failure("a connection failed as it ended")

    def _end(self, descriptor: Any, why: Exception, reading: bool) -> None:
        self.removeReader(descriptor)
        if (
            reading
            and isinstance(why, ConnectionDone)
            and IHalfCloseableDescriptor.providedBy(descriptor)
        ):
            descriptor.readConnectionLost(_failure(why))
        else:
            self.removeWriter(descriptor)
            descriptor.connectionLost(_failure(why))
