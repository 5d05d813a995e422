"""Whether one more connection is let in: limits, and the connections counted against them."""

import ipaddress
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

from sockservice.limits.access import Access, plainIP
from sockservice.limits.tokenbucket import Rate
from sockservice.net.addresses import LocalPeer


def source(address: IAddress | None) -> str | None:
    """Say whom an address is counted to: an IPv4 address, an IPv6 /64, a UNIX user."""
    if isinstance(address, (IPv4Address, IPv6Address)):
        return hostSource(address.host)
    if isinstance(address, LocalPeer):
        return f"user {address.uid}"
    return None


@lru_cache(maxsize=128)  # asked as a connection comes and as it goes: a tenth of its cost
def hostSource(host: str) -> str:
    """Say whom an IP address is counted to."""
    ip = plainIP(host)
    if ip.version == 4:
        return str(ip)
    return str(ipaddress.ip_network((ip.packed, 64), strict=False))


@dataclass
class Limits:
    """What the process allows all its listeners together; 0 stands for no limit."""

    access: Access = field(default_factory=Access)
    connections: int = 0
    connectionsPerSource: int = 0
    connectionRate: int = 0
    #: Seconds without a whole line.
    idle: int = 0
    #: Seconds in which a line that was begun has to end, a TLS handshake and a PROXY header.
    unfinished: int = 0
    #: Lines a second that are taken from one connection.
    lineRate: int = 0
    #: Datagrams a second that are answered to one source.
    datagramRate: int = 0

    @property
    def perSource(self) -> bool:
        """Whether anything is counted for each source."""
        return bool(self.connectionsPerSource or self.connectionRate or self.datagramRate)


class Admission:
    """The connections of the process, counted; and whether one more is let in."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._connections = 0
        self._of: Counter[str] = Counter()
        self._rate = Rate(limits.connectionRate)
        self._datagrams = Rate(limits.datagramRate)

    def change(self, limits: Limits) -> None:
        """Let `limits` hold from now on; who was let in stays."""
        self.limits = limits
        self._rate.most = limits.connectionRate
        self._datagrams.most = limits.datagramRate

    def permits(self, host: str) -> bool:
        """Whether `host` may connect, and have its datagrams answered."""
        return self.limits.access.permits(host)

    def answers(self, host: str, now: float) -> bool:
        """Count a datagram from `host`; False when it has had its share of answers."""
        return not self.limits.datagramRate or self._datagrams.take(hostSource(host), now)

    def refusal(self, address: IAddress | None, now: float) -> str | None:
        """Count a connection in, or say why it is refused."""
        limits = self.limits
        host = getattr(address, "host", None)
        if isinstance(host, str) and not self.permits(host):
            return f"not allowed: {plainIP(host)}"
        if limits.connections and self._connections >= limits.connections:
            return f"busy: {limits.connections} connections, the limit; try again later"
        whose = source(address)
        if whose is not None:
            most = limits.connectionsPerSource
            if most and self._of[whose] >= most:
                return f"busy: {most} connections from {whose}, the limit; try again later"
            if not self._rate.take(whose, now):
                most = limits.connectionRate
                return f"busy: {most} connections a second from {whose}, the limit; try again later"
            self._of[whose] += 1
        self._connections += 1
        return None

    def left(self, whose: str | None) -> None:
        """Count a connection out that had been let in; `whose` is the `source` of its address."""
        self._connections -= 1
        if whose is not None:
            self._of[whose] -= 1
            if not self._of[whose]:
                del self._of[whose]
