"""Connect to a command's target, or say with which status and words it ends."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError

from sockservice.cli.status import INTERRUPTED, NOT_CONNECTED, USAGE
from sockservice.client.explain import explained
from sockservice.client.targets import connect


class NotConnected(Exception):
    """There is no connection: the exit status, and why, in one line."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


async def connected(target: str, connecting: Deferred[Any]) -> Any:
    """Wait for what :func:`~sockservice.client.targets.connect` gave for `target`.

    :raises NotConnected: It failed, or was cancelled.
    """
    try:
        return await connecting
    except ValueError as problem:
        raise NotConnected(USAGE, f"{target}: {problem}") from problem
    except (CancelledError, ConnectingCancelledError) as problem:
        why = f"interrupted before there was a connection to {target}"
        raise NotConnected(INTERRUPTED, why) from problem
    except Exception as problem:
        why = f"could not connect to {target}: {explained(problem)}"
        raise NotConnected(NOT_CONNECTED, why) from problem


async def connectedBeforeStop(reactor: Any, target: str, how: dict[str, Any]) -> Any:
    """Connect to `target`, as `how` says; given up when the reactor stops.

    :raises NotConnected: There is no connection.
    """
    connecting = connect(reactor, target, **how)
    trigger = reactor.addSystemEventTrigger("before", "shutdown", connecting.cancel)
    client = await connected(target, connecting)
    reactor.removeSystemEventTrigger(trigger)
    return client
