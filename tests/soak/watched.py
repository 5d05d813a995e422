"""A real server, and what is seen of it from outside; and a client that minds its own business."""

import os
import re
import socket
from contextlib import ExitStack, closing, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from subprocess import TimeoutExpired
from threading import Event, Thread
from time import monotonic, perf_counter, sleep
from typing import NamedTuple

from tests.conftest import FAILURE, SCRIPTS, Children
from tests.soak.senders import PATIENCE, Address

ROOT = Path(__file__).parents[2]
INSIDE = "tests.soak.inside.Inside"
MIB = 1 << 20

_RSS = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)
_ENDED = re.compile(
    r"ended: (\d+) connections?, (\d+) of them cut; (\d+) lines?, (\d+) acknowledged, "
    r"(\d+) refused; (\d+) datagrams?, (\d+) met with silence, \d+ throttled"
)


class State(NamedTuple):
    """What a server holds."""

    #: Resident memory, in bytes.
    memory: int
    #: Open descriptors.
    files: int
    #: Delayed calls of its reactor.
    calls: int
    #: Blocks of memory its objects take up.
    blocks: int


class Ended(NamedTuple):
    """What a server's last line sums up."""

    connections: int
    cut: int
    lines: int
    acknowledged: int
    refused: int
    datagrams: int
    silent: int


class Watched:
    """A `twistd -n sockservice` with `options` besides `--port 0`, its log in a file.

    What it listens on is in `addresses`, by protocol and scheme: `ack tcp`.
    """

    def __init__(self, folder: Path, opened: ExitStack, *options: str) -> None:
        self._log, self._errors = folder / "log", folder / "errors"
        output = opened.enter_context(self._log.open("wb"))
        errors = opened.enter_context(self._errors.open("wb"))
        self.process = Children(folder, opened).start(
            *(str(SCRIPTS / "twistd"), "-n", "--pidfile=", "sockservice", "--port", "0", *options),
            *("--listen", f"{INSIDE}@tcp:0:interface=127.0.0.1"),
            stdout=output,
            stderr=errors,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        # What is given last listens last.
        self._until(re.escape(INSIDE) + r" listening on tcp:\S+:\d+\n")
        found = re.findall(r"\] (\S+) listening on (\w+):(\S+):(\d+)\n", self.log)
        self.addresses: dict[str, Address] = {
            f"{protocol} {scheme}": (host, int(port)) for protocol, scheme, host, port in found
        }

    @property
    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text(errors="replace")

    @property
    def logged(self) -> int:
        """The bytes that it has logged."""
        return self._log.stat().st_size

    @property
    def memory(self) -> int:
        """Its resident memory, in bytes."""
        found = _RSS.search(Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None, "the server has died"
        return int(found[1]) * 1024

    @property
    def files(self) -> int:
        """Its open descriptors."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def state(self) -> State:
        """Give what it holds, by its own word and by the system's."""
        with closing(socket.create_connection(self.addresses[f"{INSIDE} tcp"], PATIENCE)) as asking:
            asking.sendall(b"\n")
            calls, blocks = map(int, asking.makefile("rb").readline().split())
            # The question itself is one of them.
            return State(self.memory, self.files - 1, calls, blocks)

    def end(self) -> Ended:
        """Have it stop, and give what it sums up."""
        self.process.terminate()
        try:
            status = self.process.wait(PATIENCE)
        except TimeoutExpired:
            raise AssertionError(f"it does not end, not in {PATIENCE:g} seconds") from None
        assert (status, self._errors.read_bytes()) == (0, b""), "it did not end well"
        found = _ENDED.search(self.log)
        assert found, "it did not sum up"
        return Ended(*map(int, found.groups()))

    def failures(self) -> list[str]:
        """Give the lines of its log and of stderr that tell of a failure in it."""
        lines = self._log.read_bytes() + self._errors.read_bytes()
        return [
            line.decode(errors="replace")
            for line in lines.split(b"\n")
            if FAILURE.search(line) is not None
        ]

    def _until(self, pattern: str) -> None:
        deadline = monotonic() + PATIENCE
        while not re.search(pattern, self.log):
            assert monotonic() < deadline, self.log + self._errors.read_text()
            assert self.process.poll() is None, self.log + self._errors.read_text()
            sleep(0.01)


class Trips(NamedTuple):
    """Round trips, in seconds."""

    median: float
    p99: float
    worst: float


class Bystander(Thread):
    """A well-behaved client: a line, its reply, and after a moment the next line."""

    #: Seconds between a reply and the next line.
    MOMENT = 0.001
    #: Seconds for which one median is taken; of several, the median counts, so that
    #: what others do on the machine meanwhile is less in the way.
    WINDOW = 0.5

    def __init__(self, address: Address) -> None:
        super().__init__(daemon=True)
        self._socket = socket.create_connection(address, PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._trips: list[tuple[float, float]] = []  # when, how long
        self._over = Event()
        #: What went wrong, if anything did.
        self.problem = ""

    @property
    def lines(self) -> int:
        """The lines that it has sent, and that were acknowledged."""
        return len(self._trips)

    def run(self) -> None:
        with closing(self._socket):
            while not self._over.wait(self.MOMENT):
                began = perf_counter()
                try:
                    self._socket.sendall(b"a line of a usual length\n")
                    reply = self._socket.recv(100)
                except OSError as problem:
                    self.problem = f"the bystander's connection failed: {problem}"
                    return
                if reply != b"ok\n":
                    self.problem = f"the bystander was told {reply!r}"
                    return
                self._trips.append((monotonic(), perf_counter() - began))

    def stop(self) -> None:
        """Send no more, and close."""
        self._over.set()
        self.join(PATIENCE)

    def trips(self, start: float, end: float) -> Trips:
        """Sum up the round trips that ended between two moments."""
        taken = [trip for trip in self._trips if start <= trip[0] < end]
        if not taken:
            # Not one line: it has waited all the time.
            return Trips(end - start, end - start, end - start)
        bounds = [start]
        while bounds[-1] < end:
            bounds.append(bounds[-1] + self.WINDOW)
        windows = [[took for when, took in taken if a <= when < b] for a, b in pairwise(bounds)]
        # A window without any is one that a single round trip has outlasted.
        medians = [median(window) if window else self.WINDOW for window in windows]
        all_ = sorted(took for _, took in taken)
        p99 = quantiles(all_, n=100)[-1] if len(all_) > 1 else all_[0]
        return Trips(median(medians), p99, all_[-1])


def rests(seconds: float) -> tuple[float, float]:
    """Let so many seconds pass; give the moments between which they did."""
    start = monotonic()
    sleep(seconds)
    return start, monotonic()


def settled(server: Watched, files: int, seconds: float) -> bool:
    """Wait until the server has no more than `files` open; say whether that was in time."""
    deadline = monotonic() + seconds
    with suppress(FileNotFoundError):
        while server.files > files:
            if monotonic() > deadline:
                return False
            sleep(0.05)
    return True
