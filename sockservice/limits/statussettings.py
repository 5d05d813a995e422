"""The options of the status page."""

from sockservice.limits import readers
from sockservice.limits.readers import count, length, seconds, text
from sockservice.limits.setting import Setting

STATUS: tuple[Setting, ...] = (
    Setting(
        name="status",
        help="Serve a page that shows how the service does, its metrics and its health over HTTP, "
        "at an endpoint: tcp:9555:interface=127.0.0.1, unix:/run/status.s, or ssl: with caCerts.",
        reader=text("ENDPOINT"),
        why="it shows who your peers are",
    ),
    Setting(
        name="status-host",
        help="A name by which browsers may call the status page, besides localhost and the address "
        "that they connect to; may be given again and again.",
        reader=readers.names,
        default=(),
        why="a web page elsewhere could read it under a name of its own (DNS rebinding)",
        repeated=True,
    ),
    Setting(
        name="status-connections",
        help="Connections to the status page at once; open pages take up to half of them.",
        reader=count(2, 1000, "connections"),
        default=32,
        why="some scrapers, health checks and open pages",
        protects="the lines, from whoever asks how they do",
        counter="`statusTurnedAway`",
    ),
    Setting(
        name="status-request-limit",
        help="Longest request to the status page in bytes.",
        reader=length(1, 65536),
        default=8192,
        why="what browsers send with some cookies of other services on the same host",
        protects="memory",
        counter="`statusRefused`",
    ),
    Setting(
        name="status-timeout",
        help="Seconds in which a request to the status page has to come whole, and after which a "
        "connection that asks nothing is closed.",
        reader=seconds(1, 3600),
        default=30,
        why="scrapers that come every 15 seconds keep their connection",
        protects="the connections of the status page",
        counter="`statusTimedOut`",
    ),
)
