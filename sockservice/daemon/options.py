"""The options of `twistd sockservice`."""

import sys
from collections.abc import Sequence

from twisted.python import usage

from sockservice import __version__
from sockservice.daemon.coerce import SIZES, absolute, hostName, networks, number, scaled
from sockservice.daemon.engines import backend
from sockservice.daemon.pidfile import writable
from sockservice.daemon.services import DRAIN_TIMEOUT
from sockservice.daemon.shared import BACKLOG
from sockservice.limits.access import Access, Network
from sockservice.limits.admission import Limits
from sockservice.limits.lograte import LOG_LIMIT
from sockservice.limits.memory import MEMORY_LIMIT
from sockservice.net.bind.options import SocketOption, socketOption
from sockservice.server.line import LINE_LIMIT
from sockservice.store.engine import EVERYTHING, Backend, Retention
from sockservice.wire.escaping import printable

HOST, PORT = "127.0.0.1", 555


class Options(usage.Options):
    """What can be said on twistd's command line."""

    synopsis = "[options]"
    longdesc = (
        "Acknowledges every line it receives over TCP with `ok` and sends every "
        "datagram it receives over UDP back. A number may be given as @FILE, a file that holds "
        "it; those of limits are read again at SIGHUP."
    )
    optParameters = [
        [
            "host",
            None,
            None,
            "Address to listen on: IPv4, IPv6 or a name; `::` is every address of both "
            "families. Default 127.0.0.1, which keeps it to this machine until you decide.",
            hostName,
        ],
        [
            "port",
            "p",
            None,
            "TCP port of the line server and UDP port of the datagram echo; 0 takes a free "
            "number, the same for both. Default 555. Ports below 1024 need root "
            "or CAP_NET_BIND_SERVICE.",
            number("port", 0, 65535, "a port number"),
        ],
        [
            "backlog",
            None,
            BACKLOG,
            "Connections the kernel may hold before they are accepted. The default is as many "
            "as Linux allows (net.core.somaxconn), so that a burst need not wait.",
            number("backlog", 1, 2**31 - 1, "a number of connections"),
        ],
        [
            "line-limit",
            None,
            LINE_LIMIT,
            "Longest line in bytes; a longer one is refused and the next line counts. The "
            "default holds any usual text, log or JSON line and keeps a connection small.",
            number("line-limit", 1, 2**29, "a number of bytes"),
        ],
        [
            "max-connections",
            None,
            10_000,
            "Connections at once, on all listeners together; 0 is no limit. The default keeps "
            "what they can hold in memory within a gigabyte or so.",
            number("max-connections", 0, 10**9, "a number of connections"),
        ],
        [
            "max-connections-per-source",
            None,
            0,
            "Connections at once from an IPv4 address, an IPv6 /64 or a UNIX user; 0, the "
            "default, is no limit: many may come through one gateway or proxy.",
            number("max-connections-per-source", 0, 10**9, "a number of connections"),
        ],
        [
            "connection-rate",
            None,
            0,
            "Connections a second from one such source, and as many at once; 0, the default, is "
            "no limit.",
            number("connection-rate", 0, 10**9, "a number of connections"),
        ],
        [
            "idle-timeout",
            None,
            600,
            "Seconds without a whole line after which a connection is refused and closed; 0 is "
            "no limit. The default gives a place back that nobody has used for ten minutes.",
            number("idle-timeout", 0, 10**9, "a number of seconds"),
        ],
        [
            "line-timeout",
            None,
            60,
            "Seconds in which a line that was begun has to end, a TLS handshake and a PROXY "
            "header; 0 is no limit. The default is met by any line over any link.",
            number("line-timeout", 0, 10**9, "a number of seconds"),
        ],
        [
            "datagram-rate",
            None,
            0,
            "Datagrams a second that are answered to one source, and as many at once; more meet "
            "with silence. 0, the default, is no limit.",
            number("datagram-rate", 0, 10**9, "a number of datagrams"),
        ],
        [
            "line-rate",
            None,
            0,
            "Lines a second that are taken from one connection, and as many at once; a faster "
            "peer is slowed down, nothing is lost. 0, the default, is no limit.",
            number("line-rate", 0, 10**9, "a number of lines"),
        ],
        [
            "memory-limit",
            None,
            MEMORY_LIMIT,
            "Bytes (or 500M, 2G) that all connections together may hold of unfinished lines, "
            "unanswered lines and unread replies; beyond it those that hold most are refused "
            "and closed. 0 is no limit. The default of 256M has room for thousands of busy "
            "ones.",
            scaled("memory-limit", SIZES, "500M", least=0),
        ],
        [
            "log-limit",
            None,
            LOG_LIMIT,
            "Lines of one kind (a peer has connected, a peer has gone, ...) in the log in ten "
            "seconds; the rest are summed up, so that a flood doesn't fill the disk. 0 is no "
            "limit.",
            number("log-limit", 0, 10**9, "a number of lines"),
        ],
        [
            "workers",
            None,
            1,
            "Processes that serve, under one that watches over them; they share each port. "
            "The default, one process that does all, is enough for one core.",
            number("workers", 1, 1024, "a number of processes"),
        ],
        [
            "drain-timeout",
            None,
            DRAIN_TIMEOUT,
            "Seconds that a stopping service takes at most to answer what it has received; then "
            "connections are cut. The default is less than systemd waits before it kills.",
            number("drain-timeout", 0, 86400, "a number of seconds"),
        ],
        [
            "lame-duck",
            None,
            0,
            "Seconds between the word that the service is not ready any more (--ready-file, "
            "systemd) and the closing of its listeners, for load balancers to notice. 0, the "
            "default, closes them at once.",
            number("lame-duck", 0, 86400, "a number of seconds"),
        ],
        [
            "ready-file",
            None,
            None,
            "Keep a file here as long as the service is ready, for health checks.",
        ],
        [
            "retire-timeout",
            None,
            0,
            "Seconds that a worker which was told to end alone (SIGTERM) serves its connections "
            "at most, while another takes its place; then it drains. 0, the default, is no "
            "limit: no connection is broken.",
            number("retire-timeout", 0, 10**9, "a number of seconds"),
        ],
        [
            "report",
            None,
            None,
            "Log what was done so far, in one line, every so many seconds. Off by default.",
            number("report", 1, 86400, "a number of seconds"),
        ],
        [
            "store",
            None,
            None,
            "Keep every line that ack acknowledges, and acknowledge it only when it is durable: "
            "sqlite:PATH, or module.Class:PLACE for an engine of your own. Off, for it costs a "
            "sync to disk for each group of lines.",
        ],
        [
            "retain-age",
            None,
            None,
            "Remove lines from the store when they are older: seconds, or 90m, 48h, 30d. Off: "
            "what was acknowledged is kept.",
            scaled("retain-age", {"m": 60, "h": 3600, "d": 86400}, "30d"),
        ],
        [
            "retain-size",
            None,
            None,
            "Remove the oldest lines from the store when they take up more: bytes, or 500M, 20G. "
            "Off: what was acknowledged is kept.",
            scaled("retain-size", SIZES, "20G"),
        ],
    ]
    optFlags = [
        [
            "verbose",
            None,
            "Log every received line and datagram, escaped, with its peer. Off, for it is slow "
            "and shows what peers send.",
        ],
        [
            "accept-http",
            None,
            "Take a first line that is an HTTP request as a line like any other. Off, for then "
            "any web page could store lines.",
        ],
        [
            "skip-silent",
            None,
            "Log no connection that comes and goes without a byte, as those of health checks; the "
            "others have one line, when they go.",
        ],
        [
            "resolve",
            None,
            "Look up the names of peers and log them; nothing waits for a name or trusts it.",
        ],
    ]

    #: Processes that divide among them what is allowed to all connections together.
    processes = 1

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        # twistd may leave this folder (--rundir) before the files are read again.
        self._given = None if options is None else [absolute(word) for word in options]
        try:
            super().parseOptions(options)
        except usage.UsageError as problem:
            if self.parent is None:
                raise
            # twistd would print all of its help before it, and that on stdout.
            print(f"sockservice: {printable(str(problem))}", file=sys.stderr)
            raise SystemExit(1) from None

    @property
    def given(self) -> Sequence[str]:
        """The words of the command line that these options are."""
        return sys.argv[1:] if self._given is None else self._given

    def share(self, option: str) -> int:
        """Give this process's part of a limit for all connections."""
        return -(-int(self[option]) // self.processes)

    def again(self) -> "Options":
        """Read the same options once more, and the files they name.

        :raises UsageError: A file is not what it should be any more.
        """
        options = Options()
        options.parseOptions(self._given)
        options.processes = self.processes
        return options

    def postOptions(self) -> None:
        writable(self.parent)
        retention = Retention(self["retain-age"], self["retain-size"])
        self.backend: Backend | None = None
        if self["store"] is not None:
            try:
                self.backend = backend(self["store"], retention)
            except ValueError as problem:
                raise usage.UsageError(f"--store {self['store']}: {problem}") from None
        elif retention != EVERYTHING:
            raise usage.UsageError("--retain-age and --retain-size need a --store")

    def __init__(self) -> None:
        super().__init__()
        self.listen: list[str] = []
        self.socketOptions: list[SocketOption] = []
        self.allow: list[Network] = []
        self.only = False
        self.deny: list[Network] = []

    def opt_listen(self, text: str) -> None:
        """Serve PROTOCOL@ENDPOINT; may be given again and again. Then --host and --port
        serve only if they are given too. PROTOCOL is ack, ack-chunks, discard, echo or
        frames, or a class: module.Class; left out, it is ack for streams and echo for
        datagrams. ENDPOINT is an endpoint string: tcp:5555, unix:/run/s.sock, udp:555."""
        self.listen.append(text)

    def opt_allow(self, text: str) -> None:
        """Let in peers of this network: 192.0.2.0/24, 2001:db8::/32 or an address. May be
        given again and again; then all others are refused, and of an --allow and a --deny
        that both hold an address the more specific one decides. @FILE reads networks
        from a file, one a line; an empty one lets in nobody."""
        self.only = True
        self.allow += networks("allow", text)

    def opt_deny(self, text: str) -> None:
        """Refuse peers of this network, written as for --allow; may be given again and
        again."""
        self.deny += networks("deny", text)

    def limits(self) -> Limits:
        """Give the limits that were asked for."""
        return Limits(
            Access(self.allow, self.deny, only=self.only),
            self.share("max-connections"),
            self["max-connections-per-source"],
            self["connection-rate"],
            self["idle-timeout"],
            self["line-timeout"],
            self["line-rate"],
            self["datagram-rate"],
        )

    def opt_socket_option(self, text: str) -> None:
        """Set a socket option on every listening socket and so on its connections:
        NAME=VALUE with a name of Python's socket module, as SO_RCVBUF=1000000. May be
        given again and again."""
        try:
            self.socketOptions.append(socketOption(text))
        except ValueError as problem:
            raise usage.UsageError(f"--socket-option {text}: {problem}") from None

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"sockservice {__version__}")
        raise SystemExit(0)
