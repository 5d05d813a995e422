"""How long a server takes from its start to its first reply."""

import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.failure import Failure
from benchmarks.loader import Measurement
from benchmarks.server import ROOT, running

REPLY_SECONDS = 10.0


def start(
    command: Sequence[str], ready: re.Pattern[str], core: int, folder: Path, tree: Path = ROOT
) -> Measurement:
    """Start a server and stop it again. One that names port 0 is ready when it says so."""
    began = time.perf_counter()
    with running(command, ready, {core}, folder, tree) as server:
        if server.port:
            ask(server.port)
        seconds = time.perf_counter() - began
        # As clock_getcpuclockid(3) makes it of a process's id.
        cpu = time.clock_gettime(~server.pid << 3 | 2)
    return Measurement(1, 1, 0, seconds, cpu, 0, 0, 0, value=seconds * 1e3)


def ask(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), REPLY_SECONDS) as connection:
        connection.sendall(b"ready?\n")
        if connection.recv(3) != b"ok\n":
            raise Failure("the first line had no reply")
