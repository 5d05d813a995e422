"""Print what `sockservice ping` finds: a line per reply, and a summary."""

import json
from typing import Any

from sockservice.cli.output import Output
from sockservice.cli.text import printable
from sockservice.measure.probes import Event, Fate, Probes, Spread, spread


class Printer:
    """Prints events and the summary, as text or JSON."""

    def __init__(self, target: str, size: int, output: Output, asJson: bool, quiet: bool) -> None:
        self.target = target
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
            self._output.write(f"ping {self.target}: {self._size} bytes")

    def tell(self, event: Event) -> None:
        if self._quiet:
            return
        if not self._asJson:
            self._output.write(told(event))
            return
        found: dict[str, Any] = {"number": event.number, "outcome": str(event.fate)}
        if event.fate is not Fate.LOST:
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
            self._output.write(words)

    def end(self, probes: Probes) -> None:
        counts = {
            "sent": probes.count,
            "received": probes.received,
            "lost": probes.lost,
            "late": probes.late,
            "duplicated": probes.duplicated,
            "reordered": probes.reordered,
            "corrupt": probes.corrupt,
            "refused": probes.refused,
            "awaited": probes.awaited,
        }
        found = spread(probes.roundTrips) if probes.roundTrips else None
        if self._asJson:
            trips = found and {name: round(value, 9) for name, value in found._asdict().items()}
            summary = {**counts, "echoed": probes.echoed, "roundTrip": trips}
            self._output.write(json.dumps({"summary": summary}))
            return
        for rare in ("late", "refused", "awaited"):
            if not counts[rare]:
                del counts[rare]
        self._output.write(", ".join(f"{name} {number}" for name, number in counts.items()))
        if not probes.echoed:
            self._output.write("replies are no echoes: none can be seen to be corrupt")
        if found is not None:
            self._output.write(summed(found))


def told(event: Event) -> str:
    """Return the fate of a probe in words."""
    who = "?" if event.number is None else str(event.number)
    if event.fate is Fate.LOST:
        return f"{who}: lost"
    if event.fate is Fate.REFUSED:
        return f"{who}: {printable(event.reason).decode()}"
    parts = [f"{who}: {event.size} bytes"]
    if event.roundTrip is not None:
        parts[0] += f" in {event.roundTrip * 1000:.3f} ms"
    if event.fate is not Fate.REPLY:
        parts.append(event.fate)
    if event.reordered:
        parts.append("reordered")
    return ", ".join(parts)


def summed(found: Spread) -> str:
    """Return the statistics of the round trips in words, in milliseconds."""
    values = (f"{name} {value * 1000:.3f}" for name, value in found._asdict().items())
    return f"round trip {', '.join(values)} ms"
