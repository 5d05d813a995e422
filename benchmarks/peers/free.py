"""A port that is free now, for a server that can't be told to take one."""

import socket


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])
