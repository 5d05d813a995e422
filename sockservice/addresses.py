"""Addresses as the log, the client and the documents write them."""

from twisted.internet.interfaces import IAddress


def hostPort(host: str, port: int) -> str:
    """Write an IP address and a port, IPv6 in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def named(address: IAddress) -> str:
    """Write a Twisted address on one line.

    What is neither IPv4 nor IPv6 is written as Twisted writes it, escaped.
    """
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if isinstance(host, str) and isinstance(port, int):
        return hostPort(host, port)
    return ascii(str(address))[1:-1]
