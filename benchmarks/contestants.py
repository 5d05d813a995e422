"""Who is measured: how each server is started, what it answers, and what it is compared with."""

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from benchmarks.certificate import certificate
from benchmarks.certificate import missing as tls_missing
from benchmarks.compiler import compile_c
from benchmarks.disk import DATABASE, stored_lines
from benchmarks.failure import Failure
from benchmarks.peers import rsyslog
from benchmarks.server import ROOT

PEERS = Path(__file__).parent / "peers"
SOCAT = "TCP4-LISTEN:0,bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=4096"
ADDRESS = r"127\.0\.0\.1:(\d+)"

Reply = Literal["ok", "upper", "session"]
Load = Literal[
    "lines", "connections", "burst", "idle", "datagrams", "relp", "syncs", "startup", "sending"
]


@dataclass(frozen=True)
class Program:
    """A server to start; `ready` finds its port in what it prints.

    `load` is what it is loaded with where that is not what the work says. `stored` counts
    the lines it has left in its folder, behind an id. `everywhere`: it may run on the load's
    core, too. `forks`: it serves in processes that come and go, whose processor time nobody
    can read.
    """

    command: Callable[[Path], list[str]]
    ready: re.Pattern[str] = re.compile(f"listening on {ADDRESS}")
    load: Load | None = None
    stored: Callable[[Path, int], int] | None = None
    everywhere: bool = False
    forks: bool = False


@dataclass(frozen=True)
class Loop:
    """No server: the load alone, on the server's core."""

    load: Load


@dataclass(frozen=True)
class Sender:
    """A program that sends lines to the server at a port, from the file at a path or a pipe."""

    command: Callable[[int, Path], list[str]]
    piped: bool = False


@dataclass(frozen=True)
class Contestant:
    name: str
    description: str
    stream: Program | None = None
    datagram: Program | None = None
    durable: Program | Loop | None = None
    startup: Program | None = None
    sender: Sender | None = None
    reply: Reply = "ok"
    tls: bool = False
    baseline: str = "stock"
    #: The folder with the package that it runs.
    tree: Path = ROOT
    #: As many connections as it can have at once, and why no more.
    most: int = 10_000
    bound: str = ""
    #: Says what it needs and does not find.
    missing: Callable[[], str | None] = lambda: None


def module(name: str) -> Callable[[], str | None]:
    return lambda: name if find_spec(name) is None else None


def installed(program: str) -> Callable[[], str | None]:
    return lambda: program if shutil.which(program) is None else None


def script(module: str, *words: str, load: Load | None = None, forks: bool = False) -> Program:
    command = [sys.executable, "-m", f"benchmarks.peers.{module}", *words]
    return Program(lambda build: command, load=load, forks=forks)


def compiled(source: str) -> Program:
    path = PEERS / source
    return Program(lambda build: [str(compile_c([path], build / path.stem))])


def twistd(
    protocol: str, transport: str, *options: str, stored: Callable[[Path, int], int] | None = None
) -> Program:
    return Program(
        lambda build: [*twistd_command(), "sockservice", "--port", "0", *options],
        re.compile(rf"{protocol} listening on {transport}:{ADDRESS}"),
        stored=stored,
    )


def scraped(protocol: str, transport: str) -> Program:
    """The service with a status page that is scraped once a second."""
    one = twistd(protocol, transport)
    beside = [sys.executable, "-m", "benchmarks.peers.scraped"]
    return replace(one, command=lambda build: [*beside, *one.command(build)])


def workers(
    protocol: str, transport: str, *options: str, stored: Callable[[Path, int], int] | None = None
) -> Program:
    """Two of them, on the two cores that there are, one of which is the load's as well.

    Each gets half of the limit on connections, and not exactly half of them.
    """
    some = ("--workers", "2", "--max-connections", "20000")
    one = twistd(protocol, transport, *some, *options, stored=stored)
    return replace(one, everywhere=True)


def storing(*listeners: str) -> Program:
    """The service with a store and listeners of its own, of which the first is loaded."""

    def command(build: Path) -> list[str]:
        words = [*twistd_command(), "sockservice", "--store", f"sqlite:{DATABASE}"]
        for protocol in listeners:
            words += ["--listen", f"{protocol}@tcp:0:interface=127.0.0.1"]
        return words

    ready = re.compile(rf"\b{listeners[0]} listening on tcp:{ADDRESS}")
    return Program(command, ready, stored=stored_lines)


def listening(text: str, transport: str = "tcp") -> Program:
    """The service with a listener of its own; `{build}` stands for the folder with the key."""

    def command(build: Path) -> list[str]:
        if transport == "ssl":
            certificate(build)
        return [*twistd_command(), "sockservice", "--listen", text.format(build=build)]

    return Program(command, re.compile(rf"\w listening on {transport}:{ADDRESS}"))


def stock_tls(build: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.peers.stock_tls", str(certificate(build))]


def twistd_command() -> list[str]:
    return [beside("twistd"), "-n", "--pidfile="]


def beside(program: str) -> str:
    """Return the path of a program that is installed with this Python, or on the PATH."""
    path = Path(sys.executable).with_name(program)
    found = str(path) if path.exists() else shutil.which(program)
    if found is None:
        raise Failure(f"`{program}` is not installed beside this Python nor on the PATH")
    return found


def sending(command: str, port: int, *words: str) -> list[str]:
    return [beside("sockservice"), command, f"127.0.0.1:{port}", "--session", "measured", *words]


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant(
            "sockservice",
            "twistd sockservice, as it comes",
            stream=twistd("ack", "tcp"),
            datagram=twistd("echo", "udp"),
            durable=twistd("ack", "tcp"),
            startup=twistd("ack", "tcp"),
        ),
        Contestant(
            "status",
            "the same with --status, scraped once a second",
            stream=scraped("ack", "tcp"),
            datagram=scraped("echo", "udp"),
            baseline="sockservice",
        ),
        Contestant(
            "store",
            "twistd sockservice with --store sqlite:",
            durable=twistd("ack", "tcp", "--store", f"sqlite:{DATABASE}", stored=stored_lines),
            baseline="sockservice",
        ),
        Contestant(
            "sessions",
            "the same, with lines in a session for each connection: each stored once",
            durable=storing("session"),
            reply="session",
            baseline="store",
        ),
        Contestant(
            "beside",
            "the same as `store`, with a session listener besides that nobody uses",
            durable=storing("ack", "session"),
            baseline="store",
        ),
        Contestant(
            "pruned",
            "`store` with --retain-size 1M, which it always has to keep to",
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
            "relp-memory",
            "rsyslog's RELP as it comes: acknowledged in memory",
            durable=script("relp", "memory", load="relp"),
            baseline="relp",
            missing=rsyslog.missing,
        ),
        Contestant(
            "collector",
            "twistd sockservice with a RELP listener: acknowledged on disk",
            durable=replace(storing("relp"), load="relp", stored=None),
            baseline="relp",
        ),
        Contestant(
            "subclass",
            "LineServer with one method that returns line.upper()",
            stream=listening("benchmarks.peers.subclass.Upper@tcp:0:interface=127.0.0.1"),
            reply="upper",
            baseline="stock-upper",
        ),
        Contestant(
            "tls",
            "twistd sockservice over TLS",
            stream=listening("ack@ssl:0:interface=127.0.0.1:privateKey={build}/server.pem", "ssl"),
            tls=True,
            baseline="stock-tls",
            most=1_000,
            bound="a handshake for each takes too long here",
            missing=tls_missing,
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
            "stock-tls",
            "the first of these over TLS",
            stream=Program(stock_tls),
            tls=True,
            baseline="stock",
            most=1_000,
            bound="a handshake for each takes too long here",
            missing=tls_missing,
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
            most=1_000,
            bound="a thread for each",
        ),
        Contestant(
            "socat",
            "socat with fork, and `sed` to answer",
            stream=Program(
                lambda build: ["socat", "-d", "-d", SOCAT, "EXEC:sed -u s/.*/ok/"],
                re.compile(f"listening on AF=2 {ADDRESS}"),
                forks=True,
            ),
            most=50,
            bound="two processes for each",
            missing=installed("socat"),
        ),
        Contestant(
            "ncat",
            "ncat with --keep-open, and `sed` to answer",
            stream=replace(script("ncat", forks=True), ready=re.compile(f"Listening on {ADDRESS}")),
            most=50,
            bound="a process for each",
            missing=installed("ncat"),
        ),
        Contestant(
            "c",
            "an epoll server in C, a write a read; a plain echo loop over UDP",
            stream=compiled("server.c"),
            datagram=compiled("echo.c"),
        ),
        Contestant(
            "empty-plugin",
            "twistd with a plugin that does nothing",
            startup=Program(lambda build: [*twistd_command(), "empty"]),
            baseline="empty-plugin",
        ),
        Contestant(
            "bare-twistd",
            "twistd with an application that is empty, and no plugin",
            startup=Program(lambda build: [*twistd_command(), "--python", str(PEERS / "bare.py")]),
            baseline="empty-plugin",
        ),
        Contestant(
            "send",
            "sockservice send --session, which reads a pipe",
            sender=Sender(lambda port, path: sending("send", port, "--quiet"), piped=True),
            baseline="send",
        ),
        Contestant(
            "ship",
            "sockservice ship, with a file that is there already",
            sender=Sender(lambda port, path: sending("ship", port, str(path))),
            baseline="send",
        ),
    )
}
