"""A UDP server that does whatever a datagram server may, at random, and keeps a record."""

import socket
import threading
from collections import Counter
from heapq import heappop, heappush
from random import Random
from time import monotonic
from typing import Any

#: What may become of a datagram, and how often.
FATES = {
    "answer": 60,
    "twice": 10,
    "again later": 10,
    "late": 5,
    "drop": 10,
    "elsewhere": 5,
}


class Adversary:
    """Doubles, drops, reorders, delays up to `latest` seconds, and answers from elsewhere.

    `replies` are functions of a datagram, one of which is chosen for each reply.
    """

    def __init__(self, seed: int, replies: list[Any], latest: float) -> None:
        self._random = Random(seed)
        self._replies = replies
        self._latest = latest
        self._bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._bound.bind(("127.0.0.1", 0))
        self._other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._other.bind(("127.0.0.1", 0))
        self._due: list[tuple[float, int, bytes, Any]] = []
        self._stopped = False
        #: How often each datagram was received, and was answered from the right address.
        self.received: Counter[bytes] = Counter()
        self.answered: Counter[bytes] = Counter()
        self.target = f"udp:127.0.0.1:{self._bound.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._stopped = True
        self._thread.join()
        self._bound.close()
        self._other.close()

    def _serve(self) -> None:
        while not self._stopped:
            wait = max(0.001, self._due[0][0] - monotonic()) if self._due else 0.05
            self._bound.settimeout(min(wait, 0.05))
            try:
                datagram, source = self._bound.recvfrom(65536)
            except (TimeoutError, OSError):
                pass
            else:
                self._decide(datagram, source)
            while self._due and self._due[0][0] <= monotonic():
                _, _, reply, to = heappop(self._due)
                self._bound.sendto(reply, to)

    def _decide(self, datagram: bytes, source: Any) -> None:
        random = self._random
        self.received[datagram] += 1
        [fate] = random.choices(list(FATES), list(FATES.values()))
        reply = random.choice(self._replies)(datagram)
        if fate == "elsewhere":
            self._other.sendto(reply, source)
        if fate in ("drop", "elsewhere"):
            return
        self.answered[datagram] += 1
        soon = random.random() * 0.005
        delays = {
            "answer": [soon],
            "twice": [soon, soon],
            "again later": [soon, random.random() * self._latest],
            "late": [random.random() * self._latest],
        }[fate]
        for delay in delays:
            entry = (monotonic() + delay, self.received.total(), reply, source)
            heappush(self._due, entry)
