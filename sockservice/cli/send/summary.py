"""Sum up `sockservice send`: counts, exit status, and one line of explanation."""

from dataclasses import dataclass

from sockservice.cli.send.unacked import Unacked
from sockservice.cli.status import NOT_ALL, SIGNALLED


def counted(lines: int) -> str:
    """Return a number of lines in words."""
    return "1 line" if lines == 1 else f"{lines} lines"


@dataclass
class Summary:
    """Counts of lines and of the replies to them, and why sending ended before its end."""

    sent: int = 0
    acknowledged: int = 0
    refused: int = 0
    #: Of these, lines that may be stored all the same.
    unknown: int = 0
    #: Lines that came and answered none.
    unasked: int = 0
    #: Why nothing more is sent, or "".
    why: str = ""
    #: The exit status that goes with it.
    status: int = 0

    def end(self, why: str, status: int) -> None:
        """Note why nothing more is sent: the first reason counts, but a signal before all."""
        if not self.why or status > SIGNALLED:
            self.why, self.status = why, status

    def faults(self, first: int, left: int) -> list[str]:
        """Return what went wrong, one phrase for each fault.

        `left` lines are unacknowledged, the first of them number `first`.
        """
        faults = [self.why] if self.why else []
        if self.refused:
            may = f", {self.unknown} of them may be stored" if self.unknown else ""
            faults.append(f"{self.refused} refused{may}")
        if self.unasked:
            faults.append(f"{counted(self.unasked)} came that nobody asked for")
        if left == 1:
            faults.append(f"line {first} is unacknowledged")
        elif left == self.sent - first + 1:
            faults.append(f"lines {first} to {self.sent} are unacknowledged")
        elif left:
            faults.append(f"{left} lines are unacknowledged")
        return faults

    def exits(self, faults: list[str]) -> int:
        """Return the exit status for these faults."""
        return (self.status or NOT_ALL) if faults else 0

    def outcome(self, faults: list[str], sent: int | None) -> tuple[int, str]:
        """Return the exit status, and one line on the faults, or "".

        `sent` lines have left at least once; None if there was never a connection.
        """
        text = "; ".join(faults)
        if faults and sent is not None:
            text = f"sent {sent}, acknowledged {self.acknowledged}: {text}"
        return self.exits(faults), text


def kept(unacked: Unacked) -> list[str]:
    """Keep the unacknowledged lines; return how that is told, in a list of at most one phrase."""
    if unacked.keep():
        verb = "is" if unacked.count == 1 else "are"
        return [f"{counted(unacked.count)} {verb} in {unacked.path}"]
    return [f"{unacked.path}: {unacked.problem}"] if unacked.problem else []
