"""Run a command in a reactor whose time nobody sets."""

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from sockservice.net.clock import steady


def react(run: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run `run` with the reactor, and exit when it has ended; as `twisted.internet.task.react`."""

    def begin(reactor: Any) -> Deferred[None]:
        steady(reactor)
        return Deferred.fromCoroutine(run(reactor))

    task.react(begin)
