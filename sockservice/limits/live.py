"""Let limits hold while the service runs: how each that may change is changed."""

from sockservice.limits import openfiles
from sockservice.limits.setting import Running


def connections(running: Running, most: int) -> None:
    """Have as many files open as that many connections need."""
    openfiles.allow(most)


def lines(running: Running, most: int) -> None:
    """Let lines of connections from now on have that many bytes."""
    for listener in running.listeners():
        listener.limitLines(most)


def drain(running: Running, most: int) -> None:
    """Let a drain take that many seconds."""
    for listener in running.listeners():
        listener.drainTimeout = most


def memory(running: Running, most: int) -> None:
    """Let all connections together hold that many bytes."""
    running.memory.most = most


def log(running: Running, most: int) -> None:
    """Let the log have that many lines of a kind in a while."""
    running.journal.most = most


def config(running: Running, file: str | None) -> None:
    """Do nothing: what is in the file has been read by now."""
