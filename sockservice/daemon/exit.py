"""Exit with a status of our own: twistd itself knows only 0 and signals."""

import atexit
import os
import select
import sys
from threading import Timer
from typing import Any

from twisted.logger import Logger

from sockservice.daemon.logqueue import LogQueue, installed

#: Seconds in which whoever reads stderr has to take a line.
READING = 1.0
#: Seconds that threads have to end when everything else has.
THREADS = 2.0

log = Logger()


def giveUp(reactor: Any, reason: str) -> None:
    """End the process with status 1, for it can't do what it was started for; say why."""
    log.error("{reason}", reason=reason)
    tell(reason)
    endWith(reactor, 1)


def tell(reason: str) -> None:
    """Say on stderr why the process ends, to whoever reads that."""
    # twistd has put its log in sys.stderr's place.
    stderr = sys.__stderr__
    if stderr is not None and select.select([], [stderr], [], READING)[1]:
        print(f"sockservice: {reason}", file=stderr)


def endWith(reactor: Any, status: int) -> None:
    """Stop the reactor, draining all services, and exit with `status` when that is done."""
    atexit.register(_exit, status)
    writing = installed()
    if writing is not None:
        writing.status = status
    reactor.stop()


def leave() -> None:
    """Have the process end when it exits, with status 0, though a thread may still be at work."""
    atexit.register(_exit, 0)


def endSoon(reactor: Any, writing: LogQueue) -> None:
    """Have the process end, when all is drained, though threads may wait for ever.

    Python, and Twisted for its pool, would wait for them: for a name that no server tells,
    or for whatever an answer has begun.
    """
    pool = getattr(reactor, "threadpool", None)
    if pool is not None:
        # Nobody takes what they bring any more; and twistd has its pidfile to remove.
        pool.threads.clear()
    ending = Timer(THREADS, _unwaited, (writing,))
    ending.daemon = True
    ending.start()


def _unwaited(writing: LogQueue) -> None:
    log.warn("threads are still at work; ended without them")
    writing.flush()
    os._exit(writing.status)


def _exit(status: int) -> None:
    writing = installed()
    if writing is not None:
        writing.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
