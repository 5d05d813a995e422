"""What a command that goes on and on tells: messages, events in JSON, a line on a terminal."""

import json
import os
from typing import Any

from sockservice.cli.output import Output
from sockservice.cli.progress import Bar, fitted
from sockservice.cli.text import printable, tell

#: Seconds in which the same reason for another attempt is told once, however many have it.
AGAIN = 60.0


class Events:
    """Tells what happens as messages on stderr or, with `asJson`, as objects on stdout."""

    def __init__(self, reactor: Any, asJson: bool) -> None:
        self._reactor = reactor
        self._output = Output() if asJson else None
        self._bar = Bar()
        self._why = ""
        self._told = 0.0
        self._at = reactor.seconds()
        self._counted = 0
        self._rate = 0.0

    @property
    def broken(self) -> str:
        """Why nothing more can be printed, or ""."""
        return self._output.broken if self._output is not None else ""

    @property
    def objects(self) -> bool:
        """Whether events are told as objects, to a program."""
        return self._output is not None

    @property
    def draws(self) -> bool:
        """Whether there is a terminal to show how things are."""
        return self._bar.there

    def event(self, what: str, text: str, **values: Any) -> None:
        """Tell of an event: `text` on stderr unless it is empty, or `values` as JSON."""
        if self._output is not None:
            self._output.write(json.dumps({"event": what, **values}))
        elif text:
            self.say(text)

    def retrying(self, why: str, delay: float, **values: Any) -> None:
        """Tell why there is no connection, and that the next attempt is in `delay` seconds."""
        now = self._reactor.seconds()
        text = ""
        if why != self._why or now - self._told >= AGAIN:
            text = f"{why}; trying again"
            self._why, self._told = why, now
        self.event("retrying", text, **values, why=why, seconds=round(delay, 3))

    def say(self, text: str) -> None:
        """Write a message to stderr."""
        with self._bar.aside():
            tell(_shown(text))

    def rate(self, count: int) -> float:
        """Return by how much `count`, which grows, has grown a second of late."""
        now = self._reactor.seconds()
        if now - self._at >= 1:
            self._rate = (count - self._counted) / (now - self._at)
            self._at, self._counted = now, count
        return self._rate

    def show(self, *parts: str) -> None:
        """Show how things are on the last line of a terminal, the most important part first."""
        self._bar.show(fitted(map(_shown, parts), self._bar.width - 1))

    def clear(self) -> None:
        """Take that line away."""
        self._bar.clear()


def _shown(text: str) -> str:
    """Escape text in which there may be names of files, whatever bytes these are."""
    return printable(os.fsencode(text)).decode()
