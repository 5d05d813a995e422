"""Compiles C sources once, into a folder that is thrown away."""

import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from benchmarks.failure import Failure

COMPILE_SECONDS = 120


def compiler() -> str:
    found = shutil.which("cc")
    if found is None:
        raise Failure("no C compiler: `cc` is needed for the loader and the C server")
    return found


@cache
def has_header(name: str) -> bool:
    command = [compiler(), "-fsyntax-only", "-include", name, "-x", "c", "/dev/null"]
    return not subprocess.run(command, capture_output=True).returncode


def compile_c(sources: Sequence[Path], program: Path, options: Sequence[str] = ()) -> Path:
    """Return `program`, compiled from `sources` unless it is there already."""
    if program.exists():
        return program
    command = [compiler(), "-O2", "-Wall", "-Wextra", "-o", str(program)]
    command += [*map(str, sources), *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    if result.returncode:
        raise Failure(f"cc failed on {program.name}:\n{result.stderr}")
    return program
