"""The table of all options of the service: an option is added here, and where it is used."""

from sockservice.limits import live, readers
from sockservice.limits.lograte import LOG_LIMIT, LOG_QUEUE
from sockservice.limits.memory import MEMORY_LIMIT
from sockservice.limits.readers import MANY, count, length, seconds, size, text
from sockservice.limits.setting import Setting
from sockservice.limits.statussettings import STATUS
from sockservice.limits.storing import STORING
from sockservice.wire.framing import LINE_LIMIT

START_TIMEOUT = 30


#: All options, in the order in which they are told of.
SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="config",
        help="Read options from this file, in TOML: `line-limit = 1000`, `verbose = true`, a table "
        "[[listen]] with `protocol` and `endpoint` for each listener. What is given on the command "
        "line replaces what the file says.",
        reader=text("FILE"),
        why="the command line says it all",
        live=live.config,
    ),
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
        zero=True,
    ),
    Setting(
        name="listen",
        help="Serve PROTOCOL@ENDPOINT; may be given again and again. Then --host and --port serve "
        "only if they are given too. PROTOCOL is ack, ack-chunks, discard, echo, frames, relp, "
        "session or syslog, or a class: module.Class; left out, it is ack for streams and echo for "
        "datagrams. ENDPOINT is an endpoint string: tcp:5555, unix:/run/s.sock, udp:555.",
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
        live=live.connections,
        divided=True,
    ),
    Setting(
        name="max-connections-per-source",
        help="Connections at once from an IPv4 address, an IPv6 /64 or a UNIX user; 0 is no limit.",
        reader=count(0, MANY, "connections"),
        default=0,
        why="many may come through one gateway or proxy",
        protects="others, from one source that takes up all connections",
        counter="`turnedAway`",
        limit="connectionsPerSource",
    ),
    Setting(
        name="connection-rate",
        help="Connections a second from one such source, and as many at once; 0 is no limit.",
        reader=count(0, MANY, "connections"),
        default=0,
        why="many may come through one gateway or proxy",
        protects="the processor, from peers that reconnect in a loop",
        counter="`turnedAway`",
        limit="connectionRate",
    ),
    Setting(
        name="allow",
        help="Let in peers of this network: 192.0.2.0/24, 2001:db8::/32 or an address. May be "
        "given again and again; then all others are refused, and of an --allow and a --deny that "
        "both hold an address the more specific one decides. @FILE reads networks from a file, "
        "one a line; `none`, there or here, is no network and lets in nobody.",
        reader=readers.networks,
        default=(),
        why="everybody may come, and `--host` is 127.0.0.1",
        repeated=True,
        protects="the whole service, from unknown peers",
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
        protects="the whole service, from peers that you name",
        counter="`turnedAway`; datagrams: `suspect`",
        limit="access",
    ),
    Setting(
        name="idle-timeout",
        help="Seconds without a whole line after which a connection is refused and closed; 0 is "
        "no limit.",
        reader=seconds(0, MANY),
        default=600,
        why="a connection that is unused for ten minutes is rarely missed",
        protects="connection slots",
        counter="`timedOut`",
        limit="idle",
    ),
    Setting(
        name="line-timeout",
        help="Seconds in which a line that was begun has to end, a TLS handshake and a PROXY "
        "header; 0 is no limit.",
        reader=seconds(0, MANY),
        default=60,
        why="even on a slow link a line has ended by then",
        protects="connection slots, from peers that send a byte a minute, or never complete a "
        "TLS handshake or PROXY header",
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
        live=live.lines,
    ),
    Setting(
        name="line-rate",
        help="Lines a second that are taken from one connection, and as many at once; a faster "
        "peer is slowed down, nothing is lost. 0 is no limit.",
        reader=count(0, MANY, "lines"),
        default=0,
        why="only you know how fast your peers may be",
        protects="the processor and the disk, from a peer that sends too fast",
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
        protects="memory, from many connections together",
        counter="`overheld`",
        live=live.memory,
        divided=True,
    ),
    Setting(
        name="datagram-rate",
        help="Datagrams a second that are answered to one source, and as many at once; more meet "
        "with silence. 0 is no limit.",
        reader=count(0, MANY, "datagrams"),
        default=0,
        why="only you know how fast your peers may be",
        protects="third parties, from replies to forged source addresses",
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
        live=live.log,
    ),
    Setting(
        name="log-queue",
        help="Bytes (or 500K, 64M) of log lines that may wait for whoever takes the log, in each "
        "process; beyond it lines are dropped, and their number is logged.",
        reader=size(1, "64M"),
        default=LOG_QUEUE,
        why="some eight thousand lines, more than a busy service logs while a disk is slow",
        protects="the service, from a log that is not read",
        counter="`unlogged`",
    ),
    Setting(
        name="drain-timeout",
        help="Seconds that a stopping service takes at most to answer what it has received; then "
        "connections are cut.",
        reader=seconds(0, 86400),
        default=10,
        zero=True,
        why="less than systemd waits before it kills",
        protects="the shutdown, from peers that don't read",
        counter="`cut`",
        live=live.drain,
    ),
    Setting(
        name="backlog",
        help="Connections the kernel may hold before they are accepted.",
        reader=count(1, 2**31 - 1, "connections"),
        default=4096,  # with Twisted's 50, a burst of 200 waits a second
        why="as many as Linux allows (net.core.somaxconn since 5.4)",
        protects="peers, from delays when many connect at once",
    ),
    *STORING,
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
        name="reload-timeout",
        help="Seconds in which all files have to be read again at SIGHUP; otherwise what was there "
        "before stays.",
        reader=seconds(1, 86400),
        default=10,
        why="a disk that answers at all does so sooner",
        protects="the service, from files on a disk or a network that hangs",
        counter="`unchanged`",
    ),
    Setting(
        name="start-timeout",
        help="Seconds in which a worker has to become ready, from its start or the last one that "
        "did; then it is killed, and the service ends if it never had all of them. 0 is no limit.",
        reader=seconds(0, 86400),
        default=START_TIMEOUT,
        why="a loaded machine takes some seconds",
        protects="the service, from a worker that hangs where it starts",
        counter="`unready`",
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
    *STATUS,
)

#: What an option does that is no setting.
CHECK = (
    "Say what would be served, with nothing bound and nothing changed, and exit: status 0, or 1 "
    "with one line for each error."
)

#: What holds for several of them.
FILES = (
    "A number, an age, a size or a network may be given as @FILE, a regular file that holds it. "
    "Options that are read again at SIGHUP say so; all others take a restart."
)
