"""Since when a connection is idle, and since when its line is unfinished."""

from sockservice.wire.plurals import inSeconds


class Activity:
    """The clocks of one connection, looked at now and then.

    What counts is whole lines: neither bytes in between nor unread replies keep a
    connection open. Times are seconds of one clock.
    """

    __slots__ = ("_begun", "_lines", "_quiet", "since")

    def __init__(self, now: float) -> None:
        #: When the connection was made.
        self.since = now
        self._lines = -1  # at the last look
        self._quiet = now
        self._begun: float | None = None  # when a line was first found begun and not ended

    def restart(self) -> None:
        """Measure idleness anew from the next look on."""
        self._lines = -1

    def complaint(
        self, now: float, lines: int, *, busy: bool, begun: bool, idle: int, unfinished: int
    ) -> str | None:
        """Return what the peer has to be told for holding a place and making no use of it.

        `lines` were received so far; `busy` means that answers are awaited, `begun` that a
        line is. `idle` and `unfinished` are limits in seconds, 0 is none.
        """
        if busy or lines != self._lines:
            self._lines, self._quiet, self._begun = lines, now, None
        if not begun:
            self._begun = None
        elif self._begun is None:
            self._begun = now
        elif unfinished and now - self._begun >= unfinished:
            return f"unfinished line for {inSeconds(unfinished)}"
        return f"idle for {inSeconds(idle)}" if idle and self.quiet(now) >= idle else None

    def quiet(self, now: float) -> float:
        """Return the seconds since the connection was last found busy."""
        return now - self._quiet
