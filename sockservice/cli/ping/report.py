"""Print what `sockservice ping` finds: a line per reply, and a summary."""

import json
from typing import Any

from sockservice.cli.columns import folded, labelled
from sockservice.cli.output import Output
from sockservice.cli.text import printable
from sockservice.measure.probes import Event, Fate, Probes, Spread, spread
from sockservice.wire.plurals import counted

#: The counts of the summary, behind that of the probes sent.
COUNTS = (
    "received",
    "lost",
    "late",
    "duplicated",
    "reordered",
    "corrupt",
    "refused",
    "unasked",
    "awaited",
)
#: Those that are printed only if there are any.
RARE = ("late", "refused", "unasked", "awaited")


class Printer:
    """Prints events and the summary, as text or JSON."""

    def __init__(
        self, target: str, size: int, output: Output, asJson: bool, quiet: bool, address: str = ""
    ) -> None:
        self.target = target
        self._address = address
        self._size = size
        self._output = output
        self._asJson = asJson
        self._quiet = quiet

    @property
    def broken(self) -> str:
        """Why nothing more can be printed; empty while it can."""
        return self._output.broken

    def begin(self) -> None:
        if not self._asJson:
            where = f" ({self._address})" if self._address not in self.target else ""
            size = counted(self._size, "byte")
            self._output.fold(f"ping {self.target}{where}: {size}")

    def tell(self, event: Event) -> None:
        if self._quiet:
            return
        if not self._asJson:
            self._output.fold(told(event))
            return
        found: dict[str, Any] = {"number": event.number, "outcome": str(event.fate)}
        # Of a reply that was not accepted it is not known.
        if event.fate is not Fate.LOST and not (event.fate is Fate.CORRUPT and event.reason):
            found["size"] = event.size
        if event.roundTrip is not None:
            found["roundTrip"] = round(event.roundTrip, 9)
        if event.reordered:
            found["reordered"] = True
        if event.reason:
            found["reason"] = event.reason.decode("utf-8", "backslashreplace")
        self._output.write(json.dumps(found))

    def note(self, words: str) -> None:
        """Print what concerns no single probe."""
        if not (self._quiet or self._asJson):
            self._output.fold(words)

    def sum(self, probes: Probes) -> dict[str, Any]:
        """Return the counts and statistics so far, in seconds."""
        found = spread(probes.roundTrips) if probes.roundTrips else None
        trips = found and {name: round(value, 9) for name, value in found._asdict().items()}
        return {
            "target": self.target,
            "address": self._address,
            **_counts(probes),
            "loss": round(loss(probes), 6),
            "echoed": probes.echoed,
            "roundTrip": trips,
        }

    def end(self, probes: Probes) -> None:
        """Print the summary, as text."""
        if not self._asJson:
            for line in summary(probes, self._output.columns):
                self._output.write(line)


def _counts(probes: Probes) -> dict[str, int]:
    return {"sent": probes.count} | {name: getattr(probes, name) for name in COUNTS}


def loss(probes: Probes) -> float:
    """Return which part of the probes is lost, of those that are not awaited any more."""
    settled = probes.received + probes.lost
    return probes.lost / settled if settled else 0.0


def summary(probes: Probes, room: int) -> list[str]:
    """Return the counts and statistics so far in words, as lines of at most `room` columns."""
    counts: dict[str, int | str] = {**_counts(probes)}
    for rare in RARE:
        if not counts[rare]:
            del counts[rare]
    counts["lost"] = f"{probes.lost} ({loss(probes) * 100:.3g}%)"
    if not (probes.echoed or probes.corrupt):
        del counts["corrupt"]
    lines = folded(", ".join(f"{name} {number}" for name, number in counts.items()), room)
    if not probes.echoed:
        seen = "only those too long are seen" if probes.corrupt else "none can be seen"
        lines += folded(f"replies are no echoes: {seen} to be corrupt", room)
    if probes.roundTrips:
        lines += summed(spread(probes.roundTrips), room)
    return lines


def told(event: Event) -> str:
    """Return the fate of a probe in words."""
    who = "?" if event.number is None else str(event.number)
    if event.fate is Fate.LOST:
        return f"{who}: lost"
    if event.reason:
        return f"{who}: {printable(event.reason).decode()}"
    parts = [f"{who}: {counted(event.size, 'byte')}"]
    if event.roundTrip is not None:
        parts[0] += f" in {event.roundTrip * 1000:.3f} ms"
    if event.fate is not Fate.REPLY:
        parts.append(event.fate)
    if event.reordered:
        parts.append("reordered")
    return ", ".join(parts)


def summed(found: Spread, room: int) -> list[str]:
    """Return the statistics of the round trips in words, in milliseconds."""
    said = [f"{name} {value * 1000:.3f} ms" for name, value in found._asdict().items()]
    return labelled("round trip  ", [", ".join(said[:3]), ", ".join(said[3:])], room)
