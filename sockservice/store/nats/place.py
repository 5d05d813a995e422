"""The name of a store in NATS: `nats://[USER:PASSWORD@]HOST[:PORT][,HOST...]/STREAM[?OPTION…]`."""

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

#: Replicas of a stream that promise what one machine cannot.
REPLICAS = 3
#: Port of a node where none is named.
PORT = 4222

_STREAM = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_SECRET = re.compile(r"^nats://[^/@]*@")
_SIZE = re.compile(r"([0-9]{1,18})([KMGT]?)")
_FLAGS = ("create", "tls", "unchecked")
_VALUES = ("ca", "cert", "creds", "key", "max_bytes", "monitor", "password-file", "replicas")


class Place(NamedTuple):
    """Where a stream is, and what is demanded of it."""

    #: `HOST:PORT` of each node that is named; the others are learnt from these.
    nodes: tuple[str, ...]
    stream: str
    user: str = ""
    password: str = ""
    #: A file that the password is read from, as it is in nobody's list of processes.
    passwordFile: str = ""
    #: A file of credentials as `nsc` makes them.
    creds: str = ""
    tls: bool = False
    #: Files: who signed the nodes' certificates; our own certificate, and its key.
    ca: str = ""
    cert: str = ""
    key: str = ""
    #: Make the stream if there is none, of so many bytes.
    create: bool = False
    maxBytes: int = 0
    #: Replicas that it has to have at least.
    replicas: int = REPLICAS
    #: The nodes' monitoring, where it is seen whether they sync.
    monitors: tuple[str, ...] = ()
    #: Whether to go without seeing that.
    unchecked: bool = False

    @property
    def subject(self) -> str:
        """The subject of lines that are of no session."""
        return f"{self.stream}.l"

    @property
    def sessions(self) -> str:
        """The subjects of all sessions."""
        return f"{self.stream}.s.>"

    def __str__(self) -> str:
        return f"nats://{','.join(self.nodes)}/{self.stream}"


def concealed(url: str) -> str:
    """Return a store's name without the password in it."""
    return _SECRET.sub("nats://", url)


def parsed(url: str) -> Place:
    """Read the name of a store.

    :raises ValueError: It is none; the text says why.
    """
    parts = urlsplit(url)
    if parts.scheme != "nats" or not parts.netloc:
        raise ValueError("nats://HOST[:PORT][,HOST...]/STREAM is the name of a store in NATS")
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    nodes = []
    for host in hosts.split(","):
        if not _HOST.fullmatch(host):
            raise ValueError(f"no host: {host!a}")
        port = re.search(r":([0-9]+)$", host.rpartition("]")[2])
        if port is not None and not 0 < int(port[1]) < 65536:
            raise ValueError(f"no port: {host!a}")
        nodes.append(f"{host}:{PORT}" if port is None else host)
    stream = parts.path.removeprefix("/")
    if not _STREAM.fullmatch(stream):
        raise ValueError(f"no name of a stream: {stream!a}; 1 to 64 of A-Z a-z 0-9 _ - make one")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for key, value in given.items():
        if key not in _FLAGS + _VALUES:
            raise ValueError(f"no option: {key!a}; {', '.join(sorted(_FLAGS + _VALUES))} are")
        if (key in _VALUES) != bool(value):
            raise ValueError(f"{key} takes {'a' if key in _VALUES else 'no'} value")
    monitors = tuple(given["monitor"].split(",")) if "monitor" in given else ()
    for monitor in monitors:
        if urlsplit(monitor).scheme not in ("http", "https"):
            raise ValueError(f"monitor={monitor!a} is no http://HOST:PORT")
    replicas = given.get("replicas", str(REPLICAS))
    if replicas not in ("1", "3", "5"):
        raise ValueError(f"replicas={replicas!a}; 1, 3 or 5 may be")
    if "create" in given and "max_bytes" not in given:
        raise ValueError("create needs max_bytes=: each node reserves that much on its disk")
    return Place(
        tuple(nodes),
        stream,
        unquote(user),
        unquote(password),
        given.get("password-file", ""),
        given.get("creds", ""),
        "tls" in given or "ca" in given or "cert" in given,
        given.get("ca", ""),
        given.get("cert", ""),
        given.get("key", ""),
        "create" in given,
        _size(given["max_bytes"]) if "max_bytes" in given else 0,
        int(replicas),
        tuple(monitor.rstrip("/") for monitor in monitors),
        "unchecked" in given,
    )


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None or not int(found[1]):
        raise ValueError(f"max_bytes={text!a} is no number of bytes, as 500M or 20G")
    return int(found[1]) << 10 * " KMGT".index(found[2] or " ")
