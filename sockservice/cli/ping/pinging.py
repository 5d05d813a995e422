"""Send probes on schedule, and wait for the fate of each."""

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from sockservice.cli.ping.link import LineLink, Link
from sockservice.cli.ping.report import Printer
from sockservice.cli.status import NOT_ALL, NOT_CONNECTED
from sockservice.client.farewell import rejected
from sockservice.client.requests import Discarded
from sockservice.measure.probes import Event, Fate, Probes
from sockservice.wire.plurals import counted

#: Bytes that a server may leave unanswered on a stream before probes are withheld.
UNANSWERED = 4 * 1024 * 1024
#: Seconds until a probe for which the system had no room is tried again.
RETRY = 0.01
#: Least seconds to wait for a second reply to the last probe.
LINGER = 0.02


class Pinging:
    """Sends `count` probes on schedule and reports the fate of each."""

    def __init__(
        self,
        clock: Any,
        now: Callable[[], float],
        link: Link,
        probes: Probes,
        *,
        report: Printer,
        count: int | None,
        interval: float,
        flood: int | None,
    ) -> None:
        self._clock = clock
        self._now = now
        self._link = link
        self._probes = probes
        self._report = report
        self._count = count
        self._interval = interval
        self._flood = flood
        self._due = 0.0
        self._sending: Any = None
        self._expiring: Any = None
        self._ending: Any = None
        self._refused = False
        self._refusal = ""  # the last
        self._done: Deferred[tuple[int, str]] | None = Deferred()
        link.received = self._received
        link.refused = self._wasRefused
        link.ended = self._ended

    def run(self) -> Deferred[tuple[int, str]]:
        """Send all probes, wait for all replies; fires with the exit status and a message or ""."""
        assert self._done is not None
        done = self._done
        self._report.begin()
        self._due = self._now()
        self._send()
        return done

    def stop(self, status: int, why: str) -> None:
        """End now, for a signal has come; probes without a reply are not counted as lost."""
        self._finish(why, status)

    def _send(self) -> None:
        """Send the probes that are due."""
        self._sending = None
        probes = self._probes
        while self._done is not None and self._may():
            now = self._now()
            if not self._flood and now < self._due:
                self._sending = self._clock.callLater(self._due - now, self._send)
                break
            if not self._sendOne(now):
                self._sending = self._clock.callLater(RETRY, self._send)
                break
            # Probes that were missed are not made up for.
            self._due = max(self._due, now - self._interval) + self._interval
        if self._done is not None:
            self._watch()
            if probes.count == self._count and not probes.awaited:
                self._linger()

    def _may(self) -> bool:
        probes = self._probes
        if self._count is not None and probes.count >= self._count:
            return False
        return self._flood is None or probes.awaited < self._flood

    def _sendOne(self, now: float) -> bool:
        """Send the next probe; False when there is no room for it now."""
        probes = self._probes
        probe = probes.following
        why = ""
        if isinstance(self._link, LineLink) and probes.unanswered * len(probe) > UNANSWERED:
            why = "too much is unanswered"
        else:
            try:
                self._link.send(probe)
            except BlockingIOError:
                return False
            except ConnectionRefusedError:
                self._wasRefused()
            except OSError as problem:
                why = os.strerror(problem.errno or 0)
        if self._done is not None:
            number = probes.sent(now)
            if why:
                probes.fail(number)
                self._report.note(f"{number}: not sent: {why}")
        return True

    def _received(self, data: bytes) -> None:
        if isinstance(data, Discarded):
            event = self._probes.discard(data)
        else:
            event = self._probes.receive(data, self._now())
        if event.fate is Fate.REFUSED:
            self._refusal = data.decode("utf-8", "backslashreplace")
        self._refused = False
        self._tell([event])
        self._next()

    def _expire(self) -> None:
        self._expiring = None
        self._tell(self._probes.expire(self._now()))
        self._next()

    def _next(self) -> None:
        if self._done is not None and self._sending is None:
            self._send()

    def _watch(self) -> None:
        """Set the timer for when the oldest probe counts as lost."""
        deadline = self._probes.deadline
        if self._expiring is None and deadline is not None:
            left = max(0.0, deadline - self._now())
            self._expiring = self._clock.callLater(left, self._expire)

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            self._report.tell(event)
        if self._report.broken:
            self._finish(self._report.broken)

    def _wasRefused(self) -> None:
        if not self._probes.received:
            self._finish(f"{self._report.target}: nobody listens there", NOT_CONNECTED)
        elif not self._refused:
            # Once, until there is a reply again.
            self._refused = True
            self._report.note("nobody listens there any more")

    def _ended(self, why: str, refused: bool) -> None:
        if self._done is not None:
            self._tell(self._probes.giveUp())
            answered = self._probes.received - self._probes.refused
            turnedAway = refused or rejected(self._refusal)
            if turnedAway and not answered:
                self._finish(self._refusal or why, NOT_CONNECTED)
            else:
                self._finish(why, NOT_ALL)

    def _linger(self) -> None:
        """Wait for duplicates of the last reply, then finish."""
        if self._ending is not None:
            return
        slowest = max(self._probes.roundTrips, default=0.0)
        self._ending = self._clock.callLater(max(LINGER, 2 * slowest), self._finish, "")

    def _finish(self, why: str, status: int | None = None) -> None:
        if self._done is None:
            return
        done, self._done = self._done, None
        for call in (self._sending, self._expiring, self._ending):
            if call is not None and call.active():
                call.cancel()
        self._link.close()
        if status != NOT_CONNECTED:
            self._report.end(self._probes)
        why = why or self._report.broken or self._faults()
        if status is None:
            status = NOT_ALL if why else 0
        done.callback((status, why))

    def _faults(self) -> str:
        """Return what went wrong in words, or ""."""
        faults = self._probes.faults
        said = ", ".join(f"{number} {name}" for name, number in faults.items())
        count = self._probes.count
        return f"of {counted(count, 'probe')}: {said}" if said else ""
