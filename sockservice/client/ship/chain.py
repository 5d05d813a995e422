"""List what is left of a log file that is rotated, from the oldest to the newest."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress

from sockservice.client.ship.content import suffix

#: What is added to the name of a log file when it is rotated: a number, counted down from the
#: oldest, or a date or time; less common are words.
_NUMBER = re.compile(r"[.-]\d{1,3}")
_DATE = re.compile(r"[.-]\d{4}.*")
_ADDED = re.compile(r"[.-](\d[\w.:+-]*|old|bak|prev|previous|last)")
#: The name of a log file and a number that was added, of which there is no doubt.
_NUMBERED = re.compile(r"(.+\.log)\.(\d{1,3}|old)")
#: A date that was put before the name's own ending (`extension` of logrotate, log4j).
_BETWEEN = re.compile(r"[.-]\d{4}-?\d\d-?\d\d[\w:+-]*(\.\d+)?")
#: Ends of names of files that are no logs.
_FOREIGN = re.compile(r".*(\.(lock|pid|swp|tmp|temp|part|filepart|offset|pos|state|sock)|~)")


def chain(path: str) -> list[str]:
    """Return the files that `path` was written to, the oldest first, `path` itself last.

    Of a file and its compressed twin only the first is there: while it is, the twin may not be
    whole. What a link leads to is rotated where it is, under its own name.
    """
    own = os.path.realpath(path) if os.path.islink(path) else path
    folder, name = os.path.split(own)
    with suppress(OSError):
        names = _ordered(name, os.listdir(folder or "."), folder)
        there = (os.path.join(folder, each) for each in names)
        return [path if each == own else each for each in there]
    return []


def reachable(path: str) -> None:
    """Look into the folder of `path`, which need not be there.

    :raises OSError: What is in it can't be seen.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        os.listdir(folderOf(path))


def folderOf(path: str) -> str:
    """Return the folder in which the log file `path` is rotated; a link is where it leads to."""
    return os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path) or "."


def current(name: str) -> str:
    """Return the name of the log file of which `name` has to be a predecessor, or "".

    A file with a date in its name may be one that is written to, as may be `worker.1`.
    """
    found = _NUMBERED.fullmatch(name)
    return found[1] if found else ""


def older(name: str, other: str) -> bool:
    """Return whether `other` is the name of a predecessor of the log file `name`."""
    return bool(_added(name, other))


def _added(name: str, other: str) -> str:
    """Return what was added to `name` to make `other`, or ""."""
    stem, end = os.path.splitext(name)
    if not other.startswith(stem):
        return ""  # most are not, of many files in a folder
    bare = _bare(other)
    if other == name or _FOREIGN.fullmatch(bare):
        return ""
    rest = bare.removeprefix(name)
    if bare.startswith(name) and _ADDED.fullmatch(rest):
        return rest
    if end and bare.startswith(stem) and bare.endswith(end):
        rest = bare[len(stem) : -len(end)]
        if _BETWEEN.fullmatch(rest):
            return rest
    return ""


def _ordered(name: str, there: Iterable[str], folder: str) -> list[str]:
    names = {each: added for each in there if (added := _added(name, each))}
    before = [each for each in names if not suffix(each) or _bare(each) not in names]
    ends = [names[each] for each in before]
    if all(map(_NUMBER.fullmatch, ends)):
        before.sort(key=lambda each: -int(names[each][1:]))
    elif all(map(_DATE.fullmatch, ends)):
        before.sort(key=lambda each: (re.sub(r"\D", "", names[each]), each))
    else:
        before.sort(key=lambda each: (_written(os.path.join(folder, each)), each))
    return [*before, name] if name in there else before


def _bare(name: str) -> str:
    return name.removesuffix(suffix(name))


def _written(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
