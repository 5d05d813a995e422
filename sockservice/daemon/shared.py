"""What all listeners of a process have in common."""

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from time import time
from typing import Any, NamedTuple

from sockservice.limits.admission import Admission
from sockservice.limits.counters import CounterSet
from sockservice.limits.lograte import Journal
from sockservice.limits.memory import MemoryLimit
from sockservice.limits.rejection import Rejector
from sockservice.limits.settings import SETTINGS
from sockservice.net.bind.reuseport import Ask, asked
from sockservice.net.bind.sockets import BINDING, Sockets
from sockservice.server.reversedns import Names
from sockservice.store.groupcommit import Store


class Shared(NamedTuple):
    """What all listeners of a process have in common."""

    reactor: Any
    #: The value of each option, by its name.
    options: Mapping[str, Any]
    #: Those of each listener; of "" those that belong to none.
    counters: CounterSet
    #: UDP ports of the process: what one of them sends to another goes in circles.
    ownPorts: set[int]
    admission: Admission
    rejector: Rejector
    memory: MemoryLimit
    journal: Journal
    #: Tells the time of day, for what is stored; limits go by the reactor's.
    wall: Callable[[], float] = time
    names: Names | None = None
    store: Store | None = None
    #: Watches connections in the reactor's place.
    descriptors: Any = None
    #: Gives listeners their sockets.
    ask: Ask = asked
    #: Binds these sockets, or plans them.
    sockets: Sockets = BINDING
    #: Whether other processes serve the sockets that are bound in this one.
    held: bool = False
    #: Whether this is one of these processes: another says where they listen.
    inherited: bool = False
    #: The value of each option that holds now: of those that may change, the latest.
    inForce: dict[str, Any] = {}

    @property
    def stored(self) -> bool:
        """Whether there is a store."""
        return self.store is not None

    def keywords(self, made: type, **own: Any) -> dict[str, Any]:
        """Return the keyword arguments for `made` that are named here, in `own` or by an option.

        What is named here goes before an option of that name, and `own` before both. An
        option named `line-limit` is the argument `lineLimit`.
        """
        options = {each.keyword: self.options[each.name] for each in SETTINGS}
        counters = self.counters[own.get("listener", "")]
        known = {**options, **self._asdict(), "counters": counters, **own}
        return {
            each.name: known[each.name]
            for each in signature(made).parameters.values()
            if each.kind is Parameter.KEYWORD_ONLY and each.name in known
        }
