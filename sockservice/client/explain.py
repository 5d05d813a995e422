"""Explain failures of connections, each in one line."""

import os

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from sockservice.net.tls.client import refusal
from sockservice.wire.escaping import printable


def lost(reason: Failure) -> str:
    """Return in one line why a connection has ended."""
    assert reason.value is not None
    why = refusal(reason.value)
    if isinstance(reason.value, OSError):
        why = reason.value.strerror or ""
    elif reason.check(ConnectionDone):
        why = "closed by the server"
    elif not why:
        why = reason.getErrorMessage().partition("fashion: ")[2].rstrip(".")
    if why in ("", "Connection lost"):
        # Twisted seldom distinguishes the two.
        why = "reset, or the server is out of reach"
    return f"connection lost: {printable(why)}"


def explained(problem: BaseException) -> str:
    """Return in one line, escaped, why a connection could not be made."""
    return printable(refusal(problem) or " ".join(_said(problem).split()))


def _said(problem: BaseException) -> str:
    # Twisted repeats the number and the text of an OSError.
    number = getattr(problem, "osError", None)
    words = problem.args[0] if problem.args else ""
    if isinstance(number, int):
        return words if words and isinstance(words, str) else os.strerror(number)
    return str(problem)
