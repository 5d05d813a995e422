"""Compiles C sources once, into a folder that is thrown away."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.failure import Failure

COMPILE_SECONDS = 120


def compile_c(sources: Sequence[Path], program: Path) -> Path:
    """Return `program`, compiled from `sources` unless it is there already."""
    if program.exists():
        return program
    compiler = shutil.which("cc")
    if compiler is None:
        raise Failure("no C compiler: `cc` is needed for the loader and the C server")
    command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), *map(str, sources)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    if result.returncode:
        raise Failure(f"cc failed on {program.name}:\n{result.stderr}")
    return program
