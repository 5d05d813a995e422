"""Exit with a status of our own: twistd itself knows only 0 and signals."""

import atexit
import os
import sys
from typing import Any

from twisted.logger import Logger

log = Logger()


def giveUp(reactor: Any, reason: str) -> None:
    """End the process with status 1, for it can't do what it was started for; say why."""
    log.error("{reason}", reason=reason)
    # twistd has put its log in sys.stderr's place.
    print(f"sockservice: {reason}", file=sys.__stderr__)
    endWith(reactor, 1)


def endWith(reactor: Any, status: int) -> None:
    """Stop the reactor, draining all services, and exit with `status` when that is done."""
    atexit.register(_exit, status)
    reactor.stop()


def leave() -> None:
    """Have the process end when it exits, with status 0, though a thread may still be at work."""
    atexit.register(_exit, 0)


def _exit(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
