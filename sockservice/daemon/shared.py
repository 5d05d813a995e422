"""What all listeners of a process have in common."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sockservice.daemon.services import (
    DRAIN_TIMEOUT,
)
from sockservice.limits.admission import Admission
from sockservice.limits.counters import Counters
from sockservice.limits.lograte import Journal
from sockservice.limits.memory import Memory
from sockservice.limits.rejection import Turning
from sockservice.net.bind.options import SocketOption
from sockservice.net.bind.reuseport import Ask, asked
from sockservice.server.line import LINE_LIMIT
from sockservice.server.reversedns import Names
from sockservice.store.groupcommit import Store

#: Connections the kernel may hold before accept: as many as Linux allows since
#: 5.4 (net.core.somaxconn). With Twisted's 50, a burst of 200 waits a second.
BACKLOG = 4096


class Shared(NamedTuple):
    """What all listeners of a process have in common."""

    reactor: Any
    counters: Counters
    #: UDP ports of the process: what one of them sends to another goes in circles.
    ownPorts: set[int]
    admission: Admission
    turning: Turning
    memory: Memory
    journal: Journal
    backlog: int = BACKLOG
    lineLimit: int = LINE_LIMIT
    verbose: bool = False
    #: Set on every listening socket, and so on its connections: (level, option, value).
    socketOptions: Sequence[SocketOption] = ()
    #: Whether HTTP requests are lines like any other.
    http: bool = False
    #: Whether connections are logged that bring nothing.
    silent: bool = True
    names: Names | None = None
    store: Store | None = None
    #: Watches connections in the reactor's place.
    descriptors: Any = None
    drainTimeout: float = DRAIN_TIMEOUT
    #: Gives listeners their sockets.
    ask: Ask = asked
    #: Whether other processes serve the sockets that are bound in this one.
    held: bool = False
    #: Whether this is one of these processes: another says where they listen.
    inherited: bool = False

    @property
    def stored(self) -> bool:
        """Whether there is a store."""
        return self.store is not None
