"""Acknowledge lines of a session: each is stored once, in order, whatever breaks."""

from collections.abc import Sequence
from functools import partial

from sockservice.errors import Refused, StoreError
from sockservice.server.ack import Ack
from sockservice.server.phase import SHUT
from sockservice.server.replies import Due
from sockservice.server.storing import Storing
from sockservice.store.engine import Claim, Denied, Mark, Marked, Outcome
from sockservice.wire.session import Hello, Opened


class Session(Ack):
    """Store the lines behind a hello, the first line, and acknowledge each that is durable.

    What the hello and its reply say is in docs/sessions.md. Whatever is refused ends the
    connection, and nothing behind it is stored: the sender asks again where it stands.
    """

    stores = True
    sessions = True
    telnet = False
    refusalEnds = True
    # The lines behind the hello wait until it is answered.
    answerLimit = 1

    _mark: Mark | None = None  # of the lines to come; None before the session is open

    @property
    def _store(self) -> Storing:
        store = self.factory.store
        assert store is not None  # `stores` says so
        return store

    def closed(self) -> None:
        holders = self._store.holders
        if self._mark is not None and holders.get(self._mark.name) is self:
            del holders[self._mark.name]

    def takenOver(self, peer: str) -> None:
        """A newer connection, of `peer`, has opened the session."""
        self.factory.counters.sessionsTakenOver += 1
        # What is on its way to the store comes behind the claim, and is not stored.
        self._replies.drop(None)
        self._dismiss(f"session: taken over by {peer}")

    def _keepAll(self, lines: list[bytes], ending: bytes) -> None:
        due = self._places().expect(len(lines), sum(map(len, lines)), ending)
        store = self._store
        mark = self._mark
        if mark is None:
            self._hello(due, lines[0])
            return
        self._mark = Mark(mark.name, mark.epoch, mark.position + len(lines))
        store.putItems([Marked(self._batch(lines), mark)], partial(self._heard, due))
        self._waitIfFull()

    def _hello(self, due: Due, line: bytes) -> None:
        try:
            hello = Hello.parse(line)
        except ValueError as problem:
            self.factory.counters.sessionsRefused += 1
            self._stored(due, Refused(f"session: {problem}"))
            return
        factory = self.factory
        claim = Claim(
            hello.name,
            self._owner,
            factory.lineLimit,
            hello.at,
            hello.note,
            int(factory.wall() * 1_000_000),
            self.peer,
        )
        self._store.putItems([claim], partial(self._opened, due, hello.name))

    @property
    def _owner(self) -> str:
        """Who opens a session: a certificate's subject, a UNIX user, or "" for nobody known."""
        if self.subject is not None:
            return self.subject
        kind, _, user = (self.source or "").partition(" ")
        return f"uid={user}" if kind == "user" else ""

    def _opened(
        self, due: Due, name: str, problem: StoreError | None, outcomes: Sequence[Outcome]
    ) -> None:
        """The session is open, or why it is not."""
        outcome = outcomes[0] if problem is None else None
        if not isinstance(outcome, Opened):
            self._heard(due, problem, outcomes)
            return
        store = self._store
        before = store.holders.pop(name, None)
        if before is not None:
            before.takenOver(self.peer)
        if self._phase == SHUT:
            return
        store.holders[name] = self
        self.factory.counters.sessionsOpened += 1
        self._mark = Mark(name, outcome.epoch, outcome.position)
        self._intake.framing.limit = outcome.limit
        self.answerLimit = Ack.answerLimit
        self.factory.counters.answered += 1
        self._replies.fill(due, [outcome.encode()])
        self._came()

    def _heard(self, due: Due, problem: StoreError | None, outcomes: Sequence[Outcome]) -> None:
        """Lines are durable, or why they aren't."""
        refused: Refused | None = problem
        if problem is None and outcomes and isinstance(outcomes[0], Denied):
            refused = Refused(outcomes[0].text)
            counters = self.factory.counters
            if due.lines and self._mark is None:
                counters.sessionsRefused += 1
            elif due.lines and outcomes[0].permanent:
                counters.sessionsTakenOver += 1
        self._stored(due, refused)
