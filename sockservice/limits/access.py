"""Which networks may connect: allowed and denied, the most specific one deciding."""

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def plainIP(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
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
        ip = plainIP(host)
        number = int(ip)
        for bits, known in self._rules[ip.version]:
            allowed = known.get(number >> bits)
            if allowed is not None:
                return allowed
        return self._otherwise
