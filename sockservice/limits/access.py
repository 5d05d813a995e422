"""Access rules: which networks may connect."""

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def plainIP(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    ip = ipaddress.ip_address(host.partition("%")[0])
    # An IPv4 peer counts as one on an IPv6 socket, too.
    return (ip.version == 6 and ip.ipv4_mapped) or ip


def network(text: str) -> Network:
    """Parse an address or a network; an IPv4-mapped one becomes the IPv4 one it stands for.

    :raises ValueError: It is neither.
    """
    read = ipaddress.ip_network(text)
    if read.version == 6 and read.prefixlen >= 96 and read.network_address.ipv4_mapped:
        return ipaddress.IPv4Network((read.network_address.ipv4_mapped, read.prefixlen - 96))
    return read


class Access:
    """Networks allowed and denied; of those that contain a host the most specific decides.

    A host in none of them is allowed if `allow` is empty and `only` is false.
    """

    def __init__(
        self, allow: Iterable[Network] = (), deny: Iterable[Network] = (), *, only: bool = False
    ) -> None:
        # If a network is both allowed and denied, it is denied.
        named = dict.fromkeys(allow, True)
        rules = named | dict.fromkeys(deny, False)
        self._otherwise = not (only or named)
        #: Whether there is no rule, and everybody is allowed.
        self.everybody = self._otherwise and not rules
        # Tens of thousands of networks cost no more than one: for each prefix length in use,
        # the prefix of the host is looked up.
        found: dict[int, dict[int, dict[int, bool]]] = {4: {}, 6: {}}
        for network, allowed in rules.items():
            bits = network.max_prefixlen - network.prefixlen
            number = int(network.network_address) >> bits
            found[network.version].setdefault(bits, {})[number] = allowed
        self._rules = {version: sorted(each.items()) for version, each in found.items()}

    def permits(self, host: str) -> bool:
        """Return whether `host`, an IP address, is allowed."""
        if self.everybody:
            return True
        ip = plainIP(host)
        number = int(ip)
        for bits, known in self._rules[ip.version]:
            allowed = known.get(number >> bits)
            if allowed is not None:
                return allowed
        return self._otherwise
