"""Set up the prompt of `sockservice send`: with a line editor if there is one."""

import asyncio
import os
import sys
from importlib.util import find_spec
from typing import Any

from twisted.internet import asyncioreactor

from sockservice.cli.send.terminal import Plain, Terminal
from sockservice.cli.text import tell


def install() -> None:
    """Install the reactor that the line editor needs, if available, before any other is."""
    # On a dumb terminal no line can be edited.
    if find_spec("prompt_toolkit") and os.environ.get("TERM", "dumb") != "dumb":
        loop = asyncio.new_event_loop()
        # With --retry the editor begins before the reactor runs, and has to find its loop.
        asyncio.set_event_loop(loop)
        asyncioreactor.install(loop)


def terminal(reactor: Any) -> Terminal:
    """Return the terminal; with a line editor if `install` has installed its reactor."""
    if isinstance(reactor, asyncioreactor.AsyncioSelectorReactor):
        # Imported late: it takes longer to load than the rest of the command.
        from sockservice.cli.send.editor import Editor, historyPath

        return Editor(historyPath(os.environ))
    if not find_spec("prompt_toolkit"):
        tell("for a line editor with a history, install sockservice[prompt]")
    return Plain(reactor, sys.stdin.fileno())
