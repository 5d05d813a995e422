"""What is seen while lines are sent: replies, messages, a bar or a prompt."""

import sys
from collections.abc import Callable

from sockservice.cli.columns import columns, folded
from sockservice.cli.progress import Bar
from sockservice.cli.send.output import ReplyWriter
from sockservice.cli.send.terminal import NOTICE, UNASKED, Terminal
from sockservice.cli.text import printable, tell

#: Lines that nobody asked for, and replies that were not accepted, that are shown.
SHOWN = 3


class Display:
    """Shows all of it without one thing running into another.

    `typed`: somebody types on the terminal, where a bar would be in the way.
    """

    def __init__(self, writer: ReplyWriter, prompt: Terminal | None, typed: bool) -> None:
        self._writer = writer
        self._prompt = prompt
        self._bar = Bar(typed)
        self._unasked = self._discarded = 0
        #: Whether a bar is to be drawn now and then.
        self.draws = self._bar.there

    @property
    def writing(self) -> bool:
        """Whether replies are being written; a signal may raise Interrupted then."""
        return self._writer.writing

    def write(self, choose: Callable[[ReplyWriter], list[bytes]]) -> None:
        """Write to stdout what `choose` gives.

        :raises OSError: It can't be written.
        """
        if not (lines := choose(self._writer)):
            return
        if self._writer.terminal:
            with self._bar.aside():
                self._writer.write(lines)
        else:
            self._writer.write(lines)

    def say(self, text: str) -> None:
        """Write a message to stderr."""
        self._say(NOTICE, text.encode(), "")

    def sum(self, text: str) -> None:
        """Write a sum to stderr; on a terminal folded to its columns."""
        terminal = sys.stderr is not None and sys.stderr.isatty()
        for line in folded(text, columns(sys.stderr) - len(NOTICE)) if terminal else [text]:
            self.say(line)

    def unasked(self, line: bytes) -> None:
        """Write to stderr a line that answers none; the first SHOWN, but at a prompt all."""
        self._unasked += 1
        if self._unasked <= SHOWN or self._prompt is not None:
            self._say(UNASKED, line, "unasked: ")

    def discarded(self, number: int, why: bytes) -> None:
        """Write to stderr why the reply to a line was not accepted; the first SHOWN times."""
        self._discarded += 1
        if self._discarded <= SHOWN:
            self.say(f"line {number}: {why.decode()}")

    def _say(self, mark: bytes, line: bytes, word: str) -> None:
        if self._prompt is not None:
            self._prompt.show(mark + printable(line))
            return
        with self._bar.aside():
            tell(word + printable(line).decode())

    def draw(self, drawn: Callable[[int], str]) -> None:
        """Show the bar, whose text `drawn` gives for a number of columns."""
        self._bar.show(drawn(self._bar.width))

    def interrupted(self) -> None:
        """Begin another line, for a key that was typed sent a signal."""
        if self._prompt is None:
            self._bar.interrupted()

    def close(self) -> None:
        """Show what is pending, and no bar any more."""
        self._bar.clear()
        if self._prompt is not None:
            self._prompt.flush()
