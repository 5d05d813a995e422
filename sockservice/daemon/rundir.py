"""Where twistd will run, by its own options: see that it can, and find files as it will then."""

import os
import pwd
import stat
from collections.abc import Mapping
from typing import Any

from twisted.python import usage

#: What stands for no user and no group; chown(2).
NOBODY = 2**32 - 1

#: What twistd's own options say; None is no twistd.
Twistd = Mapping[str, Any] | None


def usable(twistd: Twistd) -> None:
    """See beforehand what twistd would fail to do in a traceback.

    :raises UsageError: There is no such folder, or its files cannot be written, or it cannot run
        as such a user.
    """
    given = twistd or {}
    for option, own in (("uid", os.geteuid()), ("gid", os.getegid())):
        wanted = given.get(option)
        if wanted is None:
            continue
        if not 0 <= wanted < NOBODY:
            raise usage.UsageError(f"--{option} {wanted}: there is no such number")
        if os.geteuid() != 0 and wanted != own:
            raise usage.UsageError(f"--{option} {wanted}: only root may do that")
        if option == "uid":
            # twistd looks up its groups.
            try:
                pwd.getpwuid(wanted)
            except KeyError:
                raise usage.UsageError(f"--uid {wanted}: there is no such user") from None
    root, folder = given.get("chroot"), given.get("rundir") or "."
    if root:
        if not os.path.isdir(root):
            raise usage.UsageError(f"--chroot {root}: there is no such folder")
        if os.geteuid() != 0:
            raise usage.UsageError(f"--chroot {root}: only root may do that")
        if folder != "." and not os.path.isabs(folder):
            raise usage.UsageError(f"--rundir {folder}: below --chroot it begins with /")
    if not os.path.isdir(before(".", twistd)):
        raise usage.UsageError(f"--rundir {folder}: there is no such folder")
    if not os.access(before(".", twistd), os.X_OK):
        raise usage.UsageError(f"--rundir {folder}: not permitted")
    for option, instead in (("pidfile", "; --pidfile= writes none"), ("logfile", "")):
        said = given.get(option) or ""
        if said not in ("", "-"):
            # twistd opens its log before it goes anywhere.
            file = before(said, twistd) if option == "pidfile" else os.path.abspath(said)
            device = option == "logfile" and stat.S_ISCHR(_mode(file))
            if not device and (why := unwritable(file)):
                raise usage.UsageError(f"--{option} {said}: {why}{instead}")


def _mode(path: str) -> int:
    return os.stat(path).st_mode if os.path.exists(path) else 0


def unwritable(path: str) -> str:
    """Return why no file can be written at `path`; empty if one can, as far as is known."""
    found = path if os.path.exists(path) else os.path.dirname(path)
    if not os.path.isdir(os.path.dirname(path)):
        return "there is no such folder"
    if os.path.exists(path) and not os.path.isfile(path):
        return "it is no regular file"
    return "" if os.access(found, os.W_OK) else "not permitted"


def running(path: str, twistd: Twistd) -> str:
    """Return the whole path of a file that an option names, as it is when the service runs.

    A relative one is found from the folder of --rundir, or from that below --chroot.
    """
    given = twistd or {}
    folder = given.get("rundir") or "."
    if given.get("chroot") and folder == ".":
        folder = "/"
    return os.path.abspath(os.path.join(folder, path))


def before(path: str, twistd: Twistd) -> str:
    """Return where that file is before twistd has gone there."""
    return ((twistd or {}).get("chroot") or "").rstrip("/") + running(path, twistd)
