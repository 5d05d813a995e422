"""See whether a database could be opened, and change nothing: no file is made, none is locked."""

import os
import stat

from sockservice.errors import CannotStart

#: What every database begins with; https://www.sqlite.org/fileformat.html
_BEGIN = b"SQLite format 3\0"


def openable(path: str) -> str:
    """Return what there is at `path`, in a few words, if a store could be opened there.

    Nothing is asked of the database itself, which another process may be using.

    :raises CannotStart: It could not.
    """
    try:
        return _openable(path)
    except OSError as problem:
        raise CannotStart(f"store {path}: {problem.strerror}") from problem


def _openable(path: str) -> str:
    real = os.path.realpath(path)
    folder = os.path.dirname(real)
    if not os.path.exists(real):
        # Otherwise as opening it would fail.
        os.stat(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise CannotStart(f"store {path}: Permission denied")
        return "to be created"
    if not stat.S_ISREG(os.stat(real).st_mode):
        raise CannotStart(f"store {path}: it is no file, but a folder or a device")
    if not (os.access(real, os.R_OK | os.W_OK) and os.access(folder, os.W_OK | os.X_OK)):
        raise CannotStart(f"store {path}: Permission denied")
    with open(real, "rb") as file:
        begin = file.read(len(_BEGIN))
    if begin not in (b"", _BEGIN):
        raise CannotStart(f"store {path}: the file is no database")
    return "exists"
