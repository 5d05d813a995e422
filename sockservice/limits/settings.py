"""The table of all options of the service: an option is added here, and where it is used."""

from sockservice.limits import openfiles, readers
from sockservice.limits.lograte import LOG_LIMIT
from sockservice.limits.memory import MEMORY_LIMIT
from sockservice.limits.readers import age, count, length, seconds, size, text
from sockservice.limits.setting import Running, Setting
from sockservice.store.space import RESERVE
from sockservice.wire.framing import LINE_LIMIT

MANY = 10**9


def _connections(running: Running, most: int) -> None:
    openfiles.allow(most)


def _lines(running: Running, most: int) -> None:
    for listener in running.listeners():
        listener.limitLines(most)


def _drain(running: Running, most: int) -> None:
    for listener in running.listeners():
        listener.drainTimeout = most


def _memory(running: Running, most: int) -> None:
    running.memory.most = most


def _log(running: Running, most: int) -> None:
    running.journal.most = most


#: All options, in the order in which they are told of.
SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="host",
        help="Address to listen on: IPv4, IPv6 or a name; `::` is every address of both families.",
        reader=readers.host,
        default="127.0.0.1",
        why="it is kept to this machine until you decide",
    ),
    Setting(
        name="port",
        short="p",
        help="TCP port of the line server and UDP port of the datagram echo; 0 takes a free "
        "number, the same for both. Ports below 1024 need root or CAP_NET_BIND_SERVICE.",
        reader=readers.port,
        default=555,
    ),
    Setting(
        name="listen",
        help="Serve PROTOCOL@ENDPOINT; may be given again and again. Then --host and --port serve "
        "only if they are given too. PROTOCOL is ack, ack-chunks, discard, echo or frames, or a "
        "class: module.Class; left out, it is ack for streams and echo for datagrams. ENDPOINT "
        "is an endpoint string: tcp:5555, unix:/run/s.sock, udp:555.",
        reader=readers.endpoints,
        default=(),
        why="`--host` and `--port` serve",
        repeated=True,
    ),
    Setting(
        name="socket-option",
        help="Set a socket option on every listening socket and so on its connections: "
        "NAME=VALUE with a name of Python's socket module, as SO_RCVBUF=1000000. May be given "
        "again and again.",
        reader=readers.socketOptions,
        default=(),
        why="the system's own values hold",
        repeated=True,
    ),
    Setting(
        name="workers",
        help="Processes that serve, under one that watches over them; they share each port.",
        reader=count(1, 1024, "processes"),
        default=1,
        why="one process does all, which is enough for one core",
    ),
    Setting(
        name="max-connections",
        help="Connections at once, on all listeners together; 0 is no limit.",
        reader=count(0, MANY, "connections"),
        default=10_000,
        why="what they hold stays within a gigabyte or so",
        protects="memory and open files",
        counter="`turnedAway`",
        limit="connections",
        live=_connections,
        divided=True,
    ),
    Setting(
        name="max-connections-per-source",
        help="Connections at once from an IPv4 address, an IPv6 /64 or a UNIX user; 0 is no limit.",
        reader=count(0, MANY, "connections"),
        default=0,
        why="many may come through one gateway or proxy",
        protects="the others from one who takes every place",
        counter="`turnedAway`",
        limit="connectionsPerSource",
    ),
    Setting(
        name="connection-rate",
        help="Connections a second from one such source, and as many at once; 0 is no limit.",
        reader=count(0, MANY, "connections"),
        default=0,
        why="many may come through one gateway or proxy",
        protects="the processor from connecting and closing again and again",
        counter="`turnedAway`",
        limit="connectionRate",
    ),
    Setting(
        name="allow",
        help="Let in peers of this network: 192.0.2.0/24, 2001:db8::/32 or an address. May be "
        "given again and again; then all others are refused, and of an --allow and a --deny that "
        "both hold an address the more specific one decides. @FILE reads networks from a file, "
        "one a line; an empty one lets in nobody.",
        reader=readers.networks,
        default=(),
        why="everybody may come, and `--host` is 127.0.0.1",
        repeated=True,
        protects="everything from strangers",
        counter="`turnedAway`; datagrams: `suspect`",
        limit="access",
    ),
    Setting(
        name="deny",
        help="Refuse peers of this network, written as for --allow; may be given again and again.",
        reader=readers.networks,
        default=(),
        why="only you know whom to refuse",
        repeated=True,
        protects="everything from peers that you name",
        counter="`turnedAway`; datagrams: `suspect`",
        limit="access",
    ),
    Setting(
        name="idle-timeout",
        help="Seconds without a whole line after which a connection is refused and closed; 0 is "
        "no limit.",
        reader=seconds(0, MANY),
        default=600,
        why="nobody misses a place unused for ten minutes",
        protects="places",
        counter="`timedOut`",
        limit="idle",
    ),
    Setting(
        name="line-timeout",
        help="Seconds in which a line that was begun has to end, a TLS handshake and a PROXY "
        "header; 0 is no limit.",
        reader=seconds(0, MANY),
        default=60,
        why="any line over any link ends by then",
        protects="places, from peers that send a byte a minute, or no TLS handshake or PROXY "
        "header",
        counter="`timedOut`; PROXY: `turnedAway`",
        limit="unfinished",
    ),
    Setting(
        name="line-limit",
        help="Longest line in bytes; a longer one is refused and the next line counts.",
        reader=length(1, 2**29),
        default=LINE_LIMIT,
        why="any usual text, log or JSON line, and a connection stays small",
        protects="memory",
        counter="`refused`",
        live=_lines,
    ),
    Setting(
        name="line-rate",
        help="Lines a second that are taken from one connection, and as many at once; a faster "
        "peer is slowed down, nothing is lost. 0 is no limit.",
        reader=count(0, MANY, "lines"),
        default=0,
        why="only you know how fast your peers may be",
        protects="the processor and the disk from one that sends too fast",
        counter="`slowed`",
        limit="lineRate",
    ),
    Setting(
        name="memory-limit",
        help="Bytes (or 500M, 2G) that all connections together may hold of unfinished lines, "
        "unanswered lines and unread replies; beyond it those that hold most are refused and "
        "closed. 0 is no limit.",
        reader=size(0, "500M"),
        default=MEMORY_LIMIT,
        why="room for thousands of busy connections",
        protects="memory, from many at once",
        counter="`overheld`",
        live=_memory,
        divided=True,
    ),
    Setting(
        name="datagram-rate",
        help="Datagrams a second that are answered to one source, and as many at once; more meet "
        "with silence. 0 is no limit.",
        reader=count(0, MANY, "datagrams"),
        default=0,
        why="only you know how fast your peers may be",
        protects="others from replies to forged sources",
        counter="`throttled`",
        limit="datagramRate",
    ),
    Setting(
        name="log-limit",
        help="Lines of one kind (a peer has connected, a peer has gone, ...) in the log in ten "
        "seconds; the rest are summed up, so that a flood doesn't fill the disk. 0 is no limit.",
        reader=count(0, MANY, "lines"),
        default=LOG_LIMIT,
        why="nobody reads more",
        protects="the disk",
        live=_log,
    ),
    Setting(
        name="drain-timeout",
        help="Seconds that a stopping service takes at most to answer what it has received; then "
        "connections are cut.",
        reader=seconds(0, 86400),
        default=10,
        why="less than systemd waits before it kills",
        protects="the end of the service from peers that don't read",
        counter="`cut`",
        live=_drain,
    ),
    Setting(
        name="backlog",
        help="Connections the kernel may hold before they are accepted.",
        reader=count(1, 2**31 - 1, "connections"),
        default=4096,  # with Twisted's 50, a burst of 200 waits a second
        why="as many as Linux allows (net.core.somaxconn since 5.4)",
        protects="peers from waiting in a burst",
    ),
    Setting(
        name="store",
        help="Keep every line that ack acknowledges, and acknowledge it only when it is durable: "
        "sqlite:PATH, or module.Class:PLACE for an engine of your own.",
        reader=readers.text("ENGINE:PLACE"),
        why="it costs a sync to disk for each group of lines",
    ),
    Setting(
        name="retain-age",
        help="Remove lines from the store when they are older: seconds, or 90m, 48h, 30d.",
        reader=age("30d"),
        why="what was acknowledged is kept",
    ),
    Setting(
        name="retain-size",
        help="Remove the oldest lines from the store when they take up more: bytes, or 500M, 20G.",
        reader=size(1, "20G"),
        why="what was acknowledged is kept",
    ),
    Setting(
        name="store-reserve",
        help="Bytes (or 500M, 2G) that have to stay free on the disk of the store; below, lines "
        "are refused, and the log warns at four times as many. 0 is no limit.",
        reader=size(0, "500M"),
        default=RESERVE,
        why="all that was acknowledged can still be written into the store's file",
        protects="what was acknowledged, from a full disk",
        counter="`refused`",
    ),
    Setting(
        name="lame-duck",
        help="Seconds between the word that the service is not ready any more (--ready-file, "
        "systemd) and the closing of its listeners, for load balancers to notice. 0 closes them "
        "at once.",
        reader=seconds(0, 86400),
        default=0,
        why="only you know whether a load balancer looks",
    ),
    Setting(
        name="ready-file",
        help="Keep a file here as long as the service is ready, for health checks.",
        reader=text("PATH"),
        why="only you know who looks for it",
    ),
    Setting(
        name="retire-timeout",
        help="Seconds that a worker which was told to end alone (SIGTERM) serves its connections "
        "at most, while another takes its place; then it drains. 0 is no limit.",
        reader=seconds(0, MANY),
        default=0,
        why="no connection is broken",
    ),
    Setting(
        name="report",
        help="Log what was done so far, in one line, every so many seconds.",
        reader=seconds(1, 86400),
        why="the log's last line says it once",
    ),
    Setting(
        name="accept-http",
        help="Take a connection's first line for a line though it is an HTTP request; otherwise "
        "the connection is refused.",
        why="a web page in a browser could store lines on every port that the browser reaches",
    ),
    Setting(
        name="skip-silent",
        help="Log no connection that comes and goes without a byte, as those of health checks; "
        "the others have one line, when they go.",
        why="who connected is known at once, whatever it brings",
    ),
    Setting(
        name="verbose",
        help="Log every received line and datagram, escaped, with its peer.",
        why="it is slow and shows what peers send",
    ),
    Setting(
        name="resolve",
        help="Look up the names of peers and log them; nothing waits for a name or trusts it.",
        why="a look-up tells name servers who your peers are",
    ),
)

#: What holds for several of them.
FILES = (
    "A number, an age, a size or a network may be given as @FILE, a file that holds it. Options "
    "that are read again at SIGHUP say so; all others take a restart."
)
