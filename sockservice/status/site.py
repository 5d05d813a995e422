"""What is served where: the page, its events, the state, the metrics and the health."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.logger import Logger
from twisted.web import http

from sockservice.limits.lograte import Journal
from sockservice.status.channel import NOTHING, SAFE, Channel, phrase
from sockservice.status.events import Streams, written
from sockservice.status.health import Health, Verdict
from sockservice.status.hosts import Hosts
from sockservice.status.metrics import Metrics
from sockservice.status.overview import Overview
from sockservice.status.page import Page, sections

log = Logger()

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


#: Responses that are kept until the next sample.
MADE = 16


class Response(NamedTuple):
    """A whole response."""

    status: int
    kind: str
    body: bytes
    policy: str = NOTHING
    more: tuple[tuple[str, str], ...] = ()


class Refusing(Exception):
    """A request is refused; the text says why, on one line."""

    def __init__(self, status: int, text: str, *more: tuple[str, str]) -> None:
        super().__init__(text)
        self.status = status
        self.more = more


class Site:
    """Answers requests from `overview` and `health`; changes nothing, whatever it is asked."""

    def __init__(
        self,
        overview: Overview,
        health: Health,
        hosts: Hosts,
        streams: Streams,
        journal: Journal,
    ) -> None:
        #: Bounds what is logged of requests.
        self.journal = journal
        self._overview = overview
        self._health = health
        self._hosts = hosts
        self.streams = streams
        self._page = Page()
        self._made: dict[tuple[str, str], Response] = {}
        self._metrics = Metrics(overview, health)
        self._paths: dict[bytes, Callable[[http.Request], Response | None]] = {
            b"/": lambda request: self._once(self._index, ""),
            b"/metrics": lambda request: self._once(self._scrape, _accepted(request)),
            b"/health/live": lambda _: _judged(health.live()),
            b"/health/ready": lambda _: _judged(health.ready()),
            b"/status.json": lambda request: self._once(self._whole, ""),
            b"/events": self._events,
        }

    def state(self) -> dict[str, Any]:
        """Return all that the page shows."""
        return {**self._changing(), "options": self._overview.options()}

    def event(self) -> dict[str, str]:
        """Return the sections of the page, for one that has none yet."""
        return sections(self.state())

    def _changing(self) -> dict[str, Any]:
        """Return what changes by itself."""
        return {
            **self._overview.state(),
            "health": self._health.state(),
            "history": self._overview.history,
        }

    def look(self) -> None:
        """Take a sample, and tell all pages; to be called each second."""
        self._overview.look()
        self._made.clear()
        if self.streams:
            self.streams.send(sections(self._changing()))

    def answer(self, request: http.Request) -> Response | None:
        """Return the response; None is one that goes on.

        :raises Refusing: There is none.
        """
        self._check(request)
        found = self._paths.get(request.path)
        if found is None:
            paths = " ".join(sorted(each.decode() for each in self._paths))
            raise Refusing(404, f"here are {paths}")
        return found(request)

    def _check(self, request: http.Request) -> None:
        if request.method not in (b"GET", b"HEAD"):
            raise Refusing(405, "only GET and HEAD", ("Allow", "GET, HEAD"))
        named = _header(request, b"host")
        if len(named) != 1 and (named or request.clientproto == b"HTTP/1.1"):
            raise Refusing(400, "a request has one Host header (RFC 9112, 3.2)")
        address = getattr(request.channel.getHost(), "host", None)
        if named and not self._hosts.permits(named[0], address):
            raise Refusing(421, "the Host header names another; --status-host NAME permits one")

    def _once(self, make: Callable[[str], Response], accept: str) -> Response:
        """Make a response once for each sample: however many ask, lines do not wait for it."""
        key = make.__name__, accept
        found = self._made.get(key)
        if found is None:
            if len(self._made) >= MADE:
                self._made.clear()
            found = self._made[key] = make(accept)
        return found

    def _whole(self, _: str) -> Response:
        return Response(200, JSON, _json(self.state()))

    def _index(self, _: str) -> Response:
        return Response(
            200, "text/html; charset=utf-8", self._page.made(self.state()), self._page.policy
        )

    def _scrape(self, accept: str) -> Response:
        found = self._metrics.scrape(accept)
        if found is None:
            raise Refusing(501, "metrics need prometheus_client: pip install 'sockservice[status]'")
        kind, body = found
        return Response(200, kind, body)

    def _events(self, request: http.Request) -> Response | None:
        if request.method == b"HEAD":
            return Response(200, "text/event-stream", b"")
        if self.streams.full:
            raise Refusing(503, "too many pages are open; try again later", ("Retry-After", "10"))
        return None


def requests(site: Site) -> type[http.Request]:
    """Return the class of the requests that `site` answers."""

    class SiteRequest(http.Request):
        channel: Channel

        def process(self) -> None:
            counters = self.channel.factory.counters
            counters.statusRequests += 1
            try:
                response = site.answer(self)
            except Refusing as refused:
                counters.statusRefused += 1
                counters.reason("statusRefused", str(refused.status))
                text = f"{refused.status} {phrase(refused.status)}: {refused}\n".encode()
                response = Response(refused.status, TEXT, text, more=refused.more)
            except Exception:
                if site.journal.admits("a request for the status page failed"):
                    log.failure("a request for the status page failed")
                response = Response(500, TEXT, b"500 Internal Server Error\n")
            self._respond(response)

        def _respond(self, response: Response | None) -> None:
            stream = response is None
            if response is None:
                response = Response(200, "text/event-stream", b"")
            self.setResponseCode(response.status, phrase(response.status).encode())
            self.setHeader("Content-Type", response.kind)
            self.setHeader("Content-Security-Policy", response.policy)
            for name, value in (*SAFE, *response.more):
                self.setHeader(name, value)
            if stream:
                # A first event at once, or nothing would be sent until the next.
                self.write(written(site.event()))
                site.streams.add(self)
                return
            self.setHeader("Content-Length", str(len(response.body)))
            if not self.channel.answering():
                self.setHeader("Connection", "close")
            self.write(response.body)
            self.finish()

    return SiteRequest


def _header(request: http.Request, name: bytes) -> list[str]:
    """Return the values of a header, of whatever bytes they are; RFC 9110, 5.5."""
    return [each.decode("latin-1") for each in request.requestHeaders.getRawHeaders(name, [])]


def _accepted(request: http.Request) -> str:
    return ",".join(_header(request, b"accept"))


def _judged(verdict: Verdict) -> Response:
    state = {"status": "ok" if verdict.well else "unavailable", "why": verdict.why}
    return Response(verdict.status, JSON, _json(state))


def _json(state: dict[str, Any]) -> bytes:
    return json.dumps(state, separators=(",", ":")).encode() + b"\n"
