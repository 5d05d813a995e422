"""Several targets of which one is used at a time, each in its turn."""

import re
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

from sockservice.client.targets import SCHEMES, framingOf, isDatagram, streamEndpoint

# A comma, and what begins a target behind it.
_NEXT = re.compile(rf",(?=(?:{'|'.join(SCHEMES)}):|(?:\[[^\],]*\]|[^:\[\],]+):[0-9]+(?:,|$))")


def separated(text: str) -> list[str]:
    """Return the targets in `text`, which commas separate.

    A comma behind which no target begins, as in the path of a socket, is a part of one.
    """
    return _NEXT.split(text)


@implementer(IStreamClientEndpoint)
class Failover:
    """Connects to one of several endpoints, which come with names; `next` goes on to another."""

    def __init__(self, targets: Sequence[tuple[str, Any]], framing: Any = None) -> None:
        self._targets = list(targets)
        self._at = 0
        self._several = len(targets) > 1
        #: The framing that all of them need, if they need one.
        self.framing = framing

    @classmethod
    def of(cls, reactor: Any, targets: Sequence[Any], **how: Any) -> "Failover":
        """Make one of targets, each a stream as :func:`connect` takes it or a client endpoint.

        `how` are keywords of :func:`streamEndpoint`.

        :raises ValueError: One is neither, or some have a framing that others have not.
        """
        named = [each for each in targets if isinstance(each, str)]
        if any(map(isDatagram, named)):
            raise ValueError("datagrams have no connection to be kept")
        framings = {framingOf(each) if isinstance(each, str) else None for each in targets}
        if len(framings) > 1:
            schemes = [each.partition(":")[0] for each in named if framingOf(each)]
            raise ValueError(f"{schemes[0]}: and other targets don't go together")
        return cls(
            [
                (each, streamEndpoint(reactor, each, **how))
                if isinstance(each, str)
                else (str(each), each)
                for each in targets
            ],
            framings.pop() if framings else None,
        )

    def __len__(self) -> int:
        return len(self._targets)

    @property
    def name(self) -> str:
        """The name of the one in use, if there are or were several; otherwise ""."""
        return self._targets[self._at][0] if self._several else ""

    def next(self) -> None:
        """Use the next one from now on, behind the last the first."""
        self._at = (self._at + 1) % len(self._targets)

    def exclude(self) -> bool:
        """Never use this one again, but the next; return False if there is no other."""
        if len(self._targets) == 1:
            return False
        del self._targets[self._at]
        self._at %= len(self._targets)
        return True

    def connect(self, factory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self._targets[self._at][1].connect(factory)
        return connecting
