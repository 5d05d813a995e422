"""Check the Host header, so that no web page elsewhere can read ours through DNS rebinding.

An attacker's page can make a browser resolve the attacker's own name to this machine. The name
is in the Host header all the same; only ours are served.
"""

import ipaddress
import re
from collections.abc import Iterable

#: RFC 9110, 7.2: a host, which may be an IPv6 address in brackets, and perhaps a port.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::[0-9]{1,5})?")


class Hosts:
    """The names by which requests may call this server, besides the address they come to.

    Names of this machine's loopback are always among them (RFC 6761, 6.3): they mean the
    browser's own machine, whoever says them.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {_plain(each) for each in names}

    def permits(self, header: str, address: str | None) -> bool:
        """Return whether a request with this Host header is meant for us.

        `address` is the one that its connection was made to; None is a UNIX socket, which no
        browser reaches.
        """
        found = _HOST.fullmatch(header)
        if address is None:
            return True
        if found is None:
            return False
        host = _plain(found[1].strip("[]"))
        if host in self._names or host == "localhost" or host.endswith(".localhost"):
            return True
        return host == _plain(address)


def _plain(host: str) -> str:
    """Return an address or a name in the one way of writing it."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host.lower().rstrip(".")
    mapped = getattr(ip, "ipv4_mapped", None)
    return str(mapped or ip)
