"""Who is measured: how each server is started, what it answers, and what it is compared with."""

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from benchmarks.compiler import compile_c
from benchmarks.disk import DATABASE, stored_lines
from benchmarks.failure import Failure
from benchmarks.peers import rsyslog

PEERS = Path(__file__).parent / "peers"
ADDRESS = r"127\.0\.0\.1:(\d+)"

Reply = Literal["ok", "upper"]
Load = Literal["lines", "connections", "datagrams", "relp", "syncs"]


@dataclass(frozen=True)
class Program:
    """A server to start; `ready` finds its port in what it prints.

    `load` is what it is loaded with where that is not what the work says. `stored` counts
    the lines it has left in its folder. `everywhere`: it may run on the load's core, too.
    """

    command: Callable[[Path], list[str]]
    ready: re.Pattern[str] = re.compile(f"listening on {ADDRESS}")
    load: Load | None = None
    stored: Callable[[Path], int] | None = None
    everywhere: bool = False


@dataclass(frozen=True)
class Loop:
    """No server: the load alone, on the server's core."""

    load: Load


@dataclass(frozen=True)
class Contestant:
    name: str
    description: str
    stream: Program | None = None
    datagram: Program | None = None
    durable: Program | Loop | None = None
    reply: Reply = "ok"
    baseline: str = "stock"
    #: Says what it needs and does not find.
    missing: Callable[[], str | None] = lambda: None


def module(name: str) -> Callable[[], str | None]:
    return lambda: name if find_spec(name) is None else None


def script(module: str, load: Load | None = None) -> Program:
    command = [sys.executable, "-m", f"benchmarks.peers.{module}"]
    return Program(lambda build: command, load=load)


def compiled(source: str) -> Program:
    path = PEERS / source
    return Program(lambda build: [str(compile_c([path], build / path.stem))])


def twistd(
    protocol: str, transport: str, *options: str, stored: Callable[[Path], int] | None = None
) -> Program:
    return Program(
        lambda build: [*twistd_command(), *options],
        re.compile(rf"{protocol} listening on {transport}:{ADDRESS}"),
        stored=stored,
    )


def workers(
    protocol: str, transport: str, *options: str, stored: Callable[[Path], int] | None = None
) -> Program:
    """Two of them, on the two cores that there are, one of which is the load's as well."""
    one = twistd(protocol, transport, "--workers", "2", *options, stored=stored)
    ready = re.compile(rf"{one.ready.pattern}(?s:.)*workers are ready")
    return replace(one, ready=ready, everywhere=True)


def twistd_command() -> list[str]:
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
            durable=twistd("ack", "tcp"),
        ),
        Contestant(
            "store",
            "twistd sockservice with --store sqlite:",
            durable=twistd("ack", "tcp", "--store", f"sqlite:{DATABASE}", stored=stored_lines),
            baseline="sockservice",
        ),
        Contestant(
            "pruned",
            "the same with --retain-size 1M, which it always has to keep to",
            durable=twistd("ack", "tcp", "--store", f"sqlite:{DATABASE}", "--retain-size", "1M"),
            baseline="store",
        ),
        Contestant(
            "workers",
            "twistd sockservice with --workers 2, of which one shares the load's core",
            stream=workers("ack", "tcp"),
            datagram=workers("echo", "udp"),
            durable=workers("ack", "tcp", "--store", f"sqlite:{DATABASE}", stored=stored_lines),
            baseline="sockservice",
        ),
        Contestant(
            "fdatasync",
            "no server: a loop in C that appends a record and syncs it",
            durable=Loop("syncs"),
            baseline="sockservice",
        ),
        Contestant(
            "relp",
            "rsyslog's RELP with a queue on disk, synced at every message",
            durable=script("relp", load="relp"),
            baseline="sockservice",
            missing=rsyslog.missing,
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
            missing=module("uvloop"),
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
