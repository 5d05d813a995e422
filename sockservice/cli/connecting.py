"""Connect to a command's target, or determine its exit status and message."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError

from sockservice.cli.status import INTERRUPTED, NOT_CONNECTED, USAGE
from sockservice.client.explain import explained
from sockservice.client.targets import connect


class NotConnected(Exception):
    """There is no connection; `status` is the exit status, `why` the message, one line."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


async def connected(target: str, connecting: Deferred[Any]) -> Any:
    """Wait for `connecting`, which is the result of connect(), and return its client.

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
    """Connect to `target` with the keywords `how`; cancelled when the reactor stops.

    :raises NotConnected: There is no connection.
    """
    connecting = connect(reactor, target, **how)
    trigger = reactor.addSystemEventTrigger("before", "shutdown", connecting.cancel)
    client = await connected(target, connecting)
    reactor.removeSystemEventTrigger(trigger)
    return client
