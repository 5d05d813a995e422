"""Who is measured: how each server is started, what it answers, and what it is compared with."""

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from benchmarks.compiler import compile_c
from benchmarks.failure import Failure

PEERS = Path(__file__).parent / "peers"
ADDRESS = r"127\.0\.0\.1:(\d+)"

Reply = Literal["ok", "upper"]


@dataclass(frozen=True)
class Program:
    """A server to start; `ready` finds its port in what it prints."""

    command: Callable[[Path], list[str]]
    ready: re.Pattern[str] = re.compile(f"listening on {ADDRESS}")


@dataclass(frozen=True)
class Contestant:
    name: str
    description: str
    stream: Program | None = None
    datagram: Program | None = None
    reply: Reply = "ok"
    baseline: str = "stock"
    needs: str | None = None

    def missing(self) -> str | None:
        """Return the module it needs and does not find."""
        return self.needs if self.needs and find_spec(self.needs) is None else None


def script(module: str) -> Program:
    return Program(lambda build: [sys.executable, "-m", f"benchmarks.peers.{module}"])


def compiled(source: str) -> Program:
    path = PEERS / source
    return Program(lambda build: [str(compile_c([path], build / path.stem))])


def twistd(protocol: str, transport: str) -> Program:
    return Program(twistd_command, re.compile(rf"{protocol} listening on {transport}:{ADDRESS}"))


def twistd_command(build: Path) -> list[str]:
    beside = Path(sys.executable).with_name("twistd")
    found = str(beside) if beside.exists() else shutil.which("twistd")
    if found is None:
        raise Failure("`twistd` is not installed beside this Python nor on the PATH")
    return [found, "-n", "--pidfile=", "sockservice", "--port", "0"]


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant(
            "sockservice",
            "twistd sockservice, as it comes",
            stream=twistd("ack", "tcp"),
            datagram=twistd("echo", "udp"),
        ),
        Contestant(
            "subclass",
            "LineServer with one method that returns line.upper()",
            stream=script("subclass"),
            reply="upper",
            baseline="stock-upper",
        ),
        Contestant(
            "stock",
            "Twisted's LineOnlyReceiver and DatagramProtocol",
            stream=script("stock"),
            datagram=script("stock_datagrams"),
        ),
        Contestant(
            "stock-upper",
            "Twisted's LineOnlyReceiver, answers line.upper()",
            stream=script("stock_upper"),
            reply="upper",
        ),
        Contestant(
            "asyncio-streams",
            "asyncio's StreamReader and StreamWriter",
            stream=script("asyncio_streams"),
        ),
        Contestant(
            "asyncio-protocol",
            "asyncio's Protocol, a write a line, and DatagramProtocol",
            stream=script("asyncio_protocol"),
            datagram=script("asyncio_datagrams"),
        ),
        Contestant(
            "uvloop-protocol",
            "the same on uvloop",
            stream=script("uvloop_protocol"),
            datagram=script("uvloop_datagrams"),
            needs="uvloop",
        ),
        Contestant(
            "socketserver",
            "the standard library's ThreadingTCPServer",
            stream=script("threads"),
        ),
        Contestant(
            "c",
            "an epoll server in C, a write a read; a plain echo loop over UDP",
            stream=compiled("server.c"),
            datagram=compiled("echo.c"),
        ),
    )
}
