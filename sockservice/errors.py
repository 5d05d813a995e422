"""What is refused, and what keeps the service from starting: the exceptions of the package."""

from sockservice.wire.escaping import printable


class Refused(Exception):
    """Raise it from an answer to refuse a line: its text follows `error ` in the reply.

    It is no failure: nothing is logged but the count of refusals.
    """


class CannotStart(SystemExit, Exception):
    """The service cannot start; the text is one line for whoever started it, and is made so.

    As a SystemExit it ends the process with status 1 and no traceback. As an
    Exception it lets twistd remove its pidfile, or report from a daemon, first.
    """

    code: int

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))
        self.code = 1


class Untimely(CannotStart):
    """The service was told to end before it was ready; status 0."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = 0


class CannotListen(CannotStart):
    """A listener cannot come up."""


class StoreError(Refused):
    """Lines may not be acknowledged; the text is the reason, fit for a reply.

    `retry`: storing may work again later by itself. Without it the engine will
    never store anything again. `certain`: none of the lines is in the store, now or after
    a restart. Without it nobody can say, and the text is `unknown: REASON`.
    """

    def __init__(self, reason: str, *, retry: bool, certain: bool = True) -> None:
        super().__init__(f"{'not stored' if certain else 'unknown'}: {reason}")
        self.reason = reason
        self.retry = retry
        self.certain = certain

    def untried(self) -> "StoreError":
        """Return what to tell of lines that have not even been given to the engine."""
        return self if self.certain else StoreError(self.reason, retry=self.retry)
