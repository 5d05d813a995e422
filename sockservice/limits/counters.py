"""Counters of what the service has done, one set for each process."""

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Counters:
    """Counts since the start; each only grows."""

    connections: int = 0
    #: Connections closed before the replies to their lines were out.
    cut: int = 0
    #: Connections refused, each told why.
    turnedAway: int = 0
    #: Lines received, refused ones included.
    lines: int = 0
    #: Lines answered, with refusals or silence too.
    answered: int = 0
    #: Lines answered with a refusal.
    refused: int = 0
    #: Lines answered with silence.
    silent: int = 0
    #: Connections closed for idleness, an unfinished line or handshake.
    timedOut: int = 0
    #: Connections refused for a first line that is an HTTP request.
    http: int = 0
    #: Connections refused for TLS where it is not spoken, or plain text where it is.
    mismatched: int = 0
    #: Connections closed since all together held too many bytes.
    overheld: int = 0
    #: Times that a connection was not read since its lines came too fast.
    slowed: int = 0
    #: Datagrams received, those met with silence included.
    datagrams: int = 0
    #: Datagrams answered with a refusal.
    datagramsRefused: int = 0
    #: Datagrams never answered because of where they came from or went to.
    suspect: int = 0
    #: Datagrams never answered because too many came from their source.
    throttled: int = 0
    #: Replies to datagrams that the system would not send.
    unsendable: int = 0

    def slow(self) -> None:
        """Count a connection that is not read for a while, since its lines came too fast."""
        self.slowed += 1

    @property
    def acknowledged(self) -> int:
        """Lines answered with a reply that is no refusal."""
        return self.answered - self.refused - self.silent

    def counts(self) -> dict[str, int]:
        """Return all counts by name, for the fields of a log event."""
        return {**asdict(self), "acknowledged": self.acknowledged}

    def __str__(self) -> str:
        return (
            f"{self.connections} connections, {self.cut} of them cut; {self.lines} lines, "
            f"{self.acknowledged} acknowledged, {self.refused} refused; {self.datagrams} "
            f"datagrams, {self.suspect + self.throttled} met with silence, {self.unsendable} "
            f"replies not sent; {self.turnedAway} connections turned away, {self.overheld} closed "
            f"to make room, {self.timedOut} timed out, {self.http + self.mismatched} of another "
            f"protocol, {self.slowed} pauses of too fast ones; {self.silent} lines met with "
            f"silence, {self.datagramsRefused} datagrams refused"
        )
