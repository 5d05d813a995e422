"""Log the frames on a network interface; packet(7)."""

import socket
import struct
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.pair.ethernet import EthernetHeader
from twisted.pair.ip import IPHeader
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.errors import CannotListen
from sockservice.net.bind.bound import Bound
from sockservice.net.bind.unbound import unbound
from sockservice.wire.plurals import counted


def packet(interface: str) -> Bound:
    """Bind a socket that sees every frame of a network interface; packet(7).

    :raises CannotListen: There is no such interface, or no permission.
    """
    place = f"raw:{ascii(interface)[1:-1]}"
    try:
        made = unbound(place, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    except CannotListen as problem:
        if isinstance(problem.__cause__, PermissionError):
            raise CannotListen(f"{place}: needs root or CAP_NET_RAW") from problem
        raise
    try:
        made.bind((interface, 0))
    except (OSError, UnicodeError) as error:
        made.close()
        reason = getattr(error, "strerror", None) or "there is no such interface"
        raise CannotListen(f"{place}: {reason}") from error
    return Bound(made)


_IPV4 = 0x0800
_ETHERTYPES = {_IPV4: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6"}  # IANA, IEEE 802 Numbers
_PROTOCOLS = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP"}  # IANA, Protocol Numbers
_OUTGOING = 4  # PACKET_OUTGOING; packet(7)

log = Logger()


def described(frame: bytes) -> str:
    """Return the source, destination and type of an Ethernet frame on one line."""
    try:
        header = EthernetHeader(frame)
        source, target = header.source.hex(":"), header.dest.hex(":")
        kind = _ETHERTYPES.get(header.proto, f"0x{header.proto:04x}")
        if header.proto == _IPV4:
            inner = IPHeader(frame[14:])
            source, target = inner.saddr, inner.daddr
            kind = _PROTOCOLS.get(inner.protocol, f"IPv4 protocol {inner.protocol}")
    except struct.error:
        return f"a malformed frame, {counted(len(frame), 'byte')}"
    return f"{source} > {target} {kind}, {counted(len(frame), 'byte')}"


@implementer(IReadDescriptor)
class FramePort:
    """Logs every frame that a bound packet socket receives."""

    #: Frames read in one turn, before others get theirs.
    TURN = 64

    def __init__(self, reactor: Any, bound: socket.socket) -> None:
        self.reactor = reactor
        self.socket = bound
        self._interface = bound.getsockname()[0]
        bound.setblocking(False)

    def startListening(self) -> None:
        """Begin to read."""
        self.reactor.addReader(self)

    def stopListening(self) -> None:
        """Read no more."""
        self.reactor.removeReader(self)

    # What follows is called by the reactor.

    def fileno(self) -> int:
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return "frames"

    def doRead(self) -> None:
        for _ in range(self.TURN):
            try:
                frame, address = self.socket.recvfrom(65536)
            except OSError:
                # There are no more, or the interface is down at the moment.
                return
            if address[2] == _OUTGOING and self._interface == "lo":
                # The loopback interface sees each frame twice, outgoing and incoming.
                continue
            log.info("{interface} {frame}", interface=self._interface, frame=described(frame))

    def connectionLost(self, reason: Failure) -> None:
        """Continue: the interface went down, which sets an error, or the reactor is stopping."""
        self.doRead()
        self.reactor.addReader(self)
