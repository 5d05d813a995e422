"""What signals do while a command runs: end it in good order, or have it say how far it is."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from sockservice.cli.columns import columns, folded
from sockservice.cli.status import SIGNALS
from sockservice.wire.escaping import printable


class Signalled(Protocol):
    """What acts on signals."""

    def signalled(self, number: signal.Signals) -> None:
        """Act on a signal; called by Python's own handler, at any time."""


def catch(reactor: Any, number: signal.Signals, by: Signalled, *, ends: bool) -> None:
    """Have `by` act on a signal; behind one that `ends` it, the next ends the process at once."""
    # The parent may want it ignored (nohup, `&` in a script).
    if signal.getsignal(number) is signal.SIG_IGN:
        return

    def received(_: int, __: object) -> None:
        if ends:
            rearm()
        by.signalled(number)

    _install(number, received)
    # Again, once the reactor has installed its own handlers.
    reactor.callWhenRunning(signal.signal, number, received)


def _install(number: int, received: Callable[[int, Any], object]) -> Any:
    """Have `received` called at a signal, also if it was kept so far; return what was before."""
    before = signal.signal(number, received)
    if getattr(before, "came", False):
        signal.raise_signal(number)
    return before


def rearm() -> None:
    """Have a further signal end the process at once."""
    for each in SIGNALS:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def handling(received: Callable[[int, Any], object], *numbers: int) -> Iterator[None]:
    """Meanwhile have `received` called at signals, but for those that may not be caught."""
    before = {each: _install(each, received) for each in numbers if catching(each)}
    try:
        yield
    finally:
        for number, way in before.items():
            signal.signal(number, way)


def catching(number: int) -> bool:
    """Return whether a signal may be caught: not in a thread, nor if the parent ignores it."""
    here = threading.current_thread() is threading.main_thread()
    return here and signal.getsignal(number) is not signal.SIG_IGN


@contextmanager
def quitting(said: Callable[[], str]) -> Iterator[None]:
    """Meanwhile have SIGQUIT write to stderr what `said` returns, and end nothing."""

    def received(_: int, __: object) -> None:
        # Not through a buffer, which the signal may have interrupted.
        if sys.stderr is not None:
            lines, start = [printable(said())], ""
            if os.isatty(2):
                lines, start = folded(lines[0], columns(sys.stderr)), "\r\x1b[K"
            with suppress(OSError):
                os.write(2, f"{start}{chr(10).join(lines)}\n".encode())

    with handling(received, signal.SIGQUIT):
        yield
