"""The options of `twistd sockservice`, and the service they ask for."""

from collections.abc import Callable

from twisted.application.service import MultiService
from twisted.python import usage

from sockservice import __version__
from sockservice.counters import Counters
from sockservice.datagrams import Echo
from sockservice.lines import LINE_LIMIT, Ack, LineFactory
from sockservice.listeners import BACKLOG, AllOrNone, HostPort


def _number(option: str, least: int, most: int, unit: str) -> Callable[[str], int]:
    """Make a coerce function for a whole number."""

    def coerce(text: str) -> int:
        # int() alone would also take " 5", "5_0" and other scripts' digits.
        if text.isascii() and text.isdigit() and least <= int(text) <= most:
            return int(text)
        raise usage.UsageError(
            f"--{option} {text}: not {unit}, a whole number from {least} to {most}"
        )

    return coerce


def _host(text: str) -> str:
    if text:
        return text
    raise usage.UsageError("--host: empty; an address or a name is wanted, `::` for all")


class Options(usage.Options):
    """What can be said on twistd's command line."""

    synopsis = "[options]"
    longdesc = (
        "Acknowledges every line it receives over TCP with `ok` and sends every "
        "datagram it receives over UDP back."
    )
    optParameters = [
        [
            "host",
            None,
            "127.0.0.1",
            "Address to listen on: IPv4, IPv6 or a name; `::` is every address of both "
            "families. The default keeps the service to this machine until you decide.",
            _host,
        ],
        [
            "port",
            "p",
            555,
            "TCP port of the line server and UDP port of the datagram echo; 0 takes a free "
            "number, the same for both. Ports below 1024 need root or CAP_NET_BIND_SERVICE.",
            _number("port", 0, 65535, "a port number"),
        ],
        [
            "backlog",
            None,
            BACKLOG,
            "Connections the kernel may hold before they are accepted. The default is as many "
            "as Linux allows (net.core.somaxconn), so that a burst need not wait.",
            _number("backlog", 1, 2**31 - 1, "a number of connections"),
        ],
        [
            "line-limit",
            None,
            LINE_LIMIT,
            "Longest line in bytes; a longer one is refused and the next line counts. The "
            "default holds any usual text, log or JSON line and keeps a connection small.",
            _number("line-limit", 1, 2**30, "a number of bytes"),
        ],
    ]
    optFlags = [
        [
            "verbose",
            None,
            "Log every received line and datagram, escaped, with its peer. Off, for it is slow "
            "and shows what peers send.",
        ],
    ]

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"sockservice {__version__}")
        raise SystemExit(0)


def makeService(options: Options) -> MultiService:
    """Build the service that `options` ask for; it binds when twistd starts it."""
    # twistd has chosen and installed its reactor only by now.
    from twisted.internet import reactor

    counters = Counters()
    service = AllOrNone()
    HostPort(
        reactor,
        options["host"],
        options["port"],
        options["backlog"],
        lambda: LineFactory(
            reactor,
            Ack,
            lineLimit=options["line-limit"],
            verbose=bool(options["verbose"]),
            counters=counters,
        ),
        lambda: Echo(counters=counters, verbose=bool(options["verbose"])),
    ).setServiceParent(service)
    return service
