"""Read a store that is to be relayed, in a thread: reading may wait for a lock or a disk."""

from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from sockservice.store.objects import COLUMNS, Stored
from sockservice.store.reader import Query, Reader

_QUERY = Query(COLUMNS)


class Look(NamedTuple):
    """The next rows, and the ids that there are."""

    rows: list[Stored]
    #: Lowest id there is, 0 if none.
    lowest: int
    #: Highest id there has ever been.
    highest: int


def look(reader: Reader, after: int) -> Look:
    """Return the next rows behind the id `after`: a page of them, or none.

    :raises Unreadable: As `Reader.page`.
    """
    rows, _ = reader.page(_QUERY, after)
    return Look(rows, *reader.ids())


class StoreRows:
    """Reads the store at `path`.

    :raises Unreadable: There is none.
    """

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self._reader = Reader(path)
        # One thread: a connection to a database belongs to that which has made it.
        self._pool = ThreadPool(minthreads=0, maxthreads=1, name="relay")

    def open(self) -> None:
        """Start the thread."""
        self._pool.start()

    def look(self, after: int) -> Deferred[Look]:
        """Do as the function `look`."""
        return deferToThreadPool(self._reactor, self._pool, look, self._reader, after)

    def identity(self) -> Deferred[bytes | None]:
        """Return the identity of the store, None if it has none."""
        return deferToThreadPool(self._reactor, self._pool, self._reader.identity)

    def close(self) -> None:
        """End the thread, when it has done what it is at."""
        self._pool.callInThread(self._reader.close)
        self._pool.stop()
