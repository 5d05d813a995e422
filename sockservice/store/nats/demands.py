"""What a stream and its nodes have to be like, so that an acknowledgement is a promise."""

from hashlib import sha256
from typing import Any

from sockservice.store.engine import EVERYTHING, Retention
from sockservice.store.nats.place import Place

#: Oldest server: before 2.11 two writers could both pass the check of the expected sequence
#: (https://github.com/nats-io/nats-server/issues/4320).
VERSION = (2, 12)
#: Level of the JetStream API that such a server has (ADR-44).
LEVEL = 2
#: Bytes that a message has to be able to hold.
MESSAGE = 1 << 20
#: Nanoseconds for which a node knows the ids of messages: longer than any is sent again.
WINDOW = 120 * 10**9
#: Times as much as is retained has to fit in, for what comes until more is removed.
SPARE = 1.1


def configuration(place: Place) -> dict[str, Any]:
    """Return the configuration of a stream that is right."""
    return {
        "name": place.stream,
        "subjects": [f"{place.stream}.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "num_replicas": place.replicas,
        "max_bytes": place.maxBytes,
        "max_age": 0,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "max_consumers": -1,
        "duplicate_window": WINDOW,
        "allow_direct": True,
    }


def outdated(info: dict[str, Any]) -> str:
    """Return what is wrong with a server by its INFO, or nothing."""
    if not info.get("jetstream"):
        return f"{_called(info)} has no JetStream"
    if _version(info) < VERSION or info.get("api_lvl", 0) < LEVEL:
        return f"{_called(info)} is nats-server {info.get('version')}; {_dotted(VERSION)} is needed"
    if info.get("max_payload", 0) < MESSAGE:
        return f"{_called(info)} has max_payload {info.get('max_payload')}; {MESSAGE} is needed"
    return ""


def unsynced(seen: dict[str, Any]) -> str:
    """Return what is wrong with a server by its /varz, or nothing."""
    name = seen.get("server_name", "a node")
    jetstream = (seen.get("jetstream") or {}).get("config") or {}
    if not jetstream:
        return f"{name} has no JetStream"
    if _version(seen) < VERSION:
        return f"{name} is nats-server {seen.get('version')}; {_dotted(VERSION)} is needed"
    if not jetstream.get("sync_always"):
        return (
            f"{name} does not sync what it acknowledges: set jetstream {{ sync_interval: always }}"
        )
    return ""


def unfit(found: dict[str, Any], place: Place) -> str:
    """Return what is wrong with a stream by its STREAM.INFO, or nothing."""
    config = found["config"]
    exactly: dict[str, object] = {
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "subjects": [f"{place.stream}.>"],
        "allow_direct": True,
    }
    for name in ("mirror", "sources", "subject_transform", "sealed", "no_ack"):
        if config.get(name):
            return f"the stream {place.stream} has {name}; it must not"
    for name, value in exactly.items():
        if config.get(name, False) != value:
            return _says(place, name, config.get(name, False), _shown(value))
    if config.get("persist_mode") not in (None, "", "default"):
        return _says(place, "persist_mode", config["persist_mode"], "default")
    if config.get("duplicate_window", 0) < WINDOW:
        seconds = config.get("duplicate_window", 0) / 10**9
        return _says(place, "duplicate_window", f"{seconds:g}s", f"{WINDOW / 10**9:g}s or more")
    if 0 <= config.get("max_msg_size", -1) < MESSAGE:
        return _says(place, "max_msg_size", config["max_msg_size"], f"-1, or {MESSAGE} or more")
    if config.get("max_msgs_per_subject", -1) > 0:
        return _says(place, "max_msgs_per_subject", config["max_msgs_per_subject"], "-1")
    replicas = config.get("num_replicas", 1)
    if replicas < place.replicas:
        return (
            f"the stream {place.stream} has num_replicas {replicas}; {place.replicas} are needed, "
            "so that it outlives a machine (?replicas=1 does without)"
        )
    return ""


def unremovable(found: dict[str, Any], retention: Retention) -> str:
    """Return why what `retention` does not cover cannot be removed, or nothing."""
    config = found["config"]
    name, most = config["name"], config.get("max_bytes", -1)
    if retention != EVERYTHING and config.get("deny_purge"):
        return f"the stream {name} has deny_purge; it must not, to retain less than everything"
    if retention.size is not None and 0 < most < retention.size * SPARE:
        return (
            f"--retain-size is {retention.size}, and the stream's max_bytes {most}: it takes no "
            "more before anything is removed; leave a tenth between them"
        )
    return ""


def members(found: dict[str, Any]) -> set[str]:
    """Return the names of the nodes that hold a stream."""
    cluster = found.get("cluster") or {}
    names = {cluster.get("leader", ""), *(each["name"] for each in cluster.get("replicas") or ())}
    return names - {""}


def identity(found: dict[str, Any]) -> str:
    """Return what no other stream has, nor the same one after it was made anew."""
    cluster = (found.get("cluster") or {}).get("name", "")
    whole = f"{cluster}/{found['config']['name']}/{found['created']}"
    return sha256(whole.encode()).hexdigest()[:32]


def _called(info: dict[str, Any]) -> str:
    return str(info.get("server_name") or "the node")


def _version(seen: dict[str, Any]) -> tuple[int, ...]:
    numbers = str(seen.get("version", "")).split("-")[0].split(".")
    return tuple(int(each) for each in numbers if each.isdigit())


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _says(place: Place, name: str, value: object, wanted: str) -> str:
    return f"the stream {place.stream} has {name} {_shown(value)}; it has to be {wanted}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
