"""The options of the store; a part of the table of all options."""

from sockservice.limits import readers
from sockservice.limits.readers import MANY, age, count, size
from sockservice.limits.setting import Setting
from sockservice.store.engine import SESSION_AGE, SESSIONS
from sockservice.store.space import RESERVE

#: In the order in which they are told of.
STORING: tuple[Setting, ...] = (
    Setting(
        name="store",
        help="Keep every line that ack acknowledges, and acknowledge it only when it is durable: "
        "sqlite:PATH, nats://HOST[:PORT][,HOST...]/STREAM (docs/cluster.md), or module.Class:PLACE "
        "for an engine of your own.",
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
        name="max-sessions",
        help="Sessions that the store keeps; a new one beyond them is refused. 0 is no limit.",
        reader=count(0, MANY, "sessions"),
        default=SESSIONS,
        why="one for each host or file, some 200 bytes each",
        protects="the disk from names without end",
        counter="`sessionsRefused`",
    ),
    Setting(
        name="session-age",
        help="Forget sessions that were not used for so long: seconds, or 90m, 48h, 90d. 0 is "
        "never.",
        reader=age("90d", 0),
        default=SESSION_AGE,
        why="whoever comes back later than that begins anew",
        protects="the places of `--max-sessions`",
        counter="`sessionsExpired`",
    ),
)
