"""Where acknowledged lines are kept: the interface of an engine, and how one is chosen."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from sockservice import imports
from sockservice.answers import Refused


class Batch(NamedTuple):
    """Lines of one peer that arrived in one read."""

    #: When, by the server's clock: microseconds since 1970-01-01T00:00:00Z.
    received: int
    peer: str
    listener: str
    lines: list[bytes]


class Retention(NamedTuple):
    """How long lines are kept; both limits hold if both are given."""

    #: Seconds since a line was received.
    age: float | None = None
    #: Bytes that the stored lines take up in their file.
    size: int | None = None


#: What is kept for good.
EVERYTHING = Retention()


class StoreError(Refused):
    """Lines were not stored; the text is the reason, fit for a reply.

    `retry`: storing may work again later by itself. Without it the engine will
    never store anything again.
    """

    def __init__(self, reason: str, *, retry: bool) -> None:
        super().__init__(f"not stored: {reason}")
        self.reason = reason
        self.retry = retry


class Backend(Protocol):
    """A storage engine: blocking, and called from one thread only."""

    def open(self) -> None:
        """Open what is there or make it; recover it.

        :raises ~sockservice.starting.CannotStart: It can't be opened, or can't promise durability.
        """

    def commit(self, batches: list[Batch]) -> None:
        """Store all lines of `batches`, in order. They are durable when it returns.

        :raises StoreError: None of them is stored.
        """

    def tidy(self) -> bool:
        """Do one small step of upkeep; called between commits. False: nothing was left to do.

        :raises StoreError: The engine failed.
        """

    def close(self) -> None:
        """Leave everything in good order; called once, also after a failure."""


def _sqlite(path: str, retention: Retention) -> Backend:
    from sockservice.store.sqlite import SQLite

    return SQLite(path, retention)


#: The engines, by the scheme of a store's URL.
ENGINES: dict[str, Callable[[str, Retention], Backend]] = {"sqlite": _sqlite}


def backend(url: str, retention: Retention) -> Backend:
    """Give the engine for a store's URL, `SCHEME:PLACE`; it removes what is not retained.

    The scheme may be `module.Class`, too, which is called as those in `ENGINES` are.

    :raises ValueError: There is no such engine, or no place is named.
    """
    scheme, _, place = url.partition(":")
    if scheme not in ENGINES and not (place and "." in scheme.strip(".")):
        raise ValueError(f"no store called {scheme!a}; there is {', '.join(ENGINES)}:PATH")
    if not place:
        raise ValueError(f"{url}: no path")
    if scheme in ENGINES:
        return ENGINES[scheme](place, retention)
    try:
        module, _, engine = scheme.rpartition(".")
        made: Backend = getattr(imports.module(module), engine)(place, retention)
    except (Exception, SystemExit) as problem:
        raise ValueError(f"{type(problem).__name__}: {problem}") from problem
    return made
