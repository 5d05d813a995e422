"""One round: a file sent in a session, with server, sender or both killed, or a rival."""

import signal
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from time import monotonic

from tests.certificates import Identity
from tests.conftest import SCRIPTS, Child, Children

#: Lines of a file, and how many of them are sent a second: there is time to break something.
COUNT, RATE = 20_000, 20_000
#: Seconds until something breaks, at most, and for a whole round.
SOON, PATIENCE = 1.5, 900.0


class Carrier:
    """A session that is sent from a file to a server, both of which may be killed."""

    def __init__(
        self,
        children: Children,
        store: Path,
        name: str,
        chance: Random,
        *,
        count: int | None = None,
        rate: float | None = None,
        host: str = "127.0.0.1",
        before: Sequence[str] = (),
    ) -> None:
        self._rate = RATE if rate is None else rate
        self._host = host
        self._before = before  # words in front of the server's command
        self._children = children
        self._store = store
        self.name = name
        self.workers = chance.choice([1, 2])
        self._authority = None
        self._server: Identity | None = None
        if chance.random() < 0.5:
            self._authority = Identity(children.folder, f"{name}-authority")
            self._server = Identity(children.folder, f"{name}-server", self._authority)
        self.lines = [
            b"%d " % number + b"x" * chance.choice([0, 10, 100])
            for number in range(COUNT if count is None else count)
        ]
        self._file = children.folder / f"{name}.txt"
        self._file.write_bytes(b"".join(line + b"\n" for line in self.lines))
        self._port = 0
        self.serve()

    def serve(self) -> None:
        """Start the server, on the same port as the last."""
        endpoint = f"tcp:{self._port}"
        if self._server is not None:
            endpoint = (
                f"ssl:{self._port}:certKey={self._server.certKey}"
                f":privateKey={self._server.privateKey}"
            )
        self.server = Child(
            self._children.start(
                *(*self._before, str(SCRIPTS / "twistd"), "-n", "--pidfile=", "sockservice"),
                *("--store", f"sqlite:{self._store}"),
                *("--listen", f"session@{endpoint}:interface={self._host}"),
                *("--workers", str(self.workers), "--start-timeout", f"{PATIENCE:g}"),
                stderr=subprocess.DEVNULL,
            )
        )
        found = self.server.until(rb"session listening on \w+:[\d.]+:(\d+)\n", patience=PATIENCE)
        self._port = int(found[1])

    def send(self, *more: str) -> "subprocess.Popen[bytes]":
        """Start a sender."""
        scheme = "tcp"
        options: tuple[str, ...] = ()
        if self._authority is not None:
            scheme = "tls"
            options = ("--cafile", str(self._authority.certKey))
            if self._host != "127.0.0.1":
                options += ("--server-name", "localhost")
        return self._children.start(
            *("sockservice", "send", "--quiet", "--session", self.name),
            *("--file", str(self._file), "--rate", str(self._rate), *options, *more),
            f"{scheme}:{self._host}:{self._port}",
        )

    def end(self) -> None:
        """End the server at once."""
        self.server.process.kill()
        self.server.process.wait()

    def kill(self) -> None:
        """End the server at once, and start it again."""
        self.end()
        self.serve()

    def compare(self) -> None:
        """End the server in good order; each line is stored once, in order."""
        self.server.process.terminate()
        self.server.end()
        stored, count = self.stored(), len(self.lines)
        assert stored == self.lines, f"{self.name}: {len(stored)} stored of {count}, or in disorder"

    def stored(self) -> list[bytes]:
        """Return the lines of the session."""
        with closing(sqlite3.connect(self._store)) as database:
            return [
                line
                for (line,) in database.execute(
                    "SELECT line FROM lines WHERE peer LIKE ? ORDER BY id",
                    (f"% session {self.name}",),
                )
            ]


def carried(children: Children, store: Path, chance: Random, name: str) -> tuple[int, int]:
    """Send a file in a session, break what there is until it is sent, and compare.

    Gives how many lines were to be sent, and how many things were broken.
    """
    carrier = Carrier(children, store, name, chance)
    broken = 0
    rivals = False
    ends = monotonic() + PATIENCE
    sender = carrier.send()
    while True:
        assert monotonic() < ends, f"{name}: not sent within {PATIENCE:g} seconds"
        try:
            sender.wait(chance.uniform(0, SOON))
        except subprocess.TimeoutExpired:
            pass
        else:
            _, said = sender.communicate()
            if rivals and sender.returncode == 1 and b"taken over by" in said:
                # The one that was started before it was later to connect, and has ended since.
                sender, rivals = carrier.send(), False
                continue
            assert sender.returncode == 0, (sender.returncode, said)
            break
        what = chance.choice(["server", "sender", "both", "rival", "nothing"])
        broken += what != "nothing"
        if what == "rival":
            older, sender, rivals = sender, carrier.send(), True
            status = older.wait(PATIENCE)
            _, said = older.communicate()
            # It may have been through, or have been started later than the rival came.
            assert status in (0, 1), (status, said)
            assert not status or b"taken over by" in said or b"session" in said, said
            continue
        if what in ("sender", "both"):
            sender.send_signal(signal.SIGKILL)
            sender.wait()
        if what in ("server", "both"):
            carrier.kill()
        if what in ("sender", "both"):
            sender = carrier.send()
    carrier.compare()
    return COUNT, broken
