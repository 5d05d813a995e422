"""Server-sent events: what has changed, once a second, to every page that is open."""

import json
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.web import http
from zope.interface import implementer

#: Events that a peer may leave unread, in seconds, until its stream is cut.
UNREAD = 10


def written(sections: dict[str, str]) -> bytes:
    """Return an event; HTML, Living Standard, 9.2.5."""
    return b"data: " + json.dumps(sections, separators=(",", ":")).encode() + b"\n\n"


@implementer(IPushProducer)
class Stream:
    """One page that is told; what it does not read is left out, not kept."""

    def __init__(self, streams: "Streams", request: http.Request) -> None:
        self._streams = streams
        self._request = request
        self._paused = 0
        self._full = False
        request.registerProducer(self, True)
        request.notifyFinish().addBoth(self._ended)

    def send(self, event: bytes) -> None:
        """Send an event, unless earlier ones were not read."""
        if not self._full:
            self._paused = 0
            self._request.write(event)
            return
        self._paused += 1
        if self._paused >= UNREAD:
            transport: Any = self._request.transport
            transport.abortConnection()

    def _ended(self, _: object) -> None:
        self._streams.left(self)

    # What follows is called by the transport.

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False

    def stopProducing(self) -> None:
        """Do nothing: the request hears of it."""


class Streams:
    """The pages that are open, `most` at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[Stream] = set()

    @property
    def full(self) -> bool:
        """Whether there is no place for one more."""
        return len(self._open) >= self._most

    def __len__(self) -> int:
        return len(self._open)

    def add(self, request: http.Request) -> None:
        """Answer a request with events from now on."""
        self._open.add(Stream(self, request))

    def left(self, stream: Stream) -> None:
        """Forget a page that is gone."""
        self._open.discard(stream)

    def send(self, sections: dict[str, str]) -> None:
        """Tell all pages what their sections are."""
        event = written(sections)
        for each in list(self._open):
            each.send(event)
