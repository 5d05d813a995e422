"""The file of unacknowledged lines, to which a run adds all of its own or none."""

import fcntl
import os
import shutil
import tempfile
from typing import IO


class Unacked:
    """Collects lines, which `keep` adds to the file `path`; None keeps nothing.

    Lines end in LF, or in CRLF where an LF would make a CR before it a part of the
    ending: `sockservice send --file` sends the same bytes again.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        # The target of a symbolic link is replaced, not the link.
        self._path = None if path is None else os.path.realpath(path)
        self._file: IO[bytes] | None = None
        #: Lines collected.
        self.count = 0
        #: Whether the file held lines of earlier runs.
        self.appended = False
        #: Why they could not be written, or "".
        self.problem = ""

    def add(self, lines: list[bytes]) -> None:
        """Append `lines`."""
        self.count += len(lines)
        if self._path is None or self.problem or not lines:
            return
        try:
            if self._file is None:
                self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115
                    dir=os.path.dirname(self._path), prefix=".unacked-", delete=False
                )
            for line in lines:
                self._file.write(line + (b"\r\n" if line.endswith(b"\r") else b"\n"))
        except OSError as problem:
            self._fail(problem)

    def keep(self) -> bool:
        """Put the lines into the file, durably; return whether there are any there."""
        if self._file is None or self._path is None:
            return False
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            try:
                # Fails if there is one; a rename would replace it.
                os.link(self._file.name, self._path)
            except OSError:
                self._append(self._file, self._path)
        except OSError as problem:
            self._fail(problem)
            return False
        self._discard()
        return True

    def _append(self, file: IO[bytes], path: str) -> None:
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b", 0) as kept:
            # Another run may be adding lines, too.
            fcntl.flock(kept, fcntl.LOCK_EX)
            size = os.fstat(kept.fileno()).st_size
            self.appended = size > 0
            try:
                if size and os.pread(kept.fileno(), 1, size - 1) != b"\n":
                    kept.write(b"\n")
                file.seek(0)
                shutil.copyfileobj(file, kept)
                os.fsync(kept.fileno())
            except OSError:
                os.ftruncate(kept.fileno(), size)
                raise

    def _fail(self, problem: OSError) -> None:
        self.problem = problem.strerror or str(problem)
        self._discard()

    def _discard(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            os.unlink(file.name)
            file.close()
