"""sockservice: lines acknowledged, datagrams echoed, and both yours to subclass."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sockservice.ack import Ack
from sockservice.answers import Refused
from sockservice.counters import Counters
from sockservice.datagrams import DatagramServer, Echo
from sockservice.factories import LineFactory
from sockservice.framing import Chunks, Framer, Framing, Lines, Refusal
from sockservice.lines import LineServer
from sockservice.ports import DatagramPort

if TYPE_CHECKING:
    from sockservice.client import DatagramClient, LineClient, TimedOut, Unanswered
    from sockservice.sending import Full, ReliableSender
    from sockservice.targets import connect

__version__ = "0.1.0"
__all__ = [
    "Ack",
    "Chunks",
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
    "TimedOut",
    "Unanswered",
    "__version__",
    "connect",
]

# What a server has no use for is imported when it is asked for: a fifth of its start (PEP 562).
_CLIENT = {
    "DatagramClient": "sockservice.client",
    "LineClient": "sockservice.client",
    "TimedOut": "sockservice.client",
    "Unanswered": "sockservice.client",
    "Full": "sockservice.sending",
    "ReliableSender": "sockservice.sending",
    "connect": "sockservice.targets",
}


def __getattr__(name: str) -> Any:
    if name not in _CLIENT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_CLIENT[name]), name)
