"""sockservice: lines acknowledged, datagrams echoed, and both yours to subclass."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sockservice.client.datagram import DatagramClient
    from sockservice.client.line import LineClient
    from sockservice.client.relay.relaying import Relay, Removed, StoreLost
    from sockservice.client.reliable import Full, ReliableSender
    from sockservice.client.requests import TimedOut, Unanswered
    from sockservice.client.session import (
        Behind,
        Different,
        Forgotten,
        SessionError,
        SessionRefused,
        SessionSender,
        TakenOver,
    )
    from sockservice.client.ship.shipper import FileGone, Shipper
    from sockservice.client.ship.shipping import Shipping
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
    from sockservice.store.reader import Unreadable
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
    "client.relay.relaying": ("Relay", "Removed", "StoreLost"),
    "client.reliable": ("Full", "ReliableSender"),
    "client.session": (
        "Behind",
        "Different",
        "Forgotten",
        "SessionError",
        "SessionRefused",
        "SessionSender",
        "TakenOver",
    ),
    "client.requests": ("TimedOut", "Unanswered"),
    "client.ship.shipper": ("FileGone", "Shipper"),
    "client.ship.shipping": ("Shipping",),
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
    "store.reader": ("Unreadable",),
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
    "Behind",
    "CannotListen",
    "CannotStart",
    "Chunks",
    "Continued",
    "Counters",
    "DatagramClient",
    "DatagramPort",
    "DatagramServer",
    "Different",
    "Echo",
    "FileGone",
    "Forgotten",
    "Framer",
    "Framing",
    "Full",
    "LineClient",
    "LineFactory",
    "LineServer",
    "Lines",
    "Refusal",
    "Refused",
    "Relay",
    "ReliableSender",
    "Removed",
    "Retention",
    "SessionError",
    "SessionRefused",
    "SessionSender",
    "Shipper",
    "Shipping",
    "StoreError",
    "StoreLost",
    "TakenOver",
    "TimedOut",
    "Unanswered",
    "Unreadable",
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
