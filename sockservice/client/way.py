"""The way to a host and a port: from which address, over which IP, through which proxy."""

import socket
from typing import Any, NamedTuple

from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint

from sockservice.client.hostport import ipAddress, ipVersion
from sockservice.client.proxied import Proxied
from sockservice.client.proxy import Proxy
from sockservice.client.resolving import Resolving, numeric

#: What Twisted's endpoints take for no deadline of their own, though their types don't say so.
UNLIMITED: Any = None


class Way(NamedTuple):
    """`source`, `ip` and `proxy` of :func:`~sockservice.connect`."""

    source: str | None = None
    ip: int | None = None
    proxy: str | None = None

    def none(self) -> None:
        """Check that nothing is said of it.

        :raises ValueError: Something is.
        """
        if self.source is not None:
            raise ValueError("a source address applies to tcp:, tls: and udp:HOST:PORT alone")
        if self.ip is not None:
            raise ValueError("a version of IP applies to tcp:, tls: and udp:HOST:PORT alone")
        if self.proxy is not None:
            raise ValueError("a proxy is for tcp: and tls:HOST:PORT alone")

    def version(self, host: str) -> int | None:
        """Return the version of IP by which `host` can be reached; None: either.

        :raises ValueError: There is none.
        """
        found = self.ip
        if self.source is not None:
            own = ipVersion(ipAddress(self.source))
            if found not in (None, own):
                raise ValueError(f"the source address {self.source} is not of IPv{found}")
            found = own
        if found not in (4, 6, None):
            raise ValueError("the version of IP is 4 or 6")
        if found not in (None, ipVersion(host) or found):
            because = f"the source address {self.source}" if self.source else f"IPv{found}"
            raise ValueError(f"{host} is not of the family of {because}")
        return found

    def endpoint(self, reactor: Any, host: str, port: int) -> Any:
        """Return the client endpoint of `host` and `port` over TCP.

        Where there is a proxy, it looks up the name, and the rest applies to the way to it. How
        long it may take is up to whoever connects.

        :raises ValueError: There is no such way.
        """
        if self.proxy is not None:
            proxy = Proxy.parse(self.proxy)
            leading = self._replace(proxy=None)
            return Proxied(leading.endpoint(reactor, proxy.host, proxy.port), proxy, host, port)
        version = self.version(host)
        bound = None if self.source is None else (self.source, 0)
        number = ipVersion(host)
        if number is None:
            return Resolving(
                reactor, lambda ours: HostnameEndpoint(ours, host, port, UNLIMITED, bound), version
            )
        numeric(host, port, socket.SOCK_STREAM)
        made = TCP6ClientEndpoint if number == 6 else TCP4ClientEndpoint
        return made(reactor, host, port, UNLIMITED, bound)
