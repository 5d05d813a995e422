"""Socket options by name: `SO_RCVBUF=1000000`."""

import socket
from typing import NamedTuple


class SocketOption(NamedTuple):
    """A socket option, parsed; `text` is how it was written."""

    text: str
    level: int
    option: int
    value: int


_LEVELS = {
    "SO": socket.SOL_SOCKET,
    "IP": socket.IPPROTO_IP,
    "IPV6": socket.IPPROTO_IPV6,
    "TCP": socket.IPPROTO_TCP,
}


def socketOption(text: str) -> SocketOption:
    """Parse `NAME=VALUE`, with a name of Python's socket module: SO_, IP_, IPV6_ or TCP_.

    :raises ValueError: There is no such option, or the value is no whole number.
    """
    name, _, value = text.partition("=")
    level = _LEVELS.get(name.partition("_")[0])
    option = getattr(socket, name, None)
    if level is None or not isinstance(option, int):
        raise ValueError(f"{name!a} is no socket option (as SO_RCVBUF, TCP_NODELAY, IP_TOS)")
    try:
        return SocketOption(text, level, option, int(value))
    except ValueError:
        raise ValueError(f"{value!a} is no whole number") from None
