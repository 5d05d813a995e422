"""What the service has done so far, in numbers: one object for a process."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Counts since the start; each only grows."""

    connections: int = 0
    #: Lines received, refused ones included.
    lines: int = 0
    #: Lines answered with a refusal.
    refused: int = 0
    #: Datagrams received, those met with silence included.
    datagrams: int = 0
    #: Datagrams never answered because of where they came from or went to.
    suspect: int = 0
    #: Replies to datagrams that the system would not send.
    unsendable: int = 0
