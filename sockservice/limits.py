"""Who may connect, how many and how often: decided from addresses and the time alone."""

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

from sockservice.addresses import LocalPeer

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Sources whose rates are remembered; of more, those not heard of longest are forgotten.
SOURCES = 10_000


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
    ip = _ip(host)
    if ip.version == 4:
        return str(ip)
    return str(ipaddress.ip_network((ip.packed, 64), strict=False))


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    ip = ipaddress.ip_address(host.partition("%")[0])
    # Whoever comes from an IPv4 address is that, by whatever socket.
    return (ip.version == 6 and ip.ipv4_mapped) or ip


def network(text: str) -> Network:
    """Read an address or a network; IPv4-mapped ones are the IPv4 ones they stand for.

    :raises ValueError: It is neither.
    """
    read = ipaddress.ip_network(text)
    if read.version == 6 and read.prefixlen >= 96 and read.network_address.ipv4_mapped:
        return ipaddress.IPv4Network((read.network_address.ipv4_mapped, read.prefixlen - 96))
    return read


class Access:
    """Networks that may and that may not; the most specific one that holds a host decides.

    A host in none of them is allowed unless something is allowed by name, or `only` what
    is allowed by name may, even if that is nothing.
    """

    def __init__(
        self, allow: Iterable[Network] = (), deny: Iterable[Network] = (), *, only: bool = False
    ) -> None:
        # Of two rules for the same network the denial counts.
        named = dict.fromkeys(allow, True)
        rules = named | dict.fromkeys(deny, False)
        self._otherwise = not (only or named)
        #: Whether there is no rule: everybody is let in.
        self.everybody = self._otherwise and not rules
        # A list of ten thousands of networks costs a host no more than one: what is looked up
        # is the host without its last bits, for each number of these that a network has.
        found: dict[int, dict[int, dict[int, bool]]] = {4: {}, 6: {}}
        for network, allowed in rules.items():
            bits = network.max_prefixlen - network.prefixlen
            number = int(network.network_address) >> bits
            found[network.version].setdefault(bits, {})[number] = allowed
        self._rules = {version: sorted(each.items()) for version, each in found.items()}

    def permits(self, host: str) -> bool:
        """Whether `host`, an IP address, is let in."""
        if self.everybody:
            return True
        ip = _ip(host)
        number = int(ip)
        for bits, known in self._rules[ip.version]:
            allowed = known.get(number >> bits)
            if allowed is not None:
                return allowed
        return self._otherwise


class Rate:
    """So many a second from each source, and as many at once; 0 is no limit."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()  # left, when

    def take(self, source: str, now: float) -> bool:
        """Take one for `source`; False when it has had its share."""
        if not self.most:
            return True
        left, before = self._known.pop(source, (float(self.most), now))
        # A clock may be set back.
        left = min(self.most, left + max(0.0, now - before) * self.most)
        taken = left >= 1
        self._known[source] = (left - taken, now)
        if len(self._known) > SOURCES:
            self._known.popitem(last=False)
        return taken


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
            return f"not allowed: {_ip(host)}"
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

    def left(self, address: IAddress | None) -> None:
        """Count a connection out that had been let in."""
        self._connections -= 1
        whose = source(address)
        if whose is not None:
            self._of[whose] -= 1
            if not self._of[whose]:
                del self._of[whose]
