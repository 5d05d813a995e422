"""Reverse lookups for the log: never waited for, never trusted."""

import socket
from collections import OrderedDict
from contextlib import suppress
from signal import SIG_BLOCK, pthread_sigmask, valid_signals
from threading import Thread
from typing import Any

from twisted.logger import Logger

from sockservice.limits.lograte import Journal

#: Hosts whose names are remembered.
KNOWN = 1000
#: Lookups under way at once; a host that comes when there are more stays nameless.
UNDER_WAY = 20

log = Logger()


class Names:
    """Log the name that a peer's address has, as soon as it is known.

    The name is what the owner of the address says (a PTR record), and nothing
    depends on it. What no server answers is abandoned when the process ends. `journal` bounds
    what is logged.
    """

    def __init__(self, reactor: Any, journal: Journal) -> None:
        self._reactor = reactor
        self._journal = journal
        self._known: OrderedDict[str, str] = OrderedDict()
        self._underWay = 0

    def look(self, peer: str, host: str) -> None:
        """Log the name of `host`, from where `peer` has come."""
        if host in self._known:
            self._say(self._known[host], peer)
        elif self._underWay < UNDER_WAY:
            self._underWay += 1
            try:
                # The reactor would wait at its end for the threads of its own pool.
                Thread(target=self._ask, args=(peer, host), name="name", daemon=True).start()
            except (RuntimeError, MemoryError):
                # The system starts no more threads.
                self._underWay -= 1

    def _ask(self, peer: str, host: str) -> None:
        # They are to interrupt what the main thread waits for.
        pthread_sigmask(SIG_BLOCK, valid_signals())
        name = ""
        with suppress(OSError, UnicodeError, MemoryError):
            name = socket.gethostbyaddr(host)[0]
        self._reactor.callFromThread(self._found, name, peer, host)

    def _found(self, name: str, peer: str, host: str) -> None:
        self._underWay -= 1
        self._known[host] = name
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
        self._say(name, peer)

    def _say(self, name: str, peer: str) -> None:
        if name and self._journal.admits("names of peers"):
            log.info("{peer} is called {name}, says its address", peer=peer, name=ascii(name)[1:-1])
