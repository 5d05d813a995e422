"""Runs the load generator once and returns what it measured."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compiler import compile_c
from benchmarks.contestants import Load, Reply
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
    latencies in microseconds. `answered` counts from the first moment of the measurement to the
    last, `answered_in_all` what came before and behind it as well."""

    answered: int
    answered_in_all: int
    lost: int
    seconds: float
    server_cpu: float
    loader_cpu: float
    server_wait: float
    loader_wait: float
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None

    @property
    def rate(self) -> float:
        return self.answered / self.seconds

    @property
    def waited(self) -> float:
        """The share of the time in which server or loader was ready and did not have its core."""
        return max(self.server_wait, self.loader_wait) / self.seconds

    @property
    def cpu_each(self) -> float:
        """Processor time of the server for one answer, in microseconds."""
        return self.server_cpu / self.answered * 1e6


def compile_loader(build: Path) -> Path:
    sources = [HERE / "load.c", *sorted((HERE / "load").glob("*.c"))]
    return compile_c(sources, build / "load")


def load(
    program: Path, kind: Load, server: Server, work: Work, reply: Reply, seconds: float, core: int
) -> Measurement:
    command = [
        str(program),
        kind,
        *map(str, (server.port, server.pid, work.connections, work.size, work.window)),
        *map(str, (WARMUP_SECONDS, seconds, reply)),
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
