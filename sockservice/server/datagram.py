"""The datagram protocol to subclass: a datagram in, at most one reply out."""

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.distribution import Distribution
from sockservice.errors import Refused
from sockservice.limits.admission import Admission, Limits
from sockservice.limits.counters import Counters
from sockservice.limits.lograte import Journal
from sockservice.limits.memory import NO_MEMORY
from sockservice.net.addresses import named
from sockservice.net.udp.pktinfo import Source, unicast
from sockservice.server.answers import Answer, awaited, cancel, escaped, reason, why
from sockservice.server.storing import Storing
from sockservice.store.engine import Batch

#: Source ports of services that answer whatever they get: a reply to one of them
#: starts a loop, or takes part in an attack on it. 7 echo, 13 daytime, 17 quote
#: of the day, 19 chargen, 37 time, 53 DNS, 69 TFTP, 111 portmap, 123 NTP,
#: 137 NetBIOS, 161 SNMP, 389 LDAP, 555 this service, 1900 SSDP, 3702 WS-Discovery, 5353 mDNS,
#: 11211 memcached (RFC 862 to 867; US-CERT TA14-017A). 0 cannot be replied to.
SILENT_PORTS = frozenset(
    (0, 7, 13, 17, 19, 37, 53, 69, 111, 123, 137, 161, 389, 555, 1900, 3702, 5353, 11211)
)

log = Logger()


class DatagramServer(DatagramProtocol):
    """Serve datagrams: override `answer`.

    `verbose` logs every datagram; `counters` and `ownPorts`, the UDP ports of this
    process, may be shared; `store` keeps, under the name `listener` and with the time
    of `wall`, the datagrams of protocols that ask for it; `admission` says whose
    datagrams are answered, and how many a second. Give it to a
    :class:`~sockservice.net.udp.port.DatagramPort`, which replies from the address
    a datagram was sent to, or to a reactor's `listenUDP`, which may not.
    """

    noisy = False

    #: Source ports that are met with silence, besides the one it listens on.
    silentPorts = SILENT_PORTS
    #: Most datagrams whose answer is awaited; beyond it none is read.
    answerLimit = 1000
    #: The sizes of datagrams in bytes, if they are to be measured.
    sizes: Distribution | None = None
    #: Whether anything is sent to peers. If not, no datagram is left alone for fear of loops.
    replies = True

    def __init__(
        self,
        *,
        counters: Counters | None = None,
        verbose: bool = False,
        ownPorts: set[int] | None = None,
        clock: IReactorTime | None = None,
        store: Storing | None = None,
        listener: str = "",
        admission: Admission | None = None,
        journal: Journal | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.counters = Counters() if counters is None else counters
        self.verbose = verbose
        self.transport: Any = None
        self._pending: set[Deferred[Any]] = set()
        self._full = False  # nothing is read, for so many answers are awaited
        self._drained: Deferred[None] | None = None
        self.clock = clock
        self.store = store
        self.listener = listener
        self._admission = Admission(Limits()) if admission is None else admission
        self._journal = journal
        self.wall = wall
        # Ports that replies must not go to: this one's, and others of the process.
        self._ownPorts = set() if ownPorts is None else ownPorts

    def answer(self, datagram: bytes, peer: Any) -> Answer:
        """Return the reply to `datagram`.

        `peer` is where it came from: `(host, port)`, IPv6's `(host, port, flowinfo,
        scope)`, or a UNIX socket's path, None if it has none. Return the reply,
        None for silence, or a coroutine or Deferred of either. An exception is
        logged and answered with `error internal error`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no answer()")

    def refusal(self, reason: str) -> bytes:
        """Return the datagram that tells a peer `reason` in place of a reply; to be overridden."""
        return b"error " + reason.encode()

    def keep(self, datagram: bytes, peer: Any) -> Deferred[None]:
        """Store `datagram` in the service's store; fires when it is durable.

        Acknowledge it only then. Where it fails, with a StoreError, an answer that
        lets the error through becomes `error not stored: REASON` or `error unknown: REASON`.

        :raises RuntimeError: The service has no store.
        """
        if self.store is None:
            raise RuntimeError("this service has no store; start it with --store")
        received = int(self.wall() * 1_000_000)
        return self.store.append(Batch(received, named(peer), self.listener, [datagram]))

    def drain(self) -> Deferred[None]:
        """Fire when every answer that is awaited has been sent; `cut` hastens it."""
        drained: Deferred[None] = Deferred()
        self._drained = drained
        self._emptied()
        return drained

    def cut(self) -> None:
        """Await no answer any longer."""
        for pending in list(self._pending):
            cancel(pending)

    # What follows is called by the transport.

    def startProtocol(self) -> None:
        self._ownPorts.add(getattr(self.transport.getHost(), "port", 0))

    def stopProtocol(self) -> None:
        self.cut()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        for reply, to in self.datagramsReceived([(datagram, addr)]):
            self._send(reply, to)

    @property
    def batched(self) -> bool:
        """Whether `datagramsReceived` may be called instead of `datagramReceived`."""
        return type(self).datagramReceived is DatagramServer.datagramReceived

    def datagramsReceived(self, received: list[tuple[bytes, Any]]) -> list[tuple[bytes, Any]]:
        """Take datagrams, and where they came from, off the front of `received`.

        Gives the replies that are there, and where they go. When `answerLimit` is
        reached the rest is left.
        """
        replies = []
        taken = 0
        for datagram, addr in received:
            taken += 1
            if self.verbose:
                log.info("{peer} datagram {line!r}", peer=named(addr), line=datagram)
            if isinstance(addr, tuple) and self._silent(addr):
                continue
            try:
                reply = self.answer(datagram, addr)
            except Exception:
                reply = self._failed(Failure(), addr)
            if isinstance(reply, bytes):
                # The sender on a UNIX socket need not have a name.
                if addr and self.replies:
                    replies.append((reply, addr))
            elif reply is not None:
                self._await(reply, addr)
                if len(self._pending) >= self.answerLimit:
                    break
        self.counters.datagrams += taken
        if self.sizes is not None:
            for datagram, _ in received[:taken]:
                self.sizes.add(len(datagram))
        del received[:taken]
        return replies

    def unsendable(self) -> None:
        """The system would not send a reply."""
        self.counters.unsendable += 1

    def starved(self) -> None:
        """There is no memory to read datagrams, or for what they need."""
        self.counters.starved += 1

    def _silent(self, addr: tuple[Any, ...]) -> bool:
        """Whether a datagram is not answered: a limit, or it could do harm."""
        host, port = addr[:2]
        limits = self._admission.limits
        toMany = addr.toMany if isinstance(addr, Source) else not unicast(host)
        # A reply could start a loop, or take part in an attack.
        harmful = toMany or port in self._ownPorts or port in self.silentPorts
        allowed = limits.access.everybody or limits.access.permits(host)
        if (self.replies and harmful) or not allowed:
            self.counters.suspect += 1
            return True
        if not limits.datagramRate or self.clock is None:
            return False
        if self._admission.answers(host, self.clock.seconds()):
            return False
        self.counters.throttled += 1
        return True

    def _await(self, answer: object, addr: Any) -> None:
        pending = awaited(answer)
        self._pending.add(pending)
        pending.addCallback(self._settled, addr)
        pending.addErrback(self._unsettled, addr)
        pending.addBoth(self._done, pending)
        # It may be there by now.
        if len(self._pending) >= self.answerLimit and not self._full:
            self._full = True
            self.transport.pauseProducing()

    def _settled(self, reply: bytes | None, addr: Any) -> None:
        if reply is not None:
            self._send(memoryview(reply).tobytes(), addr)

    def _unsettled(self, failure: Failure, addr: Any) -> None:
        if not failure.check(CancelledError):
            self._send(self._failed(failure, addr), addr)

    def _done(self, _: object, pending: Deferred[Any]) -> None:
        self._pending.discard(pending)
        if self._full and len(self._pending) < self.answerLimit:
            self._full = False
            if self.transport is not None and self._drained is None:
                self.transport.resumeProducing()
        self._emptied()

    def _emptied(self) -> None:
        if self._drained is not None and not self._pending:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def _send(self, reply: bytes, addr: Any) -> None:
        try:
            # The sender on a UNIX socket need not have a name; an answer may come
            # when the socket is closed already.
            if addr and self.replies and self.transport is not None:
                self.transport.write(reply, addr)
        except OSError:
            # As in DatagramPort.
            self.unsendable()

    def _failed(self, failure: Failure, addr: Any) -> bytes:
        self.counters.datagramsRefused += 1
        self.counters.reason("datagramsRefused", why(failure))
        if failure.check(Refused):
            return self.refusal(reason(failure))
        if failure.check(MemoryError):
            self.starved()
            return self.refusal(NO_MEMORY)
        if self._journal is None or self._journal.admits("an answer failed"):
            log.failure("{peer}: answer failed", escaped(failure), peer=named(addr))
        return self.refusal("internal error")


class Echo(DatagramServer):
    """Send every datagram back (RFC 862)."""

    def answer(self, datagram: bytes, peer: Any) -> Answer:
        return datagram
