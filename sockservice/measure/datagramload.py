"""Load over one datagram socket."""

from typing import Any

from twisted.internet.protocol import DatagramProtocol

from sockservice.measure.probes import Fate, Probes
from sockservice.measure.schedule import SECOND, Schedule


class DatagramLoad(DatagramProtocol):
    """One socket that sends numbered datagrams and expects each to be echoed."""

    noisy = False
    transport: Any

    def __init__(self, load: Schedule, place: int, peer: tuple[Any, ...]) -> None:
        self._load = load
        self._place = place
        self._peer = peer
        self._probes = Probes(load.size, load.timeout * SECOND, stream=False)
        self.ended = False

    def startProtocol(self) -> None:
        self._socket = self.transport.socket

    def fill(self, now: int) -> None:
        """Send the datagrams that may be sent now."""
        load, probes = self._load, self._probes
        if self.ended:
            return
        count = load.pipeline - probes.awaited
        if load.rate is not None:
            count = min(count, load.due(self._place, now) - probes.count)
        elif load.until is not None:
            return
        count = load.granted(max(0, count))
        for sent in range(count):
            try:
                self.transport.write(probes.following, self._peer)
            except BlockingIOError:
                # The next sweep tries again.
                load.giveBack(count - sent)
                return
            except ConnectionRefusedError:
                load.giveBack(count - sent)
                self.connectionRefused()
                return
            except OSError:
                # Counted as sent: it will be lost.
                pass
            probes.sent(now)

    def sweep(self, now: int) -> None:
        """Give up lost datagrams, and send others in their place."""
        del self._probes.roundTrips[:]
        lost = self._probes.expire(now)
        self._load.tally.lost += len(lost)
        self.fill(now)
        if lost:
            self._load.settle()

    def outstanding(self, until: int) -> int:
        """Return how many datagrams have no reply, including those due but not sent."""
        load, probes = self._load, self._probes
        due = 0 if load.rate is None else load.due(self._place, until)
        return probes.awaited + max(0, due - probes.count)

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            self.transport.stopListening()
            self._socket.close()

    # What follows is called by the transport.

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        load, tally = self._load, self._load.tally
        now = load.now()
        event = self._probes.receive(datagram, now)
        if event.fate is Fate.DUPLICATE:
            tally.unasked += 1
        elif event.fate is Fate.CORRUPT:
            tally.wrong += 1
        elif event.fate is Fate.REPLY and event.number is not None:
            latency = event.roundTrip or 0
            begun = now - latency
            if load.rate is not None:
                begun = load.moment(self._place, event.number - 1)
                latency = now - begun
            if load.rate is None or begun >= load.since:
                tally.latencies.record(int(latency))
                tally.answered += 1
                tally.inTime += load.until is None
        self.fill(now)
        load.settle()

    def connectionRefused(self) -> None:
        if not self.ended:
            self._load.unheard = True
            self._load.tally.fault("ended", "nobody listens there")
            self._load.tally.lost += self._probes.awaited
            self.close()
            self._load.settle()
