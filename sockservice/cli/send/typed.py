"""Lines that are typed at a prompt."""

from collections.abc import Callable, Iterator

from sockservice.cli.send.source import Fleeting
from sockservice.cli.send.terminal import Left, Terminal


class Typed(Fleeting):
    """The lines entered at `terminal`; `left` is called when Ctrl-C was typed there."""

    size: int | None = None
    problem = ""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._stopped = False
        #: Called when Ctrl-C was typed.
        self.left: Callable[[], object] = lambda: None

    async def read(self) -> list[bytes]:
        try:
            return [] if self._stopped else (await self._terminal.read() or [])
        except Left:
            self.left()
            return []

    def stop(self) -> None:
        self._stopped = True
        self._terminal.stop()

    def rest(self) -> Iterator[list[bytes]]:
        """Yield nothing: what was not entered is no line."""
        yield from ()
