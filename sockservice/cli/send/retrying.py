"""The sender behind `sockservice send --retry`."""

from collections.abc import Callable

from sockservice.cli.send.summary import counted
from sockservice.client.reliable import ReliableSender


class Retrying(ReliableSender):
    """A sender that reports retries to `said`, and unrequested lines to `heard`."""

    said: Callable[[str], None]
    heard: Callable[[bytes], None]

    def retrying(self, why: str, delay: float) -> None:
        lines = counted(self.outstanding)
        self.said(f"{why}; trying again in {delay:.1f} seconds, {lines} unacknowledged")

    def unasked(self, line: bytes) -> None:
        self.heard(line)
