"""Admission control: count connections, and refuse those beyond the limits."""

import ipaddress
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

from sockservice.limits.access import Access, plainIP
from sockservice.limits.tokenbucket import Rate
from sockservice.net.addresses import LocalPeer
from sockservice.wire.plurals import counted


def source(address: IAddress | None) -> str | None:
    """Return the source an address counts for: an IPv4 address, an IPv6 /64, a UNIX user."""
    if isinstance(address, (IPv4Address, IPv6Address)):
        return hostSource(address.host)
    if isinstance(address, LocalPeer):
        return f"user {address.uid}"
    return None


@lru_cache(maxsize=128)  # asked as a connection comes and as it goes: a tenth of its cost
def hostSource(host: str) -> str:
    """Return the source that an IP address counts for."""
    ip = plainIP(host)
    if ip.version == 4:
        return str(ip)
    return str(ipaddress.ip_network((ip.packed, 64), strict=False))


@dataclass
class Limits:
    """Limits of all listeners of the process together; 0 is no limit."""

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
        """Whether any limit applies to each source."""
        return bool(self.connectionsPerSource or self.connectionRate or self.datagramRate)


class Admission:
    """Counts the connections of the process, and decides on new ones."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        #: What has refused the last one that was: the name of an option.
        self.met = ""
        self._connections = 0
        self._of: Counter[str] = Counter()
        self._rate = Rate(limits.connectionRate)
        self._datagrams = Rate(limits.datagramRate)

    def change(self, limits: Limits) -> None:
        """Apply `limits` from now on; connections admitted before stay."""
        self.limits = limits
        self._rate.most = limits.connectionRate
        self._datagrams.most = limits.datagramRate

    def permits(self, host: str) -> bool:
        """Return whether `host` may connect, and have its datagrams answered."""
        return self.limits.access.permits(host)

    def answers(self, host: str, now: float) -> bool:
        """Count a datagram from `host`; False when it has had its share of answers."""
        return not self.limits.datagramRate or self._datagrams.take(hostSource(host), now)

    def refusal(self, address: IAddress | None, now: float) -> str | None:
        """Count a connection in and return None, or return why it is refused."""
        limits = self.limits
        host = getattr(address, "host", None)
        if isinstance(host, str) and not self.permits(host):
            self.met = "allow"
            return f"not allowed: {plainIP(host)}"
        if limits.connections and self._connections >= limits.connections:
            self.met = "max-connections"
            return f"busy: {counted(limits.connections, 'connection')}, the limit; try again later"
        whose = source(address)
        if whose is not None:
            most = limits.connectionsPerSource
            if most and self._of[whose] >= most:
                self.met = "max-connections-per-source"
                return (
                    f"busy: {counted(most, 'connection')} from {whose}, the limit; try again later"
                )
            if not self._rate.take(whose, now):
                most = limits.connectionRate
                self.met = "connection-rate"
                rate = f"{counted(most, 'connection')} a second from {whose}"
                return f"busy: {rate}, the limit; try again later"
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
