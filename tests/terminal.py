"""A program on a terminal of its own."""

import os
import re
import select
import subprocess
import sys
import termios
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

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
        **environment: str,
    ) -> None:
        self._terminal, theirs = os.openpty()
        opened.callback(os.close, self._terminal)
        termios.tcsetwinsize(theirs, (24, 80))
        path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
        self.printed = ""
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LOGIN, str(theirs), *command],
            cwd=folder,
            env=os.environ | {"PATH": path, "TERM": "xterm", "LC_ALL": "C.UTF-8"} | environment,
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
            left = max(0.0, deadline - monotonic())
            assert select.select([self._terminal], [], [], left)[0], self.printed
            try:
                data = os.read(self._terminal, 65536)
            except OSError:
                # How a terminal says that all programs on it have ended.
                raise AssertionError(f"{pattern!r} never came: {self.printed!r}") from None
            self.printed += data.decode(errors="replace")
        self.printed = self.printed[found.end() :]

    def end(self) -> int:
        """Wait for its end; give the exit status."""
        return self.process.wait(PATIENCE)
