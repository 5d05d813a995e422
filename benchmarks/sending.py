"""How fast a program sends lines to a server of sessions until they are stored."""

import os
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from benchmarks.contestants import Sender, storing
from benchmarks.cores import Cores
from benchmarks.disk import DATABASE
from benchmarks.failure import Failure
from benchmarks.loader import Measurement
from benchmarks.server import ROOT, environment, running, stop

INPUT = "input.log"
# The start of the program and of the session are left out.
LEFT_OUT = 0.1
LOOK_SECONDS = 0.01
PATIENCE_SECONDS = 120.0


class Moment(NamedTuple):
    """What has been stored and spent by `time`, in seconds."""

    time: float
    stored: int
    sender: float
    server: float


def send(
    sender: Sender, lines: int, size: int, cores: Cores, folder: Path, tree: Path = ROOT
) -> Measurement:
    """Send a file; of the two processes the sender counts as the server, the other as the load."""
    path = folder / INPUT
    path.write_bytes(
        b"".join((b"%d " % number).ljust(size - 1, b"x") + b"\n" for number in range(lines))
    )
    server = storing("session")
    with (
        running(server.command(folder), server.ready, {cores.loader}, folder, tree) as process,
        path.open("rb") as source,
        closing(sqlite3.connect(folder / DATABASE)) as store,
    ):
        # A pipe, as of a program that has written all that already.
        pipe = subprocess.Popen(["cat"], stdin=source, stdout=subprocess.PIPE)
        command = sender.command(process.port, path)
        program = subprocess.Popen(
            command,
            env=environment(tree),
            stdin=pipe.stdout if sender.piped else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, {cores.server}),
        )
        assert pipe.stdout is not None
        pipe.stdout.close()
        try:
            pids = program.pid, process.pid
            begin = until(store, int(lines * LEFT_OUT), *pids)
            end = until(store, lines, *pids)
        finally:
            stop(program)
            stop(pipe)
    answered, seconds = end.stored - begin.stored, end.time - begin.time
    spent = end.sender - begin.sender, end.server - begin.server
    return Measurement(answered, lines, 0, seconds, *spent, 0.0, 0.0)


def until(store: sqlite3.Connection, lines: int, sender: int, server: int) -> Moment:
    """Wait until so many lines are stored."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        # Ids have no gaps.
        ((stored,),) = store.execute("SELECT coalesce(max(id), 0) FROM lines")
        if stored >= lines:
            return Moment(time.monotonic(), stored, spent(sender), spent(server))
        time.sleep(LOOK_SECONDS)
    raise Failure(f"{stored} of {lines} lines were stored within {PATIENCE_SECONDS:.0f} seconds")


def spent(pid: int) -> float:
    """Return the processor time of a process; its clock is as clock_getcpuclockid(3) says."""
    return time.clock_gettime(~pid << 3 | 2)
