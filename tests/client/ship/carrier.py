"""Carry lines from a Follower to a server, both in memory."""

from pathlib import Path
from zlib import crc32

from twisted.internet.task import Clock

from sockservice.client.ship.following import Follower


class Server:
    """What the server keeps of a session."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.note = ""
        self.noted = 0
        self.notedCrc = 0

    @property
    def crc(self) -> int:
        return crc32(b"".join(line + b"\n" for line in self.lines))


class Carrier:
    """Carries lines from a Follower to a server; what it has in hand is lost when it dies."""

    def __init__(self, path: Path, server: Server, where: str = "oldest", limit: int = 100) -> None:
        self.clock = Clock()
        self.server = server
        self.said: list[str] = []
        self.inHand: list[bytes] = []
        self.follower = Follower(
            str(path), limit, seconds=self.clock.seconds, said=self.said.append
        )
        if server.note:
            self.follower.resume(
                server.note, len(server.lines) - server.noted, server.notedCrc, server.crc
            )
        else:
            self.follower.start(where)

    def take(self) -> None:
        if not self.follower.idle:
            self.inHand += self.follower.take(3)

    def deliver(self, count: int = 1000) -> None:
        self.server.lines += self.inHand[:count]
        del self.inHand[:count]
        if self.follower.due and not self.inHand:
            note = self.follower.note
            self.server.note = note.encode()
            self.server.noted, self.server.notedCrc = len(self.server.lines), self.server.crc
            self.follower.noted(note)

    def carry(self, seconds: float = 0.2) -> None:
        """Carry all there is while that many seconds pass at each look."""
        idle = 0
        while idle < 5:
            self.take()
            idle = 0 if self.inHand or self.follower.due else idle + 1
            self.deliver()
            self.clock.advance(seconds)

    def settle(self) -> None:
        """Carry all there is and will be, for nobody writes any more."""
        self.carry(61)

    def die(self) -> None:
        self.follower.close()
