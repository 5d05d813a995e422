"""Have a reactor measure time with a clock that nobody sets."""

import time
from typing import Any

from twisted.internet.base import ReactorBase


def steady(reactor: Any) -> None:
    """Have `reactor` tell the time by the monotonic clock (clock_gettime(2)) from now on.

    Twisted's reactors take `time.time`, so that a wall clock that is set back holds up every
    delayed call, and one that is set forward makes all of them due. What is scheduled already
    is due as long from now as it was. A reactor that tells the time in its own way is left
    alone, and so is one that is steady already.
    """
    if "seconds" in vars(reactor) or getattr(type(reactor), "seconds", None) is not _WALL:
        return
    left = {call: call.getTime() - reactor.seconds() for call in reactor.getDelayedCalls()}
    reactor.seconds = time.monotonic
    for call, seconds in left.items():
        call.seconds = time.monotonic
        call.reset(seconds)


_WALL = ReactorBase.seconds
