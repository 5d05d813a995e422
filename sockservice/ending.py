"""End the process with a status of our own: twistd itself knows only 0 and signals."""

import atexit
import os
import sys
from typing import Any


def endWith(reactor: Any, status: int) -> None:
    """Stop the reactor, draining all services, and exit with `status` when that is done."""
    atexit.register(_exit, status)
    reactor.stop()


def _exit(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
