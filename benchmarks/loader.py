"""Runs the load generator once and returns what it measured."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.certificate import HEADER
from benchmarks.compiler import compile_c, has_header
from benchmarks.contestants import Contestant, Load
from benchmarks.failure import Failure
from benchmarks.server import Server
from benchmarks.works import Work

HERE = Path(__file__).parent
WARMUP_SECONDS = 0.25
# The loader bounds its own opening and draining to less than this.
SPARE_SECONDS = 40.0


@dataclass(frozen=True)
class Measurement:
    """One measurement; the fields are the keys of the loader's JSON object, times in seconds,
    latencies in microseconds; `value` is in the work's unit where that is no rate. `answered`
    counts from the first moment of the measurement to the last, `answered_in_all` what came
    before and behind it as well. `server_cpu` is None where it can't be known."""

    answered: int
    answered_in_all: int
    lost: int
    seconds: float
    server_cpu: float | None
    loader_cpu: float
    server_wait: float
    loader_wait: float
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None
    value: float | None = None

    @property
    def figure(self) -> float:
        """What the work is about: answers a second, or another value that it measures."""
        return self.answered / self.seconds if self.value is None else self.value

    @property
    def waited(self) -> float:
        """The share of the time in which server or loader was ready and did not have its core."""
        return max(self.server_wait, self.loader_wait) / self.seconds

    @property
    def server_share(self) -> float | None:
        """The share of the time in which the server ran, or would have if it had had its core."""
        if self.server_cpu is None:
            return None
        return (self.server_cpu + self.server_wait) / self.seconds

    @property
    def loader_share(self) -> float:
        """The same of the load."""
        return (self.loader_cpu + self.loader_wait) / self.seconds

    @property
    def cpu_each(self) -> float | None:
        """Processor time of the server for one answer, in microseconds."""
        return None if self.server_cpu is None else self.server_cpu / self.answered * 1e6

    @property
    def lost_share(self) -> float:
        return self.lost / (self.lost + self.answered)


def compile_loader(build: Path) -> Path:
    sources = [HERE / "load.c", *sorted((HERE / "load").glob("*.c"))]
    with_tls = ["-DTLS", "-lssl", "-lcrypto"] if has_header(HEADER) else []
    return compile_c(sources, build / "load", with_tls)


def load(
    program: Path,
    kind: Load,
    server: Server,
    work: Work,
    contestant: Contestant,
    seconds: float,
    core: int,
) -> Measurement:
    command = [
        str(program),
        kind,
        *map(str, (server.port, server.pid, work.connections, work.size, work.window)),
        *map(str, (WARMUP_SECONDS, seconds, contestant.reply)),
        "tls" if contestant.tls else "plain",
        str(work.rate),
    ]
    timeout = WARMUP_SECONDS + seconds + SPARE_SECONDS
    try:
        # On any way out, Ctrl-C among them, `run` ends the process and waits for it.
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=server.folder,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"the load did not end within {timeout:.0f} seconds") from None
    if result.returncode:
        raise Failure(result.stderr.strip() or f"the loader ended with {result.returncode}")
    measurement = Measurement(**json.loads(result.stdout))
    if not measurement.answered:
        raise Failure("not one reply came during the measurement")
    return measurement
