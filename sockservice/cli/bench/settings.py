"""What passes between the processes of a load: settings, refusals, counts."""

from multiprocessing.connection import Connection
from typing import Any, NamedTuple


class Settings(NamedTuple):
    """What is to be measured, by all processes together."""

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
        """Give the share of one process."""
        connections = (self.connections + self.processes - place - 1) // self.processes
        rate = self.rate and self.rate * connections / self.connections
        return self._replace(connections=connections, rate=rate)


class Unmeasured(NamedTuple):
    """Nothing was measured."""

    status: int
    reason: str


def received(connection: Connection) -> Any:
    """Give what a process sends; None at its end."""
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        return None
