"""Run a command in a reactor whose time nobody sets, if there is room for one."""

import os
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from sockservice.cli.status import NOT_CONNECTED, end, interrupted
from sockservice.net.clock import steady

#: Descriptors that a reactor opens for itself and its signals.
DESCRIPTORS = 7


def react(run: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run `run` with the reactor, and exit when it has ended; as `twisted.internet.task.react`."""

    async def ended(reactor: Any) -> None:
        try:
            await run(reactor)
        except KeyboardInterrupt as problem:
            # Before it has caught the signal itself.
            end(*interrupted(problem))

    def begin(reactor: Any) -> Deferred[None]:
        steady(reactor)
        return Deferred.fromCoroutine(ended(reactor))

    if why := cramped():
        end(NOT_CONNECTED, why)
    task.react(begin)


def cramped() -> str:
    """Return why there is no room for a reactor, which would log that and go on deaf; or ""."""
    held: list[int] = []
    try:
        while len(held) < DESCRIPTORS:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as problem:
        return f"not even begun: {problem.strerror} (see ulimit -n)"
    finally:
        for each in held:
            os.close(each)
    return ""
