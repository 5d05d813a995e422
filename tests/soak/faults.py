"""A server whose disk is made to fail, by a library that is loaded before the system's."""

import shutil
import subprocess
import time
from pathlib import Path
from random import Random

from tests.conftest import Children
from tests.soak.rounds import LOAD, Server
from tests.soak.senders import OK, Sender, compare, latest

SOURCE = Path(__file__).with_name("faults.c")


def built(folder: Path) -> Path | None:
    """Build the library in a folder; None without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    made = folder / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, SOURCE, "-ldl"], check=True)
    return made


def loading(library: Path) -> dict[str, str]:
    """Give the environment that has it loaded, though there be a blank in its path; ld.so(8)."""
    return {"LD_PRELOAD": library.name, "LD_LIBRARY_PATH": str(library.parent)}


class Faulty:
    """A server on a disk that fails as `fault` says."""

    def __init__(self, children: Children, library: Path) -> None:
        self.store = children.folder / "lines.db"
        self._children = children
        self._faults = children.folder / "faults"
        given = loading(library) | {"FAULTS": str(self._faults)}
        self._loaded = ("/usr/bin/env", *map("=".join, given.items()))
        self.server = Server(children, self.store, self._loaded)

    def fault(self, what: str) -> None:
        """Have the disk fail from now on."""
        new = self._faults.with_suffix(".new")
        new.write_text(what)
        new.replace(self._faults)

    def senders(self, *windows: int) -> list[Sender]:
        """Start senders whose first line is acknowledged."""
        made = [Sender(f"lines{n}", self.server.lines, w) for n, w in enumerate(windows)]
        for sender in made:
            sender.start()
        for sender in made:
            sender.until(OK)
        return made

    def ended(self, senders: list[Sender]) -> int:
        """Wait for the server's end; give its status."""
        status, _ = self.server.end()
        for sender in senders:
            sender.stop()
        return status

    def recovered(self) -> None:
        """Start a server on what the last one has left, as it would be in the end."""
        self._faults.unlink(missing_ok=True)
        again = Server(self._children, self.store)
        again.process.terminate()
        assert again.end() == (0, b"")


#: Syncs that fail once, now and then, always, or once and then a kill; kills at some call.
FAULTS = ("fail 1", "fail 2", "fail -1", "fatal 1", "fatal 2", "fatal 3", "die {}")


def failing(children: Children, library: Path, chance: Random) -> tuple[int, int]:
    """Have the disk of a server fail under load, start it again and compare.

    Gives how many lines were acknowledged, and how many are stored.
    """
    made = Faulty(children, library)
    after = latest(made.store)
    senders = made.senders(1, 1, 30, 300)
    time.sleep(chance.uniform(0, LOAD))  # the random moment
    made.fault(chance.choice(FAULTS).format(chance.randrange(1, 40)))
    made.ended(senders)
    made.recovered()
    return compare(made.store, after, senders)
