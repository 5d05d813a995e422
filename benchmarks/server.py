"""A contestant's server as a process of its own: started on its core, ready, stopped."""

import ctypes
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.failure import Failure

ROOT = Path(__file__).parent.parent
#: Where twistd finds the contestant that does nothing; for all, since each looks through it.
PLUGINS = Path(__file__).parent / "peers" / "plugins"
READY_SECONDS = 60.0
STOP_SECONDS = 5.0
LOG_LINES = 15

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Server:
    pid: int
    port: int
    folder: Path


def environment(tree: Path) -> dict[str, str]:
    """Return the environment in which Python finds the package of `tree`, and the peers here."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tree, ROOT, PLUGINS)))}


@contextmanager
def running(
    command: Sequence[str],
    ready: re.Pattern[str],
    cores: set[int],
    folder: Path,
    tree: Path = ROOT,
) -> Iterator[Server]:
    """Run a server for the length of a `with` block; a failure in it shows the server's log."""

    def prepare() -> None:
        os.sched_setaffinity(0, cores)
        # However this process ends, no server may outlive it.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    # A file and no pipe: nobody reads along during the measurement, and a full pipe would block.
    with tempfile.TemporaryFile("w+", dir=folder) as log:
        # In a session of its own Ctrl-C does not reach it before the loader has been stopped.
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(tree),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=prepare,
            start_new_session=True,
        )
        try:
            yield Server(process.pid, wait_for_port(process, ready, log.fileno()), folder)
            if process.poll() is not None:
                raise Failure(f"the server ended by itself with status {process.returncode}")
        except Failure as failure:
            raise Failure("\n".join([str(failure), *last_lines(log.fileno())])) from None
        finally:
            stop(process)


def wait_for_port(process: subprocess.Popen[bytes], ready: re.Pattern[str], log: int) -> int:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if found := ready.search(read_log(log)):
            return int(found[1])
        if process.poll() is not None:
            raise Failure(f"the server ended at once with status {process.returncode}")
        time.sleep(0.001)
    raise Failure(f"the server did not say it was ready within {READY_SECONDS:.0f} seconds")


def read_log(log: int) -> str:
    # The server writes at the offset it shares with this descriptor: it must not move.
    return os.pread(log, 1 << 20, 0).decode(errors="replace")


def last_lines(log: int) -> list[str]:
    return [f"    | {line}" for line in read_log(log).splitlines()[-LOG_LINES:]]


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and end it when it does not."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
