"""Keep track of probes, without I/O: answered, lost, late, duplicated, reordered or corrupt.

    probes = Probes(size=56, timeout=1.0, stream=False)
    link.write(probes.following)
    probes.sent(now)
    event = probes.receive(reply, now)      # as often as replies arrive
    events = probes.expire(now)             # when probes.deadline has come

Times are seconds of any monotonic clock.
"""

import math
from array import array
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise, takewhile
from statistics import median
from typing import NamedTuple

#: Digits of a probe's number. Shorter probes have its last digits, or none.
DIGITS = 6
_UNIT = DIGITS + 1  # the number and the separator
#: Lost probes that are remembered, so that their late replies are recognized.
REMEMBERED = 100_000


class Fate(StrEnum):
    """What a reply is, or that there is none."""

    REPLY = "reply"
    #: It came after the timeout; the probe stays lost.
    LATE = "late"
    DUPLICATE = "duplicate"
    #: It is not the echo of any probe.
    CORRUPT = "corrupt"
    #: A line of a server that does not echo, when no probe had asked for one.
    UNASKED = "unasked"
    #: A line server's `error …` instead of a reply.
    REFUSED = "refused"
    LOST = "lost"


class Event(NamedTuple):
    """The arrival of a reply, or the loss of a probe."""

    fate: Fate
    #: The probe's number, or None if unknown.
    number: int | None
    #: Length of the reply in bytes.
    size: int = 0
    #: Seconds.
    roundTrip: float | None = None
    #: A probe sent later was answered before (RFC 4737).
    reordered: bool = False
    #: The text of a refusal, or why a reply was not accepted.
    reason: bytes = b""


class Spread(NamedTuple):
    """Round trips in seconds; jitter is the mean difference between one and the next."""

    min: float
    median: float
    mean: float
    p99: float
    max: float
    jitter: float


def spread(roundTrips: Sequence[float]) -> Spread:
    """Return statistics of the round trips, at least one, in the order of their arrival."""
    ranked = sorted(roundTrips)
    count = len(ranked)
    steps = (abs(b - a) for a, b in pairwise(roundTrips))
    return Spread(
        ranked[0],
        median(ranked),
        math.fsum(ranked) / count,
        ranked[math.ceil(count * 0.99) - 1],
        ranked[-1],
        math.fsum(steps) / max(count - 1, 1),
    )


def content(number: int, size: int) -> bytes:
    """Return the probe: its number, repeated; fit for a line, and for a terminal."""
    if size < DIGITS:
        return (b"%0*d" % (DIGITS, number))[-size:] if size else b""
    unit = b"%0*d-" % (DIGITS, number % 10**DIGITS)
    return (unit * (size // _UNIT + 1))[:size]


class Probes:
    """Numbered probes of `size` bytes, from 1, and counts of their fates.

    A probe is lost when `timeout` seconds pass without its reply. The counts keep
    `count == received + lost + awaited`. On a `stream` replies come in order, so
    there a reply that is no echo answers the oldest probe, until an echo has come.
    One that begins with one of `refusals` is a refusal. Datagrams need a number to be told
    apart, and have a size of DIGITS at least.
    """

    def __init__(
        self, size: int, timeout: float, stream: bool, refusals: tuple[bytes, ...] = (b"error ",)
    ) -> None:
        if size < DIGITS and not stream:
            raise ValueError(f"a datagram of fewer than {DIGITS} bytes has no number")
        self._size = size
        self._timeout = timeout
        self._stream = stream
        self._refusals = refusals
        # Whether the peer echoes; None while unknown.
        self._echoes: bool | None = None if stream else True
        self._plain = 0  # replies that were no echoes
        self._modulus: int = 10 ** min(size, DIGITS)
        # Numbers and when they were sent, oldest first.
        self._awaited: dict[int, float] = {}
        self._givenUp: dict[int, float] = {}
        self._highest = 0
        #: Probes sent.
        self.count = 0
        #: Probes with a reply in time, corrupt ones and refusals included.
        self.received = 0
        self.lost = 0
        #: Lost probes whose reply arrived after all.
        self.late = 0
        self.duplicated = 0
        self.reordered = 0
        self.corrupt = 0
        self.unasked = 0
        self.refused = 0
        #: Seconds, of the correct replies, in the order of their arrival.
        self.roundTrips = array("d")

    @property
    def following(self) -> bytes:
        """The probe to send next."""
        return content(self.count + 1, self._size)

    @property
    def awaited(self) -> int:
        """Probes that may still be answered in time."""
        return len(self._awaited)

    @property
    def unanswered(self) -> int:
        """Probes without a reply, in time or not, as far as they are remembered."""
        return len(self._awaited) + len(self._givenUp)

    @property
    def deadline(self) -> float | None:
        """When the oldest probe awaited is lost."""
        for sent in self._awaited.values():
            return sent + self._timeout
        return None

    @property
    def echoed(self) -> bool:
        """Whether replies were echoes; if not, none could be seen to be corrupt."""
        return self._echoes is not False

    @property
    def whole(self) -> bool:
        """Whether probes were answered and nothing was lost, corrupt, refused or unasked."""
        return bool(self.received) and not self.faults

    @property
    def faults(self) -> dict[str, int]:
        """What went wrong, by its name, and how often."""
        names = ("lost", "corrupt", "refused", "unasked")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def sent(self, now: float) -> int:
        """Note that the next probe has been sent; return its number."""
        self.count += 1
        self._awaited[self.count] = now
        return self.count

    def receive(self, data: bytes, now: float) -> Event:
        """Receive a datagram, or a line without its ending."""
        newest = self._echoed(data)
        if newest is not None:
            if self._echoes is False:
                # So the replies before should have been echoes.
                self.corrupt += self._plain
            self._echoes = True
            number = self._meant(newest)
            if number is not None:
                return self._answered(number, data, now)
            self.duplicated += 1
            return Event(Fate.DUPLICATE, newest, len(data))
        if self._stream:
            return self._line(data, now)
        return self._torn(data)

    def discard(self, why: bytes) -> Event:
        """Note that a reply of a stream was not accepted, for the reason `why`."""
        number = next(iter(self._givenUp or self._awaited), None)
        self.corrupt += 1
        if number is not None:
            self._settle(number)
        return Event(Fate.CORRUPT, number, reason=why)

    def expire(self, now: float) -> list[Event]:
        """Give up the probes that have timed out."""
        awaited = self._awaited
        due = list(takewhile(lambda number: awaited[number] + self._timeout <= now, awaited))
        return [self._lose(number) for number in due]

    def giveUp(self) -> list[Event]:
        """Give up all probes: no more replies can arrive."""
        return [self._lose(number) for number in list(self._awaited)]

    def fail(self, number: int) -> None:
        """Give up a probe that could not even be sent."""
        self._lose(number)

    def _echoed(self, data: bytes) -> int | None:
        """Return the newest probe that `data` is the echo of."""
        if len(data) != self._size:
            return None
        number = self._newest(data[:DIGITS])
        return number if number and data == content(number, self._size) else None

    def _newest(self, digits: bytes) -> int:
        """Return the newest probe whose number ends in `digits`; 0 if there is none."""
        if not digits:
            return self.count
        if not digits.isdigit():
            return 0
        return max(0, self.count - (self.count - int(digits)) % self._modulus)

    def _meant(self, newest: int) -> int | None:
        """Return the probe that an echo answers, of those that look like `newest`."""
        if self._modulus == 10**DIGITS:
            return newest if newest in self._awaited or newest in self._givenUp else None
        for unanswered in (self._awaited, self._givenUp):
            for number in unanswered:
                if (newest - number) % self._modulus == 0:
                    return number
        return None

    def _answered(self, number: int, data: bytes, now: float) -> Event:
        if number in self._givenUp:
            self.late += 1
            sent = self._givenUp.pop(number)
            return Event(Fate.LATE, number, len(data), now - sent)
        self.received += 1
        roundTrip = now - self._awaited.pop(number)
        self.roundTrips.append(roundTrip)
        reordered = number < self._highest
        self.reordered += reordered
        self._highest = max(number, self._highest)
        if self._stream:
            # On a stream, earlier ones are never answered after this.
            while self._givenUp and self._echoes:
                if (first := next(iter(self._givenUp))) > number:
                    break
                del self._givenUp[first]
        return Event(Fate.REPLY, number, len(data), roundTrip, reordered)

    def _line(self, data: bytes, now: float) -> Event:
        """Receive a line that is no echo."""
        number = next(iter(self._givenUp or self._awaited), None)
        if number is not None and data.startswith(self._refusals):
            self._settle(number)
            self.refused += 1
            return Event(Fate.REFUSED, number, len(data), reason=data)
        if self._echoes is None:
            # A corrupt echo usually has the length of the probe.
            self._echoes = data != b"ok" and len(data) == self._size
        if self._echoes:
            return self._torn(data)
        if number is None:
            self.unasked += 1
            return Event(Fate.UNASKED, None, len(data))
        self._plain += 1
        return self._answered(number, data, now)

    def _torn(self, data: bytes) -> Event:
        self.corrupt += 1
        # If there is room, the number is repeated.
        for digits in (data[:DIGITS], data[_UNIT : _UNIT + DIGITS]):
            number = self._newest(digits) if len(digits) == DIGITS <= self._size else 0
            if number in self._awaited:
                self._settle(number)
                return Event(Fate.CORRUPT, number, len(data))
        if self._stream and self._awaited:
            # On a stream the order tells which.
            number = next(iter(self._awaited))
            self._settle(number)
            return Event(Fate.CORRUPT, number, len(data))
        return Event(Fate.CORRUPT, None, len(data))

    def _settle(self, number: int) -> None:
        if self._awaited.pop(number, None) is not None:
            self.received += 1
        else:
            self._givenUp.pop(number, None)
            self.late += 1

    def _lose(self, number: int) -> Event:
        self._givenUp[number] = self._awaited.pop(number)
        if len(self._givenUp) > REMEMBERED:
            del self._givenUp[next(iter(self._givenUp))]
        self.lost += 1
        return Event(Fate.LOST, number)
