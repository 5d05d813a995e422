"""What an option of the service is: its name, its value, and what is told of both."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.python import usage

from sockservice.limits.lograte import Journal
from sockservice.limits.memory import MemoryLimit
from sockservice.limits.readers import NOBODY, ValueReader


class Listening(Protocol):
    """What settings may change of a listener while it serves."""

    #: Seconds until what has not drained is cut.
    drainTimeout: float

    def limitLines(self, most: int) -> None:
        """Let the longest line be of `most` bytes for connections from now on."""


@dataclass(frozen=True)
class Running:
    """What settings may change of the service while it runs."""

    memory: MemoryLimit
    journal: Journal
    #: Gives all listeners.
    listeners: Callable[[], Iterable[Listening]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """An option of the service; help, manual page and documentation are made of it."""

    name: str
    #: What it is, in sentences.
    help: str
    #: Reads and writes its values; a flag, which is given or not, has none.
    reader: ValueReader | None = None
    #: The value where none is given; None, and 0 unless it says otherwise, switches off.
    default: Any = None
    #: Whether 0 is a value like any other.
    zero: bool = False
    #: Why this is the default, to stand behind a colon.
    why: str = ""
    #: One letter that may be given in place of the name.
    short: str | None = None
    #: Whether it may be given again and again. Its reader and its default give sequences, of
    #: which one is made.
    repeated: bool = False
    #: What it protects, where it is a limit.
    protects: str = ""
    #: The counters, in backquotes, which grow when it is met.
    counter: str = ""
    #: The field of :class:`~sockservice.limits.admission.Limits` that it is.
    limit: str = ""
    #: Lets a value hold while the service runs: at its start, and when it is told to read its
    #: files again.
    live: Callable[[Running, Any], None] | None = None
    #: Whether the processes that serve divide it among them.
    divided: bool = False

    @property
    def reloads(self) -> bool:
        """Whether it may change while the service runs; otherwise it takes a restart."""
        return bool(self.limit) or self.live is not None

    @property
    def keyword(self) -> str:
        """Its name as a keyword argument: `lineLimit` for `line-limit`."""
        first, *rest = self.name.split("-")
        return first + "".join(word.capitalize() for word in rest)

    @property
    def usual(self) -> str:
        """The default and why it is that, as `600 s: nobody waits for longer`."""
        written = self.written(self.default)
        return f"{written}: {self.why}" if self.why else written

    def written(self, value: Any) -> str:
        """Write a value for people; `off` is what switches off, or was not given."""
        if self.repeated:
            # A list that was given differs from none, though nothing is in it.
            if not value:
                return "off" if value == self.default else NOBODY
            return ", ".join(str(getattr(each, "text", each)) for each in value)
        if self.reader is None:
            return "on" if value else "off"
        if value is None or (value == 0 and not self.zero):
            return "off"
        return self.reader.write(value)

    @property
    def description(self) -> str:
        """What it is, its default, and whether it may change, in sentences."""
        changes = " Read again at SIGHUP." if self.reloads else ""
        return f"{self.help} Default {self.usual}.{changes}"

    def coerce(self, text: str) -> Any:
        """Give the value that `text` is.

        :raises UsageError: It is none.
        """
        assert self.reader is not None, "a flag has no value"
        try:
            return self.reader.read(text)
        except ValueError as problem:
            raise usage.UsageError(f"--{self.name} {text}: {problem}") from None
