"""`sockservice ping`: numbered probes to a server, the round trip of each, and what was lost."""

import json
import os
from collections.abc import Callable
from time import perf_counter
from typing import Any

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import DatagramProtocol, Protocol, connectionDone
from twisted.internet.task import react
from twisted.python.failure import Failure

from sockservice.attaching import attach, longest
from sockservice.cli.completion import targets
from sockservice.cli.output import Output
from sockservice.cli.status import INTERRUPTED, NOT_ALL, NOT_CONNECTED, USAGE, end
from sockservice.cli.target import inSeconds, sized, targeted
from sockservice.cli.terminal import printable
from sockservice.client import REPLY_LIMIT, DatagramClient, LineClient, lost
from sockservice.framing import Framer, Lines, Packets
from sockservice.packets import PacketServer
from sockservice.pinging import Event, Fate, Probes, Spread, spread
from sockservice.targets import connect, explained
from sockservice.transports import tune

#: Probes sent with --flood when no --count is given.
FLOOD_COUNT = 1000
#: Bytes on a stream that a server may leave unanswered before probes stay unsent.
UNANSWERED = 4 * 1024 * 1024
#: Seconds until a probe for which the system had no room is tried again.
RETRY = 0.01
#: Least seconds to wait for a second reply to the last probe.
LINGER = 0.02


@click.command()
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many probes.")
@inSeconds("--interval", 1.0, "Seconds from one probe to the next.")
@sized(
    "Bytes of a probe; of a line, without its ending. 65507 is the longest datagram on "
    "IPv4, 65527 on IPv6. Below 6 the number of a probe is cut short, so that what is late, "
    "twice or out of order is told less surely; empty ones have none."
)
@inSeconds("--timeout", 1.0, "Seconds after which a probe is lost.")
@click.option(
    "--flood",
    metavar="N",
    type=click.IntRange(1, 1000),
    help="Send the next probe as soon as fewer than N are awaited, and print the summary only. "
    f"Ends after {FLOOD_COUNT} probes where --count does not say otherwise.",
)
@click.option("--json", "asJson", is_flag=True, help="Print an object a reply, and a summary.")
@click.option("--quiet", is_flag=True, help="Print the summary only.")
@targeted
@click.argument("target", shell_complete=targets)
def ping(
    target: str,
    count: int | None,
    interval: float,
    size: int,
    timeout: float,
    flood: int | None,
    asJson: bool,
    quiet: bool,
    how: dict[str, Any],
) -> None:
    """Send numbered probes to TARGET and tell what becomes of each.

    TARGET is what `sockservice send` takes. Over datagrams it has to echo, as RFC 862 says.
    On streams a probe is a line; a server that does not echo lines, but answers each with
    one of its own, as `ack` does, is measured as well, but then nothing can be seen to be
    corrupt.

    Ctrl-C ends it with the summary; probes still awaited are not lost then.

    Exit status: 0 every probe was answered; 1 some were lost, refused or came back corrupt;
    2 usage; 3 could not connect, or nobody listens; 130 interrupted before connected.
    """

    async def run(reactor: Any) -> None:
        connecting = connect(reactor, target, **how)
        trigger = reactor.addSystemEventTrigger("before", "shutdown", connecting.cancel)
        try:
            client = await connecting
        except ValueError as problem:
            end(USAGE, f"{target}: {problem}")
        except (CancelledError, ConnectingCancelledError):
            end(INTERRUPTED, f"interrupted before {target} was connected")
        except Exception as problem:
            end(NOT_CONNECTED, f"could not connect to {target}: {explained(problem)}")
        reactor.removeSystemEventTrigger(trigger)
        if size > longest(client):
            end(USAGE, f"--size: {target} takes at most {longest(client)} bytes")
        link = linked(client)
        pinging = Pinging(
            reactor,
            perf_counter,
            link,
            Probes(size, timeout, isinstance(link, LineLink)),
            report=Report(target, size, Output(), asJson, quiet or bool(flood)),
            count=count or (FLOOD_COUNT if flood else None),
            interval=interval,
            flood=flood,
        )
        reactor.addSystemEventTrigger("before", "shutdown", pinging.stop)
        end(*await pinging.run())

    react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


class Link:
    """What probes travel on; says what it meets to whoever listens to it."""

    def __init__(self) -> None:
        self.received: Callable[[bytes], None] = lambda data: None
        self.refused: Callable[[], None] = lambda: None
        self.ended: Callable[[str], None] = lambda why: None

    def send(self, probe: bytes) -> None:
        """Send one probe.

        :raises BlockingIOError: There is no room for it now.
        :raises OSError: It can't be sent.
        """

    def close(self) -> None:
        """Be done."""


class LineLink(Link, Protocol):
    """Probes as lines, or as packets that hold one."""

    transport: Any

    def connectionMade(self) -> None:
        packets = isinstance(self.transport, PacketServer)
        self._framing = Packets(REPLY_LIMIT) if packets else Framer(REPLY_LIMIT)
        # Nobody waits for a second probe to fill a packet.
        tune(self.transport)

    def send(self, probe: bytes) -> None:
        self.transport.write(probe + b"\n")

    def close(self) -> None:
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        self._framing.receive(data)
        while (item := self._framing.take(1000)) is not None:
            lines = item.lines if isinstance(item, Lines) else [b"error reply " + item.reason]
            for line in lines:
                self.received(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended(lost(reason))


class DatagramLink(Link, DatagramProtocol):
    """Probes as datagrams, each of those that come back seen."""

    noisy = False
    transport: Any

    def __init__(self, peer: tuple[Any, ...]) -> None:
        super().__init__()
        self._peer = peer

    def startProtocol(self) -> None:
        self._socket = self.transport.socket

    def send(self, probe: bytes) -> None:
        try:
            self.transport.write(probe, self._peer)
        except ConnectionRefusedError:
            # The system says so of an earlier one, in the place of sending this.
            self.refused()
            self.transport.write(probe, self._peer)

    def close(self) -> None:
        self.transport.stopListening()
        self._socket.close()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received(datagram)

    def connectionRefused(self) -> None:
        self.refused()


def linked(client: LineClient | DatagramClient) -> LineLink | DatagramLink:
    """Take over the connection of a client that has asked nothing yet."""
    link = DatagramLink(client.peer) if isinstance(client, DatagramClient) else LineLink()
    attach(client, link)
    return link


class Report:
    """What is printed."""

    def __init__(self, target: str, size: int, output: Output, asJson: bool, quiet: bool) -> None:
        self.target = target
        self._size = size
        self._output = output
        self._asJson = asJson
        self._quiet = quiet

    @property
    def broken(self) -> str:
        """Why nothing more can be printed; empty while it can."""
        return self._output.broken

    def begin(self) -> None:
        if not self._asJson:
            self._output.write(f"ping {self.target}: {self._size} bytes")

    def tell(self, event: Event) -> None:
        if self._quiet:
            return
        if not self._asJson:
            self._output.write(told(event))
            return
        found: dict[str, Any] = {"number": event.number, "outcome": str(event.fate)}
        if event.fate is not Fate.LOST:
            found["size"] = event.size
        if event.roundTrip is not None:
            found["roundTrip"] = round(event.roundTrip, 9)
        if event.reordered:
            found["reordered"] = True
        if event.reason:
            found["reason"] = event.reason.decode("utf-8", "backslashreplace")
        self._output.write(json.dumps(found))

    def note(self, words: str) -> None:
        """Say what is no event of one probe."""
        if not (self._quiet or self._asJson):
            self._output.write(words)

    def end(self, probes: Probes) -> None:
        counts = {
            "sent": probes.count,
            "received": probes.received,
            "lost": probes.lost,
            "late": probes.late,
            "duplicated": probes.duplicated,
            "reordered": probes.reordered,
            "corrupt": probes.corrupt,
            "refused": probes.refused,
            "awaited": probes.awaited,
        }
        found = spread(probes.roundTrips) if probes.roundTrips else None
        if self._asJson:
            trips = found and {name: round(value, 9) for name, value in found._asdict().items()}
            summary = {**counts, "echoed": probes.echoed, "roundTrip": trips}
            self._output.write(json.dumps({"summary": summary}))
            return
        for rare in ("late", "refused", "awaited"):
            if not counts[rare]:
                del counts[rare]
        self._output.write(", ".join(f"{name} {number}" for name, number in counts.items()))
        if not probes.echoed:
            self._output.write("replies are no echoes: none can be seen to be corrupt")
        if found is not None:
            self._output.write(summed(found))


def told(event: Event) -> str:
    """Say what became of a probe."""
    who = "?" if event.number is None else str(event.number)
    if event.fate is Fate.LOST:
        return f"{who}: lost"
    if event.fate is Fate.REFUSED:
        return f"{who}: {printable(event.reason).decode()}"
    parts = [f"{who}: {event.size} bytes"]
    if event.roundTrip is not None:
        parts[0] += f" in {event.roundTrip * 1000:.3f} ms"
    if event.fate is not Fate.REPLY:
        parts.append(event.fate)
    if event.reordered:
        parts.append("reordered")
    return ", ".join(parts)


def summed(found: Spread) -> str:
    """Say the spread of round trips, in milliseconds."""
    values = (f"{name} {value * 1000:.3f}" for name, value in found._asdict().items())
    return f"round trip {', '.join(values)} ms"


class Pinging:
    """Probes on their way, at their times, until all that were asked for are told of."""

    def __init__(
        self,
        clock: Any,
        now: Callable[[], float],
        link: Link,
        probes: Probes,
        *,
        report: Report,
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
        self._done: Deferred[tuple[int, str]] | None = Deferred()
        link.received = self._received
        link.refused = self._wasRefused
        link.ended = self._ended

    def run(self) -> Deferred[tuple[int, str]]:
        """Send all probes and await all replies; gives the exit status and what to say."""
        assert self._done is not None
        done = self._done
        self._report.begin()
        self._due = self._now()
        self._send()
        return done

    def stop(self) -> None:
        """End now; what is awaited is left out of account."""
        self._finish("")

    def _send(self) -> None:
        """Send what is due."""
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
            # Where the time for several has gone by, they are not made up for.
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
        event = self._probes.receive(data, self._now())
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
        """Come back when the oldest probe is lost."""
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
            # Once, until a reply comes again.
            self._refused = True
            self._report.note("nobody listens there any more")

    def _ended(self, why: str) -> None:
        if self._done is not None:
            self._tell(self._probes.giveUp())
            self._finish(why, NOT_ALL)

    def _linger(self) -> None:
        """All is told but what comes twice."""
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
        if status is None:
            status = NOT_ALL if why or self._report.broken or not self._probes.whole else 0
        done.callback((status, why or self._report.broken))
