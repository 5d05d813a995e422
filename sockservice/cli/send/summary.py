"""Sum up `sockservice send`: counts, exit status, and one line of explanation."""

from dataclasses import dataclass
from typing import Any

from sockservice.cli.send.source import LineSource
from sockservice.cli.send.unacked import Unacked
from sockservice.cli.status import NOT_ALL, SIGNALLED
from sockservice.client.requests import Discarded
from sockservice.wire.plurals import counted, inSeconds, ranged


@dataclass
class Summary:
    """Counts of lines and of the replies to them, and why sending ended before its end."""

    #: Lines before the first, which need not be sent.
    before: int = 0
    sent: int = 0
    acknowledged: int = 0
    refused: int = 0
    #: Replies that were not accepted: too long, above all.
    discarded: int = 0
    #: Of these, lines that may be stored all the same.
    unknown: int = 0
    #: Lines that came and answered none.
    unasked: int = 0
    #: Lines longer than the session takes, which are not sent.
    long: int = 0
    #: Empty lines, which are not sent as they are no messages.
    empty: int = 0
    #: Why nothing more is sent, or "".
    why: str = ""
    #: The exit status that goes with it.
    status: int = 0

    @property
    def next(self) -> int:
        """The number of the next line to be sent, from 1."""
        return self.before + self.sent + 1

    def end(self, why: str, status: int) -> None:
        """Note why nothing more is sent: the first reason counts, but a signal before all."""
        if not self.why or status > SIGNALLED:
            self.why, self.status = why, status

    def tally(
        self, replies: list[bytes], refusals: tuple[bytes, ...]
    ) -> tuple[list[int], list[int]]:
        """Count replies; return the places of those that acknowledge nothing, and of the discarded.

        A reply that begins with one of `refusals` is a refusal.
        """
        discarded = [each for each, reply in enumerate(replies) if type(reply) is Discarded]
        faulty = [
            each
            for each, reply in enumerate(replies)
            if reply.startswith(refusals) or each in discarded
        ]
        self.acknowledged += len(replies) - len(faulty)
        self.refused += len(faulty) - len(discarded)
        self.unknown += sum(replies[each].startswith(b"error unknown: ") for each in faulty)
        self.discarded += len(discarded)
        return faulty, discarded

    def faults(self, first: int, left: int) -> list[str]:
        """Return what went wrong, one phrase for each fault.

        `left` lines are unacknowledged, the first of them number `first`.
        """
        faults = [self.why] if self.why else []
        if self.refused:
            may = f", {self.unknown} of them may be stored" if self.unknown else ""
            faults.append(f"{self.refused} refused{may}")
        if self.discarded:
            were = counted(self.discarded, "reply was", "replies were")
            faults.append(f"{were} not accepted")
        if self.long:
            are = counted(self.long, "line is", "lines are")
            faults.append(f"{are} longer than the session takes")
        if self.empty:
            were = counted(self.empty, "line is empty and was", "lines are empty and were")
            faults.append(f"{were} not sent")
        if self.unasked:
            faults.append(f"{counted(self.unasked, 'line')} came that nobody asked for")
        if left == 1:
            faults.append(f"line {first} is unacknowledged")
        elif left == self.next - first:
            faults.append(f"{ranged(first, self.next - 1, 'line')} are unacknowledged")
        elif left:
            faults.append(f"{counted(left, 'line is', 'lines are')} unacknowledged")
        return faults

    def exits(self, faults: list[str]) -> int:
        """Return the exit status for these faults."""
        return (self.status or NOT_ALL) if faults else 0

    def progress(self, sent: int, seconds: float) -> str:
        """Return the sum so far in one line: `sent` lines have left within `seconds` seconds."""
        return (
            f"sent {sent}, acknowledged {self.acknowledged}, refused {self.refused}, "
            f"unacknowledged {self.sent - self.acknowledged - self.refused}, "
            f"in {inSeconds(round(seconds, 1))}"
        )

    def totals(self, sent: int, seconds: float, faults: list[str]) -> dict[str, Any]:
        """Return the sum for JSON: `sent` lines have left within `seconds` seconds."""
        return {
            "sent": sent,
            "acknowledged": self.acknowledged,
            "refused": self.refused,
            "unacknowledged": self.sent - self.acknowledged - self.refused,
            "unasked": self.unasked,
            "seconds": round(seconds, 6),
            "status": self.exits(faults),
            "why": "; ".join(faults) or None,
        }

    def doubt(self, refused: bool) -> None:
        """Count a line that came and answers none; `refused`: it begins as a refusal.

        Perhaps a greeting was taken for a reply, and each reply for that of the line before.
        So a refusal is that of a line, whichever, that was counted as acknowledged.
        """
        self.unasked += 1
        if refused and self.acknowledged:
            self.acknowledged -= 1
            self.refused += 1

    def outcome(self, faults: list[str], sent: int | None) -> tuple[int, str]:
        """Return the exit status, and one line on the faults, or "".

        `sent` lines have left at least once; None if there was never a connection.
        """
        text = "; ".join(faults)
        if faults and sent is not None:
            text = f"sent {sent}, acknowledged {self.acknowledged}: {text}"
        return self.exits(faults), text


def kept(unacked: Unacked, left: list[list[bytes]], source: LineSource) -> list[str]:
    """Keep the unacknowledged lines; return how that is told, in a list of at most one phrase.

    `left` are those that were read from `source`, unless that keeps them itself.
    """
    if source.kept:
        return [source.kept]
    for lines in (*left, *source.rest()):
        unacked.add(lines)
    if unacked.keep():
        if unacked.appended:
            are = counted(unacked.count, "line was added to", "lines were added to")
        else:
            are = counted(unacked.count, "line is in", "lines are in")
        return [f"{are} {unacked.path}"]
    return [f"{unacked.path}: {unacked.problem}"] if unacked.problem else []
