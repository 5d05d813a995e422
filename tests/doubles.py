"""Stand-ins that several test modules share: servers, transports in memory, outcomes."""

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import FakeDatagramTransport, StringTransport
from twisted.python.failure import Failure

from sockservice import LineServer
from sockservice.server.answers import Answer

#: From where transports in memory are spoken to.
PEER = ("192.0.2.1", 40000)


class Outcome:
    """What became of a Deferred."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.results: list[Any] = []
        deferred.addBoth(self.results.append)

    @property
    def came(self) -> bool:
        return bool(self.results)

    @property
    def value(self) -> Any:
        [result] = self.results
        assert not isinstance(result, Failure), result
        return result

    @property
    def error(self) -> BaseException:
        [result] = self.results
        assert isinstance(result, Failure), result
        assert result.value is not None
        return result.value


class Mirror(LineServer):
    """Answers each line with itself."""

    def answer(self, line: bytes) -> Answer:
        return line


class Shout(LineServer):
    """Answers each line in upper case."""

    def answer(self, line: bytes) -> Answer:
        return line.upper()


class Bye(LineServer):
    """Ends each connection with its first reply."""

    def answer(self, line: bytes) -> Answer:
        self.close()
        return b"bye"


class Whose(LineServer):
    """Answers with the peer's name and the line."""

    def answer(self, line: bytes) -> Answer:
        return self.peer.encode() + b" " + line


class Slow(LineServer):
    """Answers when the test does."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.due: list[Deferred[bytes | None]] = []
        self.cancelled: list[bytes] = []

    def answer(self, line: bytes) -> Answer:
        self.asked.append(line)
        answer = Deferred[bytes | None](lambda _: self.cancelled.append(line))
        self.due.append(answer)
        return answer


class Wire(StringTransport):  # type: ignore[misc, unused-ignore]
    """Twisted's transport in memory, which may be full, and knows whether it was cut.

    `protocol` is whose it is, as that of Twisted's other transports.
    """

    protocol: Any
    full = False
    cut = False

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"peerAddress": IPv4Address("TCP", *PEER)} | given)
        #: Each write since the peer has last looked.
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)
        if self.full and self.producer is not None:
            self.producer.pauseProducing()

    def abortConnection(self) -> None:
        self.cut = True

    @property
    def paused(self) -> bool:
        return bool(self.producerState == "paused")

    def sent(self) -> bytes:
        """Give what the peer has received since it last looked."""
        data = b"".join(self.writes)
        self.writes.clear()
        self.clear()
        return data


class DatagramWire(FakeDatagramTransport):  # type: ignore[misc, unused-ignore]
    """Twisted's, with the rest of what a datagram port has; refuses what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[bytes, Any]] = []
        self.paused = False
        self.refusal: OSError | None = None

    def write(self, packet: bytes, addr: Any = None) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.written.append((packet, addr))

    def getHost(self) -> IPv4Address:
        return IPv4Address("UDP", "192.0.2.9", 5555)

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
