"""The interface of storage engines."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from sockservice.wire.session import Opened


class Batch(NamedTuple):
    """Lines of one peer that arrived in one read."""

    #: When, by the server's clock: microseconds since 1970-01-01T00:00:00Z.
    received: int
    peer: str
    listener: str
    lines: list[bytes]


class Mark(NamedTuple):
    """Where in a session lines belong, and by which opening of it they came."""

    name: str
    epoch: int
    #: Lines of the session that stand before them.
    position: int


class Marked(NamedTuple):
    """Lines of a session: stored if it still has the epoch and the position of `mark`."""

    batch: Batch
    mark: Mark


class Claim(NamedTuple):
    """The wish of a new connection to go on with a session, or to begin it."""

    name: str
    #: Who may open it: the subject of a certificate, `uid=N`, or "" for anybody.
    owner: str
    #: Longest line in bytes that is taken now.
    limit: int
    #: The position that it has to have, if that matters.
    at: int | None
    #: What to keep with the position, if anything.
    note: str | None
    #: When, in microseconds since 1970-01-01T00:00:00Z.
    received: int
    peer: str


class Denied(NamedTuple):
    """An item is not carried out; nothing of it is stored."""

    reason: str
    #: Whether trying again would not help.
    permanent: bool

    @property
    def text(self) -> str:
        """What the peer is told, behind `error `."""
        return f"session: {self.reason}" if self.permanent else self.reason


#: What one commit holds, and what becomes of each: None is that it is stored.
Item = Batch | Marked | Claim
Outcome = Opened | Denied | None


class Retention(NamedTuple):
    """How long lines are kept; both limits hold if both are given."""

    #: Seconds since a line was received.
    age: float | None = None
    #: Bytes that the stored lines take up in their file.
    size: int | None = None


#: No line is ever removed.
EVERYTHING = Retention()

#: Sessions in a store: some 200 bytes each, and one for each host or file that sends.
SESSIONS = 100_000
#: Seconds until an unused session is forgotten: a sender was away for a quarter.
SESSION_AGE = 90 * 86400


class Backend(Protocol):
    """A storage engine: blocking, and called from one thread only.

    It may have a method `check() -> str` as well: called instead of `open` where nothing may be
    changed, it returns what is there in a few words, or raises CannotStart.
    """

    def open(self) -> None:
        """Open what is there or make it; recover it.

        :raises ~sockservice.errors.CannotStart: It can't be opened, or can't promise durability.
        """

    def commit(self, batches: list[Batch]) -> Sequence[Any] | None:
        """Store all lines of `batches`, in order. They are durable when it returns.

        :raises StoreError: None of them is stored; or, if it is not `certain`, nobody knows.
            After any other exception nobody knows either.
        """

    def tidy(self) -> bool:
        """Do one small step of maintenance, between commits; return whether there was any to do.

        :raises StoreError: The engine failed.
        """

    def close(self) -> None:
        """Close the store in good order; called once, after a failure too."""


@runtime_checkable
class Figured(Protocol):
    """An engine that tells figures of itself, for the status page."""

    def figures(self) -> Mapping[str, Any]:
        """Return what is known, fit for JSON: `file` and `log`, their bytes; `last`, the last id.

        Of an engine of several nodes also what :mod:`sockservice.store.nats.nodes` has. Called in
        the engine's thread, once a second at most.
        """


class SessionBackend(Backend, Protocol):
    """An engine that keeps sessions, if it is told to.

    It needs an identity that no other store has, nor the same one once it was emptied. A
    :class:`~sockservice.store.sessions.Ledger` decides for it.
    """

    def keepSessions(
        self, most: int = SESSIONS, age: float = 0, expired: Callable[[int], object] = ...
    ) -> None:
        """Keep sessions as well, `most` at most, until they are unused for `age` seconds.

        0 is no limit. Called before `open`, from another thread. `expired` is called in the
        engine's thread with how many were removed.
        """

    def commit(self, batches: Sequence[Item]) -> Sequence[Outcome] | None:
        """Carry out items in order, all that are not denied at once; return what became of each.

        A session and its lines are stored together or not at all. None: all is stored.
        """
