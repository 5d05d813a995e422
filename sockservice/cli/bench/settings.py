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

    def part(self, place: int) -> "Settings":
        """Return the settings of one process: its share of the connections and of the rate."""
        connections = (self.connections + self.processes - place - 1) // self.processes
        rate = self.rate and self.rate * connections / self.connections
        return self._replace(connections=connections, rate=rate)


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
