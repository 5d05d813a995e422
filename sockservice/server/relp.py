"""Acknowledge the messages of rsyslog and others that speak RELP, each once it is durable."""

from sockservice.errors import Refused
from sockservice.server.ack import Ack
from sockservice.server.phase import CLOSING
from sockservice.server.replies import Due
from sockservice.wire.framing import LF
from sockservice.wire.relp import RelpFraming


class Relp(Ack):
    """Store each message that comes over RELP, and answer it `200 OK` when it is durable.

    A message that can't be stored now is not answered at all, since its sender forgets what
    is answered, `500` as well: the connection ends, and the sender sends it again.
    """

    stores = True
    telnet = False
    http = True
    framing = RelpFraming

    def _stored(self, due: Due, problem: Refused | None) -> None:
        if problem is not None:
            self.refusalEnds = True
            due.ending = LF  # the end of the connection, and no answer
        super()._stored(due, problem)

    def inspect(self, now: float, idle: int, unfinished: int) -> None:
        # librelp does not see a close until it sends the next message, and may lose that; once
        # none is taken any more, it has to read its last answers.
        super().inspect(now, idle if self._phase >= CLOSING else 0, unfinished)
