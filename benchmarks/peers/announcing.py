"""The line by which a Twisted peer tells its port."""

from typing import cast

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IListeningPort


def announce(port: IListeningPort) -> None:
    address = cast(IPv4Address, port.getHost())
    print(f"listening on {address.host}:{address.port}", flush=True)
