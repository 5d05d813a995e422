"""What a server cannot show from outside, asked over a listener of its own."""

import gc
import sys

from twisted.internet import reactor

from sockservice import LineServer
from sockservice.server.answers import Answer


class Inside(LineServer):
    """Answers each line with how many delayed calls and allocated blocks of memory there are."""

    def answer(self, line: bytes) -> Answer:
        gc.collect()
        calls = len(reactor.getDelayedCalls())  # type: ignore[attr-defined, unused-ignore]
        return b"%d %d" % (calls, sys.getallocatedblocks())
