"""Connect to a command's target, or determine its exit status and message."""

import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError

from sockservice.cli.signals import catch
from sockservice.cli.status import INTERRUPTED, NOT_CONNECTED, SIGNALS, USAGE, signalled
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


class Stopping:
    """What a signal does to a command that connects and then goes on until it is done.

    `ended` gets the exit status and the word for the signal; `quit` is told of SIGQUIT, and
    `hungUp`, if given, of SIGHUP, which ends nothing then. All are called in the reactor.
    """

    def __init__(self, reactor: Any, hungUp: Callable[[], object] | None = None) -> None:
        self._reactor = reactor
        self._hungUp = hungUp
        self._outcome: tuple[int, str] | None = None
        self.ended: Callable[[int, str], object] = lambda status, word: None
        self.quit: Callable[[], object] = lambda: None
        for number in (*SIGNALS, signal.SIGQUIT):
            goesOn = number == signal.SIGQUIT or (number == signal.SIGHUP and hungUp is not None)
            catch(reactor, number, self, ends=not goesOn)

    def signalled(self, number: signal.Signals) -> None:
        """Act on a signal; called by Python's own handler, at any time."""
        self._reactor.callFromThread(self._act, number)

    def _act(self, number: signal.Signals) -> None:
        if number == signal.SIGQUIT:
            self.quit()
        elif number == signal.SIGHUP and self._hungUp is not None:
            self._hungUp()
        else:
            self._outcome = signalled(number)
            self.ended(*self._outcome)

    async def connected(self, target: str, how: dict[str, Any]) -> Any:
        """Connect to `target` with the keywords `how`.

        :raises NotConnected: There is no connection, or a signal has come first.
        """
        connecting = connect(self._reactor, target, **how)
        self.ended = lambda status, word: connecting.cancel()
        try:
            return await connected(target, connecting)
        except NotConnected as problem:
            if self._outcome is None:
                raise
            status, word = self._outcome
            why = f"{word} before there was a connection to {target}"
            raise NotConnected(status, why) from problem
