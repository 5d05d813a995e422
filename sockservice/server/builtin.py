"""The protocols that come with the service, beside its acknowledgement."""

from collections.abc import Callable
from typing import Any

from sockservice.net.addresses import named
from sockservice.server.ack import Ack
from sockservice.server.answers import Answer
from sockservice.server.datagram import DatagramServer
from sockservice.server.factory import LineFactory
from sockservice.server.line import LineServer
from sockservice.wire.chunks import Chunks


class EchoLines(LineServer):
    """Send each line back."""

    answerLimit = Ack.answerLimit

    def answers(self, lines: list[bytes]) -> list[Answer]:
        return list(lines)


class DiscardLines(LineServer):
    """Swallow each line, answer nothing (RFC 863)."""

    answerLimit = Ack.answerLimit

    def answers(self, lines: list[bytes]) -> list[Answer]:
        return []


class AckChunks(Ack):
    """Acknowledge each chunk that arrives with a bare `ok`: no line endings either way."""

    framing = Chunks


class AckDatagrams(DatagramServer):
    """Acknowledge each datagram with `ok`: received, or, where there is a store, durable."""

    def answer(self, datagram: bytes, peer: Any) -> Answer:
        if self.store is None:
            return b"ok"
        return self.keep(datagram, peer).addCallback(lambda _: b"ok")


class DiscardDatagrams(DatagramServer):
    """Swallow each datagram, answer nothing (RFC 863)."""

    def answer(self, datagram: bytes, peer: Any) -> Answer:
        return None


class DatagramLines(DatagramServer):
    """Serve datagrams with a LineServer that can: each datagram is a line."""

    def __init__(self, made: Callable[[], LineServer], **settings: Any) -> None:
        super().__init__(**settings)
        assert self.clock is not None
        server = made()
        # An answer may still be awaited when other peers' datagrams come, and then name its
        # peer. So each datagram is answered by an object of its own, with its peer; all else
        # is one instance's.
        self._view: Any = type(type(server).__name__, (type(server),), {"__slots__": ("peer",)})
        self._state = vars(server)
        server.detached(
            LineFactory(
                self.clock,
                made,
                verbose=self.verbose,
                counters=self.counters,
                store=self.store,
                listener=self.listener,
                wall=self.wall,
            )
        )

    def answer(self, datagram: bytes, peer: Any) -> Answer:
        view = object.__new__(self._view)
        view.__dict__ = self._state
        view.peer = named(peer)
        answer: Answer = view.answer(datagram)
        return answer
