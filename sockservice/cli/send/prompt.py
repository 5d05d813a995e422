"""Set up the prompt of `sockservice send`: with a line editor if there is one."""

import asyncio
import os
import sys
from importlib.util import find_spec
from typing import Any

import click
from twisted.internet import asyncioreactor

from sockservice.cli.send.conversation import Conversation
from sockservice.cli.send.terminal import WINDOW, Plain, Terminal
from sockservice.client.datagram import DatagramClient
from sockservice.client.line import LineClient


def install() -> None:
    """Install the reactor that the line editor needs, if available, before any other is."""
    # On a dumb terminal no line can be edited.
    if find_spec("prompt_toolkit") and os.environ.get("TERM", "dumb") != "dumb":
        asyncioreactor.install(asyncio.new_event_loop())


async def converse(
    reactor: Any, client: LineClient | DatagramClient, timeout: float, window: int = WINDOW
) -> tuple[int, str]:
    """Send what is typed and show what arrives, until either side ends it.

    `client` is connected; `timeout` is in seconds, for each reply; at most `window`
    lines are in flight. Returns the exit status and a last message, or "". Has a
    line editor if `install` has installed its reactor.
    """
    terminal: Terminal
    if isinstance(reactor, asyncioreactor.AsyncioSelectorReactor):
        # Imported late: it takes longer to load than the rest of the command.
        from sockservice.cli.send.editor import Editor, historyPath

        terminal = Editor(historyPath(os.environ))
    else:
        if not find_spec("prompt_toolkit"):
            click.echo("for a line editor with a history, install sockservice[prompt]", err=True)
        terminal = Plain(reactor, sys.stdin.fileno())
    return await Conversation(reactor, client, terminal, timeout, window).run()
