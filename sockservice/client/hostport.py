"""Parse `HOST:PORT`, IP addresses and paths of sockets."""

import ipaddress
import os


def hostAndPort(text: str) -> tuple[str, int]:
    """Parse `HOST:PORT`, IPv6 in brackets.

    :raises ValueError: It is something else.
    """
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"write an IPv6 address in brackets: [{host}]:{port}")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def pathOf(text: str) -> str:
    if not text or len(os.fsencode(text)) > 107:
        raise ValueError("the path of a UNIX socket has 1 to 107 bytes")
    return text


def ipVersion(text: str) -> int | None:
    """Return the IP version of an address, or None if it is no address."""
    try:
        return ipaddress.ip_address(text).version
    except ValueError:
        return None


def ipAddress(text: str) -> str:
    if ipVersion(text) is None:
        raise ValueError(f"{text!r} is no IP address")
    return text
