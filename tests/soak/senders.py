"""Senders that remember what was acknowledged, and the comparison with what is stored."""

import random
import socket
import sqlite3
import struct
from contextlib import closing, suppress
from pathlib import Path
from threading import Condition, Thread

#: Seconds after which a thing that was to happen has not happened.
PATIENCE = 60.0
OK = b"ok"
REFUSED = b"error not stored: "
UNKNOWN = b"error unknown: "

Address = tuple[str, int]


def _rests() -> list[bytes]:
    """Give what lines end in: any byte that is not wire, in lengths up to some pages."""
    chance = random.Random(555)
    usual = bytes(set(range(255)) - {10, 13})  # 255 is telnet's
    lengths = [0, 1, 64, 64, 64, 64, 100, 200, 300, 1000, 4096, 12000]
    return [bytes(chance.choices(usual, k=length)) for length in lengths * 7 + [40]]


_RESTS = _rests()


def line(name: str, number: int) -> bytes:
    """Give the line that a sender sends as its `number`-th."""
    return b"<%s:%d>%s" % (name.encode(), number, _RESTS[number % len(_RESTS)])


class Sender(Thread):
    """Send numbered lines on a connection of its own, up to `window` of them unanswered."""

    #: What its listener's name begins with: a port may be two senders', of TCP and of UDP.
    kind = "tcp"

    def __init__(self, name: str, address: Address, window: int = 1) -> None:
        super().__init__(name=name, daemon=True)
        self.window = window
        self.socket = self._connected(address)
        #: As the server names it.
        self.peer = "{}:{}".format(*self.socket.getsockname())
        self.sent = 0
        #: The replies, the n-th to the n-th line.
        self.replies: list[bytes] = []
        self._changed = Condition()
        self._ended = False

    def run(self) -> None:
        try:
            with suppress(OSError):
                while not self._ended:
                    self._exchange()
        finally:
            self.socket.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def stop(self) -> None:
        """Send and receive nothing more."""
        self._ended = True
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.join(PATIENCE)

    def until(self, reply: bytes, times: int = 1) -> None:
        """Wait until `reply` has come another `times`."""
        since = len(self.replies)
        with self._changed:
            come = self._changed.wait_for(
                lambda: self._ended or self.replies[since:].count(reply) >= times, PATIENCE
            )
        assert come and not self._ended, f"{self.name} was not told {reply!r}: {self.replies[-3:]}"

    def _connected(self, address: Address) -> socket.socket:
        return socket.create_connection(address, PATIENCE)

    def _exchange(self) -> None:
        room = self.window - (self.sent - len(self.replies))
        lines = [line(self.name, self.sent + n) + b"\n" for n in range(room)]
        self.sent += room
        self.socket.sendall(b"".join(lines))
        self._received()

    def _received(self) -> None:
        data = self.socket.recv(65536)
        while data and not data.endswith(b"\n"):
            more = self.socket.recv(65536)
            if not more:
                break
            data += more
        if not data:
            raise ConnectionResetError
        self._told(data.split(b"\n")[:-1])

    def _told(self, replies: list[bytes]) -> None:
        with self._changed:
            self.replies += replies
            self._changed.notify_all()


class DatagramSender(Sender):
    """Send numbered lines, each in a datagram, one at a time."""

    kind = "udp"

    def _connected(self, address: Address) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # By the kernel: Python's own timeout spins when the socket is shut down.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(PATIENCE), 0))
        made.connect(address)
        return made

    def _exchange(self) -> None:
        self.sent += 1
        self.socket.send(line(self.name, self.sent - 1))
        reply = self.socket.recv(65536)
        if not reply:
            raise ConnectionResetError
        self._told([reply])


def latest(path: Path) -> int:
    """Give the greatest id there is."""
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT ifnull(max(id), 0) FROM lines").fetchone()[0])


def compare(path: Path, after: int, senders: list[Sender]) -> tuple[int, int]:
    """See that what was said is so: acknowledged lines are stored, refused ones are not.

    What is unknown may be either; nothing else may have been said. The lines of a sender are
    in their order, and none is torn. Give how many lines were acknowledged, and how many are
    stored.
    """
    acknowledged = stored = 0
    with closing(sqlite3.connect(path)) as database:
        for sender in senders:
            rows = database.execute(
                "SELECT line FROM lines WHERE id > ? AND peer = ? AND listener LIKE ? ORDER BY id",
                (after, sender.peer, f"{sender.kind}:%"),
            ).fetchall()
            numbers = [_number(sender, kept) for (kept,) in rows]
            assert numbers == sorted(set(numbers)), f"{sender.name}: not in order, or twice"
            said = {reply for reply in sender.replies if not reply.startswith((REFUSED, UNKNOWN))}
            assert said <= {OK}, f"{sender.name}: told {said}"
            oks = {number for number, reply in enumerate(sender.replies) if reply == OK}
            lost = sorted(oks.difference(numbers))
            assert not lost, (
                f"{sender.name}: {len(lost)} of {len(oks)} acknowledged lines lost, from {lost[0]}"
            )
            refused = {n for n, reply in enumerate(sender.replies) if reply.startswith(REFUSED)}
            assert not refused.intersection(numbers), f"{sender.name}: refused lines are stored"
            acknowledged += len(oks)
            stored += len(numbers)
        (sound,) = database.execute("PRAGMA integrity_check").fetchone()
        assert sound == "ok"
    return acknowledged, stored


def _number(sender: Sender, kept: bytes) -> int:
    """Give the number of a line that was sent."""
    number = int(kept.partition(b">")[0].rpartition(b":")[2])
    assert number < sender.sent and kept == line(sender.name, number), f"not sent: {kept!r}"
    return number
