"""One datagram and the socket that it alone leaves from: what arrives there, and what it is."""

from enum import StrEnum
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from sockservice.client.requests import Asked, TimedOut, Unanswered
from sockservice.wire.plurals import inSeconds


class Surplus(StrEnum):
    """A datagram that answers none."""

    #: The reply to a datagram that had been given up.
    LATE = "late"
    #: The same reply again.
    DUPLICATED = "duplicated"
    UNASKED = "unasked"


class Socket(Protocol):
    """A socket connected to the peer, for one datagram."""

    def send(self, datagram: bytes) -> None:
        """Send it.

        :raises OSError: The system does not send it.
        """

    def close(self) -> None:
        """Close it: nothing more arrives."""


class Asker(Protocol):
    """What a question tells of what arrives."""

    def accepts(self, question: "Question", reply: bytes) -> bool:
        """Return whether `reply`, the first to the question, is taken for its reply now."""

    def decide(self) -> None:
        """Take a reply that is no echo, and is still held, for a reply."""

    def surplus(self, kind: Surplus, datagram: bytes) -> None:
        """A datagram answers none."""


class Question(Asked):
    """A datagram that is sent from `socket`, and its reply."""

    __slots__ = ("_answer", "_asker", "held", "seconds", "socket")

    def __init__(
        self, asker: Asker, datagram: bytes, clock: IReactorTime, seconds: float | None
    ) -> None:
        super().__init__(datagram, clock, None)
        self._asker = asker
        self.seconds = seconds  # from sending to giving up
        self.socket: Socket | None = None
        #: What came and may be the reply.
        self.held: bytes | None = None
        self._answer: bytes | None = None

    def send(self) -> None:
        """Send the datagram from `socket`; the time for the reply begins.

        :raises OSError: The system does not send it.
        """
        assert self.socket is not None
        self.start(self.seconds)
        self.socket.send(self.datagram)

    def answer(self, reply: bytes) -> None:
        self._answer, self.held = reply, None
        super().answer(reply)

    def release(self) -> None:
        """Count what was held as unasked."""
        held, self.held = self.held, None
        if held is not None:
            self._asker.surplus(Surplus.UNASKED, held)

    # What follows is called by the socket.

    def received(self, datagram: bytes) -> None:
        if self.reply is not None:
            if self._asker.accepts(self, datagram):
                self.release()
                self.answer(datagram)
            elif self.held is None:
                self.held = datagram
            else:
                self._asker.surplus(Surplus.UNASKED, datagram)
        elif self._answer is None:
            self._answer = datagram
            self._asker.surplus(Surplus.LATE, datagram)
        else:
            again = datagram == self._answer
            self._asker.surplus(Surplus.DUPLICATED if again else Surplus.UNASKED, datagram)

    def refused(self) -> None:
        why = Unanswered("connection refused: nobody listens there")
        why.__cause__ = ConnectionRefusedError()
        self.fail(why)

    def _expire(self, timeout: float) -> None:
        if self.held is not None:
            self._asker.decide()
        why = f"no reply within {inSeconds(timeout)}"
        if self.held is not None:
            why = f"no echo within {inSeconds(timeout)}: the server echoes, and sent something else"
            self.release()
        self.fail(TimedOut(why))
