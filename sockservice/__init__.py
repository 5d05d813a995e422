"""sockservice: lines acknowledged, datagrams echoed, and both yours to subclass."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sockservice.ack import Ack
    from sockservice.answers import Refused
    from sockservice.client import DatagramClient, LineClient, TimedOut, Unanswered
    from sockservice.counters import Counters
    from sockservice.datagrams import DatagramServer, Echo
    from sockservice.factories import LineFactory
    from sockservice.framing import Chunks, Framer, Framing, Lines, Refusal
    from sockservice.lines import LineServer
    from sockservice.ports import DatagramPort
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

# Imported when they are asked for (PEP 562): a server has no use for what a client needs, nor
# the other way round, and a command that is interrupted while it starts has to say so itself.
_MODULES = {
    "ack": ("Ack",),
    "answers": ("Refused",),
    "client": ("DatagramClient", "LineClient", "TimedOut", "Unanswered"),
    "counters": ("Counters",),
    "datagrams": ("DatagramServer", "Echo"),
    "factories": ("LineFactory",),
    "framing": ("Chunks", "Framer", "Framing", "Lines", "Refusal"),
    "lines": ("LineServer",),
    "ports": ("DatagramPort",),
    "sending": ("Full", "ReliableSender"),
    "targets": ("connect",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
