"""One round each: a file sent in a session while power or network fail."""

import re
import signal
import subprocess
from pathlib import Path
from random import Random
from time import monotonic, sleep

from tests.conftest import Children
from tests.soak.carried import PATIENCE, Carrier
from tests.soak.disks import Disk
from tests.soak.networks import THERE, Network
from tests.soak.rounds import freeze

#: Seconds to a power failure.
SOON = (0.3, 3.0)
#: Lines, and how many a second: enough for some cuts. A cut lasts LONG seconds; the sender gives
#: a connection up after WAIT of them, the server learns nothing.
LINES, RATE = 50_000, 1500
LONG, WAIT = 10.0, 4.0


def power(children: Children, disk: Disk, chance: Random, name: str) -> tuple[int, int]:
    """Cut the power of the server's disk again and again, until a file is sent in a session.

    A sender that had an `ok` for what is lost would stop. Gives the lines and the failures.
    """
    carrier = Carrier(children, disk.folder / "lines.db", name, chance)
    sender = carrier.send()
    failures = 0
    ends = monotonic() + PATIENCE
    while True:
        assert monotonic() < ends, f"{name}: not sent within {PATIENCE:g} seconds"
        try:
            sender.wait(chance.uniform(*SOON))
            break
        except subprocess.TimeoutExpired:
            pass
        failures += 1
        freeze(carrier.server)
        disk.powerOff()
        both = chance.random() < 0.5
        if both:
            sender.send_signal(signal.SIGKILL)
            sender.wait()
        carrier.end()
        disk.unmount()
        problem = disk.mount()
        assert not problem, problem
        carrier.serve()
        if both:
            sender = carrier.send()
    _, said = sender.communicate()
    assert sender.returncode == 0, (sender.returncode, said)
    carrier.compare()
    disk.unmount()
    problem = disk.mount()
    assert not problem, problem
    return len(carrier.lines), failures


def network(children: Children, link: Network, chance: Random, name: str) -> tuple[int, int, int]:
    """Cut the network again and again, until a file is sent in a session to another host.

    Gives the lines, the cuts, and how often the session was taken over from a connection that
    the server held to be open.
    """
    store: Path = children.folder / "lines.db"
    carrier = Carrier(
        *(children, store, name, chance),
        count=LINES,
        rate=RATE,
        host=THERE,
        before=link.on(),
    )
    sender = carrier.send("--timeout", f"{WAIT:g}")
    cuts = 0
    ends = monotonic() + PATIENCE
    while True:
        assert monotonic() < ends, f"{name}: not sent within {PATIENCE:g} seconds"
        try:
            sender.wait(chance.uniform(3, 9))
            break
        except subprocess.TimeoutExpired:
            pass
        problem = link.cut()
        assert not problem, problem
        cuts += 1
        sleep(LONG)
        problem = link.mend()
        assert not problem, problem
    _, said = sender.communicate()
    assert sender.returncode == 0, (sender.returncode, said)
    carrier.compare()
    taken = re.search(rb", (\d+) taken over, ", carrier.server.output)
    assert taken, carrier.server.output
    return len(carrier.lines), cuts, int(taken[1])
