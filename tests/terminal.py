"""A program on a terminal of its own."""

import codecs
import os
import re
import select
import subprocess
import sys
import termios
import unicodedata
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from types import MappingProxyType

from tests.conftest import PATIENCE, SCRIPTS

#: Takes the terminal whose descriptor comes first, and becomes the command behind it. What is
#: called between fork and exec instead would run in a process that has threads.
LOGIN = "import os, sys; os.login_tty(int(sys.argv[1])); os.execvp(sys.argv[2], sys.argv[2:])"


class OnTerminal:
    """A command on a terminal, and what it has printed there."""

    def __init__(
        self,
        command: list[str],
        opened: ExitStack,
        folder: Path | None = None,
        *,
        columns: int = 80,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._terminal, theirs = os.openpty()
        opened.callback(os.close, self._terminal)
        termios.tcsetwinsize(theirs, (24, columns))
        path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
        here = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.printed = ""
        #: All that it has printed, also what is forgotten.
        self.whole = ""
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LOGIN, str(theirs), *command],
            cwd=folder,
            env=here | {"PATH": path, "TERM": "xterm", "LC_ALL": "C.UTF-8"} | {**environment},
            pass_fds=[theirs],
        )
        os.close(theirs)
        opened.enter_context(self.process)
        opened.callback(self.process.kill)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def until(self, pattern: str) -> None:
        """Read until `pattern` is printed; forget what came up to its end."""
        deadline = monotonic() + PATIENCE
        while (found := re.search(pattern, self.printed, re.DOTALL)) is None:
            assert self._read(deadline), f"{pattern!r} never came: {self.printed!r}"
        self.printed = self.printed[found.end() :]

    def close(self) -> None:
        """Take the terminal away, as closing its window does."""
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), self._terminal)

    def end(self) -> int:
        """Wait for its end; give the exit status."""
        return self.process.wait(PATIENCE)

    def rest(self) -> str:
        """Wait until nothing more can come; give all that it has printed."""
        deadline = monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.whole

    def _read(self, deadline: float) -> bool:
        """Read what is there; say whether there may be more."""
        left = max(0.0, deadline - monotonic())
        assert select.select([self._terminal], [], [], left)[0], self.printed
        try:
            data = self._decoder.decode(os.read(self._terminal, 65536))
        except OSError:
            # How a terminal says that all programs on it have ended.
            return False
        self.printed += data
        self.whole += data
        return True


#: What is on a terminal besides text: control sequences, with their number and what they do.
CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b[=>]|[\b\r\n]")


def widest(printed: str) -> int:
    """Give the columns of the widest line that was on a terminal at any time, were it unbounded."""
    column = most = 0
    place = 0
    while place < len(printed):
        if control := CONTROL.match(printed, place):
            place = control.end()
            steps = int(control[1]) if (control[1] or "").isdigit() else 1
            if control[2] == "C":
                column += steps
            elif control[2] == "D" or control[0] == "\b":
                column = max(0, column - steps)
            elif control[0] in "\r\n":
                column = 0
            continue
        column += _columns(printed[place])
        most = max(most, column)
        place += 1
    return most


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
