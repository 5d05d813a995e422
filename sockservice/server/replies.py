"""Keep replies in order while some of them are awaited."""

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from sockservice.server.answers import awaited, cancel

#: Bytes that an awaited answer takes up, about.
AWAITED_SIZE = 500

#: What is sent for some lines: bytes as they are, or replies that are framed when it is
#: their turn.
Ready = bytes | list[bytes]


class Due:
    """The place of the replies to some lines, which end in `ending`."""

    __slots__ = ("awaited", "ending", "lines", "ready", "size", "turn")

    def __init__(self, lines: int, size: int, ending: bytes) -> None:
        self.lines = lines
        self.size = size
        self.ending = ending
        self.ready: Ready | None = None  # until they are there
        self.awaited: Deferred[Any] | None = None
        #: Fires once no earlier reply is awaited, where somebody wants to know.
        self.turn: Deferred[None] | None = None


class Replies:
    """The replies of one connection, in order, from the first that must be waited for.

    `changed` is called when one has come; `framed` makes bytes of replies and an ending.
    """

    __slots__ = ("_changed", "_due", "_framed", "held", "outstanding")

    def __init__(
        self, changed: Callable[[], None], framed: Callable[[list[bytes], bytes, int], bytes]
    ) -> None:
        self._changed = changed
        self._framed = framed
        self._due: deque[Due] = deque()
        #: Lines whose replies are here.
        self.outstanding = 0
        #: Bytes of these lines and replies.
        self.held = 0

    def put(self, ready: Ready, lines: int, ending: bytes = b"") -> None:
        """Append the replies to `lines` lines."""
        self.fill(self.expect(lines, 0, ending), ready)

    def expect(self, lines: int, size: int, ending: bytes) -> Due:
        """Keep the place of the replies to `lines` lines of `size` bytes; `fill` it later."""
        due = Due(lines, size, ending)
        self._due.append(due)
        self.outstanding += lines
        self.held += size
        return due

    def fill(self, due: Due, ready: Ready) -> None:
        """Put the replies where their place was kept."""
        if isinstance(ready, bytes):
            size = len(ready)
        else:
            size = sum(map(len, ready)) + len(ready) * len(due.ending)
        self.held += size - due.size
        due.size = size
        due.ready = ready

    def only(self, due: Due) -> bool:
        """Whether nothing else is due; then `due` is not any more, and its replies can be sent."""
        if len(self._due) != 1 or self._due[0] is not due:
            return False
        self._due.clear()
        self.outstanding -= due.lines
        self.held -= due.size
        return True

    def wait(
        self, due: Due, answer: object, given: Callable[[Any], Ready], failed: Callable[..., Ready]
    ) -> None:
        """Fill `due` when `answer`, which is awaitable, is there.

        `given` makes replies of it, `failed` of a Failure.
        """
        deferred = awaited(answer)
        self.held += AWAITED_SIZE
        due.size += AWAITED_SIZE
        due.awaited = deferred
        deferred.addCallback(given).addErrback(failed, due.lines).addCallback(self._came, due)

    def drop(self, last: Due | None) -> None:
        """Forget the places behind `last`, or all: what is filled in later is not sent."""
        while self._due and self._due[-1] is not last:
            due = self._due.pop()
            self.outstanding -= due.lines
            self.held -= due.size
            due.lines = due.size = 0

    def turn(self, due: Due) -> Deferred[None]:
        """Return a Deferred that fires when no earlier reply than those of `due` is awaited."""
        turn: Deferred[None] = Deferred()
        due.turn = turn
        if self._due[0] is due:
            turn.callback(None)
        return turn

    def take(self) -> list[bytes]:
        """Return what can be sent: the replies that wait for no earlier one."""
        taken: list[bytes] = []
        while self._due:
            due = self._due[0]
            if due.ready is None:
                break
            self._due.popleft()
            self.outstanding -= due.lines
            self.held -= due.size
            ready = due.ready
            if not isinstance(ready, bytes):
                ready = self._framed(ready, due.ending, due.lines)
            taken.append(ready)
        return taken

    def begin(self) -> None:
        """Tell who waits for its turn that it has come: all before it has been sent."""
        turn = self._due[0].turn if self._due else None
        if turn is not None and not turn.called:
            turn.callback(None)

    def cancel(self) -> None:
        """Await nothing more."""
        due, self._due = self._due, deque()
        for waiting in due:
            answer, waiting.awaited = waiting.awaited, None
            if answer is not None:
                cancel(answer)
        self.held = 0

    def _came(self, ready: Ready, due: Due) -> None:
        if due.awaited is None:
            # It came although it had been cancelled.
            return
        due.awaited = None
        self.fill(due, ready)
        self._changed()


def _nothing(*_: object) -> Any:
    """Never called."""


#: Stands where no answer has had to be awaited yet; nothing is ever put into it.
NONE_AWAITED = Replies(_nothing, _nothing)
