"""Tell the line with which a server ends a connection from a reply."""

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Beginnings of lines with which a server ends a connection, and which answer none of ours.
FAREWELLS = (b"error busy: ", b"error not allowed: ", b"error idle for ")
#: Seconds after which such a line is a reply after all, if the connection goes on.
DOUBT = 1.0


def rejected(refusal: str) -> bool:
    """Return whether a LineClient's `refusal` says that the connection was rejected."""
    return refusal.startswith(("error busy: ", "error not allowed: "))


class TurnedAway(Exception):
    """The server has rejected the connection; the text is the line that said so."""


class Doubt:
    """Holds back a line that may be the server's farewell; `believed` gets it if it is none."""

    def __init__(self, clock: IReactorTime, believed: Callable[[list[bytes]], None]) -> None:
        self._clock = clock
        self._believed = believed
        self._line: bytes | None = None
        self._timer: IDelayedCall | None = None

    def hold(self, lines: list[bytes]) -> list[bytes]:
        """Hold back the last line if it may be a farewell; return the others."""
        if not lines[-1].startswith(FAREWELLS):
            return lines
        self._line = lines[-1]
        self._timer = self._clock.callLater(DOUBT, self.believe)
        return lines[:-1]

    def believe(self) -> None:
        """Take the line held back for a reply, for the connection goes on."""
        if (line := self.end()) is not None:
            self._believed([line])

    def end(self) -> bytes | None:
        """Return the line held back, if there is one, and hold it no longer."""
        line, self._line = self._line, None
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        return line
