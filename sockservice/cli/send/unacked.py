"""The file of unacknowledged lines, written whole or not at all."""

import os
import tempfile
from typing import IO


class Unacked:
    """Collects lines, which `keep` writes to the file `path`; None keeps nothing.

    Lines end in LF, or in CRLF where an LF would make a CR before it a part of the
    ending: `sockservice send --file` sends the same bytes again.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        # The target of a symbolic link is replaced, not the link.
        self._path = None if path is None else os.path.realpath(path)
        self._file: IO[bytes] | None = None
        #: Lines added.
        self.count = 0
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
        """Put the file in place, durably; return whether there is one."""
        if self._file is None or self._path is None:
            return False
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._file.name, self._path)
        except OSError as problem:
            self._fail(problem)
            return False
        return True

    def _fail(self, problem: OSError) -> None:
        self.problem = problem.strerror or str(problem)
        if self._file is not None:
            name, self._file = self._file.name, None
            os.unlink(name)
