"""The line editor at the prompt: prompt_toolkit on the loop of Twisted's asyncio reactor."""

import asyncio
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit import history as histories
from prompt_toolkit.input import Input
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from twisted.internet.defer import Deferred

from sockservice.cli.send.terminal import PROMPT, Left

#: Lines of history that are kept at least; at most twice as many.
HISTORY = 10_000


class _Stopped(Exception):
    """The end of input."""


class Editor:
    """A terminal with a line editor; output appears above the line being edited.

    Needs a running asyncio loop, as that of Twisted's asyncio reactor.
    """

    def __init__(
        self, history: Path, input: Input | None = None, output: Output | None = None
    ) -> None:
        output = create_output() if output is None else output
        if isinstance(output, Vt100_Output):
            # Only menus need the position of the cursor, and not every terminal reports it.
            output.enable_cpr = False
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            history=History(history),
            enable_suspend=True,
            # KeyboardInterrupt would break the reactor's loop, not only the task.
            interrupt_exception=Left,
            eof_exception=_Stopped,
            input=input,
            output=output,
        )
        self._app = self._session.app
        # The line being edited stays visible, however much output there is.
        self._app.max_render_postpone_time = None
        self._output = output
        self._shown: list[bytes] = []
        self._stopped = False

    @property
    def typed(self) -> bool:
        """Whether the line being edited holds text that was not entered."""
        return bool(self._session.default_buffer.text)

    def read(self) -> Deferred[list[bytes] | None]:
        """Return the lines entered, None at the end of input; fails with Left."""
        return Deferred.fromFuture(asyncio.ensure_future(self._read()))

    async def _read(self) -> list[bytes] | None:
        try:
            text = await self._session.prompt_async(
                pre_run=self._exitIfStopped, handle_sigint=False, set_exception_handler=False
            )
        except (_Stopped, OSError):
            # An error of a terminal that has gone.
            return None
        # Pasted text may be several lines, with or without the ending of the last.
        entered = text.removesuffix("\n").split("\n")
        return [line.encode("utf-8", "surrogateescape") for line in entered]

    def show(self, line: bytes) -> None:
        """Show `line`, already escaped, above the line being edited."""
        if not self._shown:
            asyncio.get_running_loop().call_soon(self.flush)
        self._shown.append(line)

    def flush(self) -> None:
        """Show pending output now."""
        shown, self._shown = self._shown, []
        if not shown:
            return
        # Not run_in_terminal: it lets the terminal echo what is typed meanwhile.
        typing = self._app.is_running
        if typing:
            self._app.renderer.erase()
        self._output.write_raw("".join(f"{line.decode()}\n" for line in shown))
        with suppress(OSError):
            self._output.flush()
        if typing:
            self._app.invalidate()

    def stop(self) -> None:
        """End the current call of `read`, or else the next."""
        self._stopped = True
        self._exitIfStopped()

    def interrupted(self) -> None:
        """Do nothing: the terminal echoes no keys."""

    def _exitIfStopped(self) -> None:
        typing = self._app.future
        if self._stopped and typing is not None and not typing.done():
            self._app.exit(exception=_Stopped)


class History(histories.History):
    """The lines entered, in earlier runs too: one per line of the file `path`.

    If the file cannot be read or written, only those of this run.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def load_history_strings(self) -> Iterable[str]:
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except OSError:
            return []
        if len(lines) > 2 * HISTORY:
            lines = lines[-HISTORY:]
            self._replace(lines)
        latest = reversed(lines)
        return [line.rstrip(b"\n").decode("utf-8", "surrogateescape") for line in latest]

    def append_string(self, string: str) -> None:
        for line in filter(None, string.split("\n")):
            super().append_string(line)

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(self._path, os.O_APPEND, [f"{string}\n".encode("utf-8", "surrogateescape")])

    def _replace(self, lines: list[bytes]) -> None:
        written = self._path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            self._write(written, os.O_EXCL, lines)
            written.replace(self._path)

    def _write(self, path: Path, how: int, lines: list[bytes]) -> None:
        # Lines sent are private.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600), "wb") as file:
            file.writelines(lines)


def historyPath(environment: Mapping[str, str]) -> Path:
    """Return the path of the history, as the XDG Base Directory Specification has it."""
    state = Path(environment.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():
        state = Path(os.path.expanduser("~/.local/state"))
    return state / "sockservice" / "history"
