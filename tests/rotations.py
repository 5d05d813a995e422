"""Rotate a log file as logrotate and its like do; the log is gone then, or empty."""

import gzip
import os
import shutil
from pathlib import Path


def shift(log: Path, *, squeeze: bool = False) -> None:
    """Make room for a new `.1`; with `squeeze`, compress what moves on and is not compressed."""
    there = [each for each in log.parent.glob(f"{log.name}.*") if _number(log, each)]
    for path in sorted(there, key=lambda each: -_number(log, each)):
        ending = ".gz" if path.suffix == ".gz" else ""
        moved = log.with_name(f"{log.name}.{_number(log, path) + 1}{ending}")
        path.rename(moved)
        if squeeze and not ending:
            compress(moved)


def compress(path: Path) -> None:
    """Put a compressed file in the place of a file."""
    with path.open("rb") as plain, gzip.open(f"{path}.gz", "wb", 1) as packed:
        shutil.copyfileobj(plain, packed)
    path.unlink()


def renamed(log: Path, *, squeeze: bool = False) -> None:
    """Rename the log."""
    shift(log, squeeze=squeeze)
    log.rename(f"{log}.1")


def renamedAndCompressed(log: Path) -> None:
    """Rename the log, and compress it at once."""
    renamed(log)
    compress(Path(f"{log}.1"))


def copied(log: Path) -> None:
    """Copy the log and truncate it."""
    shift(log)
    shutil.copy(log, f"{log}.1")
    os.truncate(log, 0)


def copiedAndCompressed(log: Path) -> None:
    """Copy the log and truncate it, and compress the copy at once."""
    copied(log)
    compress(Path(f"{log}.1"))


def _number(log: Path, path: Path) -> int:
    number = path.name.removeprefix(f"{log.name}.").removesuffix(".gz")
    return int(number) if number.isdecimal() else 0
