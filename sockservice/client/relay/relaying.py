"""Send what a store holds, and what it is given, on to the next server, exactly once."""

from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.client.relay.place import JSON, PLAIN, RelayNote, inStep, rendered, witness
from sockservice.client.relay.source import Look, StoreRows
from sockservice.client.requests import Unanswered
from sockservice.client.session import (
    Different,
    SessionError,
    SessionSender,
)
from sockservice.client.waiting import Gate
from sockservice.store.objects import Stored
from sockservice.store.reader import Unreadable
from sockservice.wire.framing import CRLF, LF
from sockservice.wire.plurals import counted, plural, ranged
from sockservice.wire.session import Opened, folded

#: Seconds between looks for new lines.
INTERVAL = 0.2
#: Seconds of a rate whose lines are sent together.
AHEAD = 0.5
#: Lines behind a note: at a restart so many at most are compared with those that are stored.
EVERY = 100_000

log = Logger()


class Removed(SessionError):
    """Lines were removed from the store before they were relayed."""


class StoreLost(SessionError):
    """The store that is to be relayed can't be read any more."""


class Readable(Protocol):
    """Where rows come from: a store, read as :class:`StoreRows` does."""

    def open(self) -> None: ...

    def look(self, after: int) -> Deferred[Look]: ...

    def identity(self) -> Deferred[bytes | None]: ...

    def close(self) -> None: ...


class Relay(SessionSender):
    """A service that sends the lines of a store on, each exactly once, as long as it runs.

    `store` is the path of an SQLite store, which a server may be writing to. `name` is the
    session; its row at the next server keeps the place, and nothing is written here. With
    `objects` each line travels as a JSON object with the id, the time received, the peer and
    the listener that it has in this store. A session that is new begins behind the id `after`,
    or with the first line that there is.

    Lines that the session does not take, see `passedOver`, are left out. If lines were removed
    from the store before they were relayed, the relay ends, unless it is to `skip` them: see
    `missed`. When it can't go on, `gaveUp` is called with a :class:`SessionError`. The further
    keywords are those of :class:`SessionSender`. It is started and stopped once.

    :raises Unreadable: There is no such store.
    :raises ValueError: `name` is no name of a session.
    """

    durable = True

    def __init__(
        self,
        reactor: Any,
        store: Any,
        target: Any,
        name: str,
        *,
        objects: bool = False,
        skip: bool = False,
        after: int = 0,
        rate: float | None = None,
        **how: Any,
    ) -> None:
        # A CR at the end of a line would be taken for a part of an LF's ending.
        super().__init__(reactor, target, name, ending=CRLF, rate=rate, **how)
        # At a rate no more than twice this is taken at once, or the end would have to wait for it.
        self._ahead = 0 if rate is None else int(rate * AHEAD) + 1
        self._source: Readable = StoreRows(reactor, store) if isinstance(store, str) else store
        self._form = JSON if objects else PLAIN
        self._skip = skip
        self._after = after
        self._found = Gate(False)  # whether the place is
        self._noted = 0, 0  # id and position of the latest note
        self._due = True  # whether a note is to be given before the next line
        self._read = 0  # the id up to which all was sent, passed over or missed
        self._row: Stored | None = None  # that of this id, if there is one
        self._sending: Deferred[None] = succeed(None)  # the latest lines
        self._running: Deferred[None] = succeed(None)
        self._closed = False
        #: Lines that the session does not take, and that were removed too early.
        self.long = self.missing = 0
        #: Highest id that the store has had.
        self.highest = 0

    @property
    def relayed(self) -> int:
        """The id up to which all is acknowledged."""
        number, position = self._noted
        return number + (self.position or 0) - position

    def passedOver(self, first: int, last: int, why: str) -> None:
        """Report that the lines with these ids are not sent.

        They are longer than the session takes, or hold an LF. This implementation logs it.
        """
        which = f"{ranged(first, last, 'id')} {plural(last - first + 1, 'is', 'are')}"
        log.warn("{which} passed over: {why}", which=which, why=why)

    def missed(self, first: int, last: int) -> None:
        """Report that lines were removed before they were relayed. This implementation logs it."""
        log.warn("{why}", why=_removed(first, last))

    def startService(self) -> None:
        self._source.open()
        super().startService()
        self._running = Deferred.fromCoroutine(self._relay())
        self._running.addErrback(self._ended)

    def stopService(self) -> Deferred[list[bytes]]:
        self._running.cancel()
        return super().stopService().addBoth(self._close)

    def _close(self, result: Any) -> Any:
        if not self._closed:
            self._closed = True
            self._source.close()
        return result

    async def opened(self, opened: Opened) -> None:
        if self._found.isOpen:
            return
        try:
            await self._find(opened)
        except Unreadable as problem:
            raise StoreLost(str(problem)) from problem
        # Lines may be sent once this has returned.
        self._reactor.callLater(0, self._found.open)

    async def _find(self, opened: Opened) -> None:
        """Find the place in the store behind the lines of the session.

        :raises SessionError: It is not there.
        """
        identity = await self._source.identity()
        if identity is not None and identity.hex() == opened.store:
            raise Different("the server stores into this very store, or one is a copy of the other")
        first = await self._source.look(self._after)
        self.highest = first.highest
        if not opened.position and opened.note is None:
            lowest = first.lowest or first.highest + 1
            self._read = place = max(self._after, lowest - 1)
            self._noted = place, 0
        else:
            try:
                note = RelayNote.parse(opened.note or "")
            except ValueError:
                why = f"session {self.session} has lines that no relay has sent"
                raise Different(why) from None
            self._noted = note.id, opened.noted
            self._read = place = self.relayed
            self._due = note.form != self._form
        if place > first.highest:
            raise Different(
                f"the highest id in the store is {first.highest}, and all up to {place} was "
                "relayed: it was emptied, or restored from an older copy"
                if opened.position
                else f"the highest id in the store is {first.highest}, not yet {place}"
            )
        if opened.note is not None:
            await self._compare(note, opened, place)

    async def _compare(self, note: RelayNote, opened: Opened, place: int) -> None:
        """Compare the lines behind the note with those of the session, as far as they are there.

        :raises Different: They are others.
        """
        others = Different(
            f"the lines in the store are not those of session {self.session}: it is another "
            "store, or was restored and written to since"
        )
        rows = (await self._source.look(note.id - 1)).rows
        if rows and rows[0][0] == note.id:
            self._row = rows[0]
            if note.witness not in ("-", witness(self._row)):
                raise others
        at, crc = note.id, opened.notedCrc
        while at < place:
            rows = (await self._source.look(at)).rows[: place - at]
            if not inStep(rows, at):
                return  # Some were removed since they were relayed.
            crc = folded(rendered(rows, note.form), crc)
            self._row = rows[-1]
            at = self._row[0]
        if crc != opened.crc:
            raise others

    async def _relay(self) -> None:
        # What can't be read is told whether or not anybody can be reached.
        await self._source.look(self._after)
        await self._found.wait()
        while not self._stopped:
            found = await self._source.look(self._read)
            self.highest = found.highest
            if found.rows:
                await self._forward(found.rows)
                continue
            if found.highest < self._read:
                raise Different(
                    f"the highest id in the store is {found.highest}, and was {self._read}: "
                    "it was emptied"
                )
            if not found.lowest and found.highest > self._read:
                await self._miss(found.highest)
            elif self._due:
                await self._mark()
            else:
                await deferLater(self._reactor, INTERVAL)

    async def _forward(self, rows: list[Stored]) -> None:
        """Send rows, less what the session does not take."""
        if not inStep(rows, self._read) and rows[0][0] != self._read + 1:
            await self._miss(rows[0][0] - 1)
        lines = rendered(rows, self._form)
        if inStep(rows, self._read) and not any(map(self._unfit, lines)):
            await self._put(lines, rows[-1])
            return
        start = 0
        while start < len(rows):
            if rows[start][0] != self._read + 1:
                await self._miss(rows[start][0] - 1)
            why = self._unfit(lines[start])
            end = start + 1
            while (
                end < len(rows)
                and rows[end][0] == rows[end - 1][0] + 1
                and self._unfit(lines[end]) == why
            ):
                end += 1
            if why:
                self.long += end - start
                self._due = True
                self.passedOver(rows[start][0], rows[end - 1][0], why)
                self._row = rows[end - 1]
                self._read = self._row[0]
            else:
                await self._put(lines[start:end], rows[end - 1])
            start = end

    def _unfit(self, line: bytes) -> str:
        """Return why the session does not take a line, or ""."""
        assert self.limit is not None
        if len(line) > self.limit:
            return f"longer than {counted(self.limit, 'byte')}, the limit of the session"
        return "with a line feed in it" if LF in line else ""

    async def _put(self, lines: list[bytes], last: Stored) -> None:
        if self._due:
            await self._mark()
        step = self._ahead or len(lines)
        for start in range(0, len(lines), step):
            await self.ready()
            if self._stopped:
                return
            before = self._sending
            self._sending = self.sendAll(lines[start : start + step], _acknowledged)
            self._sending.addErrback(lambda failure: failure.trap(Unanswered) and None)
            if self._ahead:
                await before
        self._row = last
        self._read = last[0]
        self._due = self._read - self._noted[0] >= EVERY

    async def _drain(self) -> None:
        await self._sending
        # Not within the handling of the last reply.
        await deferLater(self._reactor, 0)
        if self._stopped:
            raise Unanswered(self._stopped)

    async def _mark(self) -> None:
        """Give a note, so that ids and positions are in step behind it."""
        await self._drain()
        row = self._row if self._row is not None and self._row[0] == self._read else None
        note = RelayNote(self._form, self._read, witness(row)).encode()
        await self.mark(note)
        self._noted = self._read, self.position or 0
        self._due = False

    async def _miss(self, last: int) -> None:
        """Go on behind the id `last`, if that is wanted.

        :raises Removed: It is not.
        """
        first = self._read + 1
        if not self._skip:
            await self._drain()
            raise Removed(_removed(first, last))
        self.missing += last - self._read
        self._read, self._row, self._due = last, None, True
        self.missed(first, last)

    def _ended(self, failure: Failure) -> None:
        if failure.check(CancelledError, Unanswered):
            return
        if failure.check(Unreadable):
            failure = Failure(StoreLost(failure.getErrorMessage()))
        elif not failure.check(SessionError):
            log.failure("the relay of session {name} failed", failure, name=self.session)
        self._fail(failure)


def _acknowledged(replies: list[bytes]) -> None:
    """Take replies: what counts of them is the position."""


def _removed(first: int, last: int) -> str:
    count = last - first + 1
    which = ranged(first, last, "id")
    return (
        f"{counted(count, 'line')} ({which}) {plural(count, 'was', 'were')} removed from the store "
        f"before {plural(count, 'it was', 'they were')} relayed"
    )
