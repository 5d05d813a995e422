"""Numbers of ports that a test has to itself while it runs, though others ask for ports."""

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path


def reserved() -> socket.socket:
    """Take a TCP port for what sets SO_REUSEADDR and listens, again and again (socket(7)).

    While nobody listens who connects is refused, and nobody else gets the port: neither who asks
    for any to listen on, nor a connection for its own end.
    """
    port = socket.socket()
    port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    port.bind(("127.0.0.1", 0))
    return port


def deaf() -> socket.socket:
    """Take a UDP port where nobody listens: datagrams to it are refused.

    For it is connected, and takes those of one peer alone (udp(7)), which is itself.
    """
    port = socket.socket(type=socket.SOCK_DGRAM)
    port.bind(("127.0.0.1", 0))
    port.connect(port.getsockname())
    return port


def freePorts() -> Iterator[str]:
    """Give ports that are free, and that the system gives to nobody who asks for any."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(first // 2, first), first // 2):
        with suppress(OSError), ExitStack() as bound:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                bound.enter_context(socket.socket(type=kind)).bind(("127.0.0.1", port))
            yield str(port)
