"""Messages between the processes of `sockservice bench`."""

from multiprocessing.connection import Connection
from typing import Any, NamedTuple


class Settings(NamedTuple):
    """What all processes together measure."""

    target: str
    connections: int
    pipeline: int
    size: int
    duration: float
    warmup: float
    rate: float | None
    timeout: float
    processes: int
    yes: bool
    how: dict[str, Any]
    lines: int | None = None
    payload: bytes | None = None
    refusals: tuple[bytes, ...] = (b"error ",)

    def part(self, place: int) -> "Settings":
        """Return the settings of one process: its share of connections, rate and lines."""
        before, end = (self.connections * each // self.processes for each in (place, place + 1))
        connections = end - before
        rate = self.rate and self.rate * connections / self.connections
        lines = self.lines
        if lines is not None:
            lines = lines * end // self.connections - lines * before // self.connections
        return self._replace(connections=connections, rate=rate, lines=lines)


class Unmeasured(NamedTuple):
    """Why nothing was measured, and the exit status."""

    status: int
    reason: str


def received(connection: Connection) -> Any:
    """Return what a process sends, or None when it has ended."""
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        return None
