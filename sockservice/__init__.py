"""sockservice: lines acknowledged, datagrams echoed, and both yours to subclass."""

from sockservice.answers import Refused
from sockservice.client import DatagramClient, LineClient, TimedOut, Unanswered
from sockservice.counters import Counters
from sockservice.datagrams import DatagramServer, Echo
from sockservice.factories import LineFactory
from sockservice.framing import Chunks, Framer, Framing, Lines, Refusal
from sockservice.lines import Ack, LineServer
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
