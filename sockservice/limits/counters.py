"""Counters of what the service has done, one set for each listener of a process."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from sockservice.wire.plurals import counted


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
    #: Times that the process had no memory for a connection, a line or datagrams.
    starved: int = 0
    #: Sessions opened: hellos answered with a position.
    sessionsOpened: int = 0
    #: Hellos refused.
    sessionsRefused: int = 0
    #: Connections closed since a newer one has opened their session.
    sessionsTakenOver: int = 0
    #: Sessions removed, unused for too long.
    sessionsExpired: int = 0
    #: Times that a connection was not read since its lines came too fast.
    slowed: int = 0
    #: Datagrams received, those met with silence included.
    datagrams: int = 0
    #: Datagrams that the system dropped since they came faster than they were read.
    dropped: int = 0
    #: Datagrams answered with a refusal.
    datagramsRefused: int = 0
    #: Datagrams never answered because of where they came from or went to.
    suspect: int = 0
    #: Datagrams never answered because too many came from their source.
    throttled: int = 0
    #: Replies to datagrams that the system would not send.
    unsendable: int = 0
    #: Messages lost since nobody is told to send them again, and they could not be stored.
    lost: int = 0
    #: Lines of the log that are missing there, since it was not taken.
    unlogged: int = 0
    #: Requests for the status page and what belongs to it, refused ones included.
    statusRequests: int = 0
    #: Those of them that were refused: malformed, too long, for another host.
    statusRefused: int = 0
    #: Connections to the status page refused since there were too many.
    statusTurnedAway: int = 0
    #: Connections to the status page closed since a request did not come in time.
    statusTimedOut: int = 0
    #: Times that SIGHUP left something as it was, since files were missing, wrong or late.
    unchanged: int = 0
    #: Workers killed since they were not ready in time.
    unready: int = 0
    #: Why, for those of `turnedAway`, `refused` and `datagramsRefused` where it is known: how
    #: many of a counter, by its name and the reason.
    reasons: dict[str, dict[str, int]] = field(default_factory=dict, init=False)

    def reason(self, counter: str, why: str, count: int = 1) -> None:
        """Note why `counter` has grown by `count`; `why` is one of a few words."""
        known = self.reasons.setdefault(counter, {})
        known[why] = known.get(why, 0) + count

    def grow(self, now: "Counters", before: "Counters") -> None:
        """Add what `now` has more than `before`."""
        for name in _NUMBERS:
            grown = getattr(now, name) - getattr(before, name)
            setattr(self, name, getattr(self, name) + grown)
        for counter, known in now.reasons.items():
            for why, count in known.items():
                grown = count - before.reasons.get(counter, {}).get(why, 0)
                if grown:
                    self.reason(counter, why, grown)

    def expire(self, sessions: int) -> None:
        """Count sessions that were removed; called in the store's thread, and only there."""
        self.sessionsExpired += sessions

    def slow(self) -> None:
        """Count a connection that is not read for a while, since its lines came too fast."""
        self.slowed += 1

    def unlog(self) -> None:
        """Count a line that the log did not take."""
        self.unlogged += 1

    @property
    def acknowledged(self) -> int:
        """Lines answered with a reply that is no refusal."""
        return self.answered - self.refused - self.silent

    def counts(self) -> dict[str, int]:
        """Return all counts by name, for the fields of a log event."""
        return {name: getattr(self, name) for name in _NUMBERS} | {
            "acknowledged": self.acknowledged
        }

    def __str__(self) -> str:
        connections = counted(self.connections, "connection")
        lines = counted(self.lines, "line")
        datagrams = counted(self.datagrams, "datagram")
        return (
            f"{connections}, {self.cut} of them cut; {lines}, "
            f"{self.acknowledged} acknowledged, {self.refused} refused; {datagrams}, "
            f"{self.suspect} met with silence, {self.throttled} throttled, {self.dropped} "
            f"dropped by the system, {counted(self.unsendable, 'reply', 'replies')} not sent; "
            f"{counted(self.turnedAway, 'connection')} turned away, {self.overheld} closed "
            f"to make room, {self.timedOut} timed out, {self.http} of HTTP, "
            f"{self.mismatched} of TLS or plain text in the wrong place, "
            f"{counted(self.slowed, 'pause')} of too fast ones; "
            f"{counted(self.silent, 'line')} met with silence, {self.answered} answered in all, "
            f"{self.lost} lost, {counted(self.datagramsRefused, 'datagram')} refused, "
            f"{counted(self.unlogged, 'line')} of the log missing, "
            f"{counted(self.starved, 'time')} no memory; "
            f"{counted(self.sessionsOpened, 'session')} opened, {self.sessionsRefused} refused, "
            f"{self.sessionsTakenOver} taken over, {self.sessionsExpired} expired; "
            f"{counted(self.unchanged, 'reload')} failed, "
            f"{counted(self.unready, 'worker')} not ready in time; "
            f"{counted(self.statusRequests, 'status request')}, {self.statusRefused} refused, "
            f"{counted(self.statusTurnedAway, 'connection')} turned away, "
            f"{self.statusTimedOut} timed out"
        )


_NUMBERS = tuple(each.name for each in fields(Counters) if each.name != "reasons")


class CounterSet:
    """The counters of a process, or of several: those of each listener, and their sum."""

    def __init__(self) -> None:
        #: Those of each listener, by its name; what belongs to none is in those of "".
        self.of: dict[str, Counters] = {}

    def __getitem__(self, listener: str) -> Counters:
        return self.of.setdefault(listener, Counters())

    @property
    def total(self) -> Counters:
        """The sums of all, made anew each time."""
        total, nothing = Counters(), Counters()
        for each in list(self.of.values()):
            total.grow(each, nothing)
        return total

    def counts(self) -> dict[str, int]:
        """As those of the sums."""
        return self.total.counts()

    def __str__(self) -> str:
        return str(self.total)

    def state(self) -> dict[str, dict[str, object]]:
        """All there is, as it is written to JSON."""
        return {listener: asdict(each) for listener, each in self.of.items()}

    @classmethod
    def read(cls, state: Mapping[str, Mapping[str, object]]) -> "CounterSet":
        """Make again what `state` has written."""
        made = cls()
        for listener, each in state.items():
            made.of[listener] = counters = Counters()
            for name, count in each.items():
                setattr(counters, name, count)
        return made

    def grow(self, now: "CounterSet", before: "CounterSet") -> None:
        """Add what `now` has more than `before`."""
        nothing = Counters()
        for listener, each in now.of.items():
            self[listener].grow(each, before.of.get(listener, nothing))
