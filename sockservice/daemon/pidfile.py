"""See beforehand that twistd can write its own file, which it would fail to in a traceback."""

import os
from collections.abc import Mapping
from typing import Any

from twisted.python import usage


def writable(twistd: Mapping[str, Any] | None) -> None:
    """Look at what `twistd`, its own options, say of the pidfile; None is no twistd.

    :raises UsageError: It cannot be written.
    """
    given = twistd or {}
    path = given.get("pidfile") or ""
    if not path or given.get("chroot"):
        return
    path = os.path.join(given.get("rundir") or ".", path)
    folder = os.path.dirname(path) or "."
    found = path if os.path.exists(path) else folder
    if not os.access(found, os.W_OK):
        why = "not permitted" if os.path.exists(found) else "there is no such folder"
        raise usage.UsageError(f"--pidfile {path}: {why}; --pidfile= writes none")
