"""Write replies to stdout: as they are, escaped for a terminal, or as JSON."""

import base64
import json
import os
import select
from typing import Any

from sockservice.cli.send.terminal import Terminal
from sockservice.cli.text import printable
from sockservice.client.requests import Discarded


class Interrupted(Exception):
    """A signal arrived while output was being written."""


class ReplyWriter:
    """Writes replies to stdout in the format requested; at a prompt, shows them above it."""

    def __init__(self, quiet: bool, asJson: bool, prompt: Terminal | None = None) -> None:
        self._quiet = quiet
        self._json = asJson
        self._prompt = prompt
        self.terminal = os.isatty(1)
        #: Whether something is being written; a signal may raise Interrupted then.
        self.writing = False

    def replies(
        self, first: int, replies: list[bytes], faulty: list[int], took: float
    ) -> list[bytes]:
        """Return what to write of the replies to the lines from number `first` on.

        Those in the places `faulty` are refusals, or :class:`Discarded`; `took` is in seconds.
        """
        if self._json:
            chosen = faulty if self._quiet else range(len(replies))
            return [_asJson(first + each, replies[each], took) for each in chosen]
        said = [replies[each] for each in faulty] if self._quiet else replies
        if faulty:
            said = [each for each in said if not isinstance(each, Discarded)]
        return [printable(each) for each in said] if self.terminal else said

    def sum(self, **values: Any) -> list[bytes]:
        """Return the totals to write, in JSON mode only."""
        return [json.dumps(values).encode()] if self._json else []

    def write(self, lines: list[bytes]) -> None:
        """Write lines.

        :raises OSError: They can't be written.
        """
        if self._prompt is not None:
            for line in lines:
                self._prompt.show(line)
            return
        left = memoryview(b"\n".join(lines) + b"\n")
        self.writing = True
        try:
            while left:
                try:
                    left = left[os.write(1, left) :]
                except BlockingIOError:
                    # Whoever shares the descriptor has made it non-blocking.
                    select.select([], [1], [])
        finally:
            self.writing = False


def _asJson(number: int, reply: bytes, took: float) -> bytes:
    said: dict[str, Any] = {"line": number}
    try:
        # What we say of a reply is never where a reply is.
        said["discarded" if isinstance(reply, Discarded) else "reply"] = reply.decode()
    except UnicodeDecodeError:
        said["reply_base64"] = base64.b64encode(reply).decode()
    return json.dumps(said | {"seconds": round(took, 6)}).encode()
