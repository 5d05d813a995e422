"""The results of a load: counts and latencies."""

from dataclasses import dataclass, field

from sockservice.measure.histogram import Histogram


@dataclass
class Tally:
    """Counts and latencies."""

    #: Replies, refusals and wrong ones included.
    answered: int = 0
    #: Of those, the ones that came before the end.
    inTime: int = 0
    refused: int = 0
    #: Replies of an echo server that are no echoes.
    wrong: int = 0
    #: Replies to no line: surplus ones, or a second one to a datagram.
    unasked: int = 0
    #: Lines without a reply at the end.
    unanswered: int = 0
    #: Datagrams without a reply in time.
    lost: int = 0
    #: Connections that ended early.
    ended: int = 0
    #: The first refusal or end of a connection, in words.
    reason: str = ""
    #: Connections of which the server did not accept our certificate, or which it turned away.
    turnedAway: int = 0
    #: Refusals that came when nothing had been asked, and so answer nothing.
    farewells: int = 0
    latencies: Histogram = field(default_factory=Histogram)

    def add(self, other: "Tally") -> None:
        """Add the counts of `other`."""
        for name in (*FAULTS, "answered", "inTime", "turnedAway", "farewells"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reason = self.reason or other.reason
        self.latencies.add(other.latencies)

    def fault(self, name: str, reason: str) -> None:
        """Count a refusal or an end of a connection."""
        setattr(self, name, getattr(self, name) + 1)
        self.reason = self.reason or reason

    @property
    def whole(self) -> bool:
        """Whether there were replies and nothing went wrong."""
        return bool(self.answered) and not self.faults

    @property
    def faults(self) -> dict[str, int]:
        """What went wrong, by its name, and how often."""
        return {name: getattr(self, name) for name in FAULTS if getattr(self, name)}


FAULTS = ("refused", "wrong", "unasked", "unanswered", "lost", "ended")
