"""A log file that is rotated while its sender, its server and others are killed, many times."""

import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from time import monotonic, sleep

from tests.conftest import Children
from tests.rotations import copied, copiedAndCompressed, renamed, renamedAndCompressed

#: Seconds after which lines that were to arrive have not.
PATIENCE = 90.0

Rotation = Callable[[Path], None]


ROTATIONS: list[Rotation] = [renamed, renamedAndCompressed, copied, copiedAndCompressed]


def lines(store: Path) -> list[bytes]:
    """Give the lines in a store, in their order."""
    # Before the server's first start there is no file, or no table in it.
    with (
        suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as base,
    ):
        return [bytes(row[0]) for row in base.execute("SELECT line FROM lines ORDER BY id")]
    return []


class Processes:
    """A server and a sender, any of which may be killed and started again.

    With `relaying`, a relay sends what the server stores to another server, the centre.
    """

    def __init__(self, children: Children, folder: Path, log: Path, relaying: bool) -> None:
        socket = folder / "s.sock"
        self.store = folder / "lines.db"
        self._edge = self.store
        self._children = children
        self._quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._commands: dict[str, tuple[str, ...]] = {
            "server": _server(self.store, socket),
            "sender": ("sockservice", "ship", f"unix:{socket}", "--session", "soak", str(log)),
        }
        if relaying:
            self.store, centre = folder / "centre.db", folder / "c.sock"
            self._commands["centre"] = _server(self.store, centre)
            relay = ("relay", str(self._edge), f"unix:{centre}", "--session", "edge")
            self._commands["relay"] = ("sockservice", *relay)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.kills = 0

    @property
    def kinds(self) -> list[str]:
        """What there is."""
        return list(self._commands)

    def start(self) -> None:
        """Start what does not run."""
        for kind, command in self._commands.items():
            # A relay is for a store that there is.
            if kind not in self._running and (kind != "relay" or lines(self._edge)):
                self._running[kind] = self._children.start(*command, **self._quiet)

    def kill(self, *kinds: str) -> None:
        """End them at once, as kill -9 does."""
        for kind in kinds:
            if process := self._running.pop(kind, None):
                assert process.poll() is None, f"the {kind} has ended: {process.returncode}"
                process.kill()
                process.wait()
                self.kills += 1


def _server(store: Path, socket: Path) -> tuple[str, ...]:
    return (
        *("twistd", "-n", "--pidfile=", "sockservice", "--store", f"sqlite:{store}"),
        *("--listen", f"session@unix:{socket}"),
    )


def ship(
    children: Children, folder: Path, chance: Random, count: int, relaying: bool
) -> tuple[int, int]:
    """Write `count` lines to a log file that is rotated, kill at random, and compare.

    Gives how many times something was killed, and how many lines are stored.
    """
    log = folder / "logs" / "app.log"
    log.parent.mkdir()
    processes = Processes(children, folder, log, relaying)
    processes.start()
    rotate = chance.choice(ROTATIONS)
    written = 0
    rest = b""
    while written < count:
        with log.open("ab", 0) as writer:
            for _ in range(chance.randrange(1, 40)):
                more = min(chance.randrange(1, 200), count - written)
                data = rest + b"".join(b"line %d\n" % n for n in range(written, written + more))
                written += more
                # The last line is written in two halves.
                cut = len(data) - chance.randrange(8)
                rest = data[cut:]
                writer.write(data[:cut])
                sleep(chance.choice([0, 0, 0, 0.01]))
            if chance.random() < 0.5:
                writer.write(rest)
                rest = b""
        if not rest:
            rotate(log)
        if chance.random() < 0.15:
            kinds = processes.kinds
            processes.kill(*chance.sample(kinds, chance.randint(1, len(kinds))))
            sleep(chance.uniform(0, 0.3))
        elif chance.random() < 0.4:
            processes.start()
            sleep(chance.uniform(0, 1.5))
    with log.open("ab", 0) as writer:
        writer.write(rest)
    deadline = monotonic() + PATIENCE
    while len(stored := lines(processes.store)) < count and monotonic() < deadline:
        processes.start()
        sleep(0.5)
    processes.kill(*processes.kinds)
    stored = lines(processes.store)
    expected = [b"line %d" % number for number in range(count)]
    if stored != expected:
        first = next(
            (at for at, (a, b) in enumerate(zip(stored, expected, strict=False)) if a != b),
            min(len(stored), count),
        )
        raise AssertionError(
            f"{rotate.__name__}: {len(stored)} lines of {count}, the first that differs is "
            f"{first}: {stored[first : first + 2]}"
        )
    return processes.kills, len(stored)
