"""Write replies to stdout: as they are, escaped for a terminal, or as JSON."""

import base64
import json
import os
import select
from typing import Any

from sockservice.cli.text import printable


class Interrupted(Exception):
    """A signal arrived while output was being written."""


class ReplyWriter:
    """Writes replies to the file `descriptor`, in the format requested."""

    def __init__(self, descriptor: int, quiet: bool, asJson: bool) -> None:
        self._descriptor = descriptor
        self._quiet = quiet
        self._json = asJson
        self.terminal = os.isatty(descriptor)
        #: Whether something is being written; a signal may raise Interrupted then.
        self.writing = False

    def replies(self, first: int, replies: list[bytes], refused: list[int], took: float) -> None:
        """Write the replies to the lines from number `first` on; `took` is in seconds.

        :raises OSError: It can't be written.
        """
        if self._json:
            chosen = refused if self._quiet else range(len(replies))
            said = [_asJson(first + each, replies[each], took) for each in chosen]
        else:
            said = [replies[each] for each in refused] if self._quiet else replies
            if self.terminal:
                said = [printable(each) for each in said]
        if said:
            self._write(b"\n".join(said) + b"\n")

    def sum(self, **values: Any) -> None:
        """Write the totals, in JSON mode only."""
        if self._json:
            self._write(json.dumps(values).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        self.writing = True
        try:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:
                    # Whoever shares the descriptor has made it non-blocking.
                    select.select([], [self._descriptor], [])
        finally:
            self.writing = False


def _asJson(number: int, reply: bytes, took: float) -> bytes:
    said: dict[str, Any] = {"line": number}
    try:
        said["reply"] = reply.decode()
    except UnicodeDecodeError:
        said["reply_base64"] = base64.b64encode(reply).decode()
    return json.dumps(said | {"seconds": round(took, 6)}).encode()
