"""sockservice: lines acknowledged, datagrams echoed, and both yours to subclass."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sockservice.client.datagram import DatagramClient
    from sockservice.client.line import LineClient
    from sockservice.client.reliable import Full, ReliableSender
    from sockservice.client.requests import TimedOut, Unanswered
    from sockservice.client.targets import connect
    from sockservice.errors import CannotListen, CannotStart, Refused, StoreError
    from sockservice.limits.counters import Counters
    from sockservice.net.tls.server import Wrapping
    from sockservice.net.udp.port import DatagramPort
    from sockservice.server.ack import Ack
    from sockservice.server.answers import Answer
    from sockservice.server.datagram import DatagramServer, Echo
    from sockservice.server.factory import LineFactory
    from sockservice.server.line import LineServer
    from sockservice.store.engine import Backend, Batch, Retention
    from sockservice.wire.chunks import Chunks
    from sockservice.wire.continued import Continued
    from sockservice.wire.framer import Framer
    from sockservice.wire.framing import Framing, Lines, Refusal

__version__ = "0.1.0"

# Imported when they are asked for (PEP 562): a server has no use for what a client needs, nor
# the other way round, and a command that is interrupted while it starts has to say so itself.
_MODULES = {
    "client.datagram": ("DatagramClient",),
    "client.line": ("LineClient",),
    "client.reliable": ("Full", "ReliableSender"),
    "client.requests": ("TimedOut", "Unanswered"),
    "client.targets": ("connect",),
    "errors": ("CannotListen", "CannotStart", "Refused", "StoreError"),
    "limits.counters": ("Counters",),
    "net.udp.port": ("DatagramPort",),
    "server.ack": ("Ack",),
    "server.answers": ("Answer",),
    "server.datagram": ("DatagramServer", "Echo"),
    "server.factory": ("LineFactory",),
    "server.line": ("LineServer",),
    "store.engine": ("Backend", "Batch", "Retention"),
    "net.tls.server": ("Wrapping",),
    "wire.chunks": ("Chunks",),
    "wire.continued": ("Continued",),
    "wire.framer": ("Framer",),
    "wire.framing": ("Framing", "Lines", "Refusal"),
}

__all__ = [
    "Ack",
    "Answer",
    "Backend",
    "Batch",
    "CannotListen",
    "CannotStart",
    "Chunks",
    "Continued",
    "Counters",
    "DatagramClient",
    "DatagramPort",
    "DatagramServer",
    "Echo",
    "Framer",
    "Framing",
    "Full",
    "LineClient",
    "LineFactory",
    "LineServer",
    "Lines",
    "Refusal",
    "Refused",
    "ReliableSender",
    "Retention",
    "StoreError",
    "TimedOut",
    "Unanswered",
    "Wrapping",
    "__version__",
    "connect",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
