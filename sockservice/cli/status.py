"""Exit statuses of the commands, and the end with one of them."""

from typing import NoReturn

from sockservice.cli.text import tell

DONE, NOT_ALL, USAGE, NOT_CONNECTED, TIMED_OUT, INTERRUPTED = 0, 1, 2, 3, 4, 130
#: More than the number of the signal that ended it.
SIGNALLED = 128


def end(status: int, said: str) -> NoReturn:
    """End the command; say the last word on stderr, if there is one."""
    if said:
        tell(said)
    raise SystemExit(status)
